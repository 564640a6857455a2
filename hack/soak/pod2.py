"""A good endpoint of the Services that speak HTTP/2 to their endpoints, and of that which speaks gRPC.

`python -m hack.soak.pod2 --address 127.0.0.1 --http2 80,81 --grpc 82 --name a --served FILE`. Over HTTP/2
without TLS: `/`, `/delay/SECONDS`, `/bytes/N` and `/sum`, as `hack.soak.pod` has them. Of gRPC, with messages
of bytes: `/soak/Unary` answers a message reversed, `/soak/Counts` streams as many as it is asked for, and
`/soak/Echoes` sends each back; its health service says that all is well. On SIGTERM it says GOAWAY and leaves
when the last request has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import zlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import uvloop
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from hack.kit.waiting import until_async
from hack.soak.multiplex import LAST_STREAM, Multiplex, fields_of
from hack.soak.pod import GRACE, PIECE, expected
from hack.soak.served import ServedLog

NUMBER: Final = "x-soak-number"
"""The field that has a request's own number."""
ROUND_TRIP: Final = 0.5
"""Seconds between the first GOAWAY, which only announces, and the second."""
_SERVING: Final = b"\x08\x01"
"""`grpc.health.v1.HealthCheckResponse`."""


class _Request:
    """A request that comes."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        self.size = 0
        self.crc = 0
        self.task: asyncio.Task[None] | None = None


class Http2Pod(Multiplex):
    """A client's connection; `connections` has all of the pod."""

    def __init__(self, name: str, served: ServedLog, connections: set[Http2Pod]) -> None:
        super().__init__(client=False)
        self._name = name
        self._served = served
        self._connections = connections
        self._requests: dict[int, _Request] = {}
        self._last = LAST_STREAM

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop: the client does not wait for an answer any more."""
        super().connection_lost(exc)
        self._connections.discard(self)
        for one in self._requests.values():
            if one.task is not None:
                one.task.cancel()

    def event(self, event: Event) -> None:
        """Take requests."""
        stream = getattr(event, "stream_id", None) or 0
        if isinstance(event, RequestReceived) and stream <= self._last:
            self._requests[stream] = _Request(fields_of(event))
        one = self._requests.get(stream)
        if one is None:
            return
        if isinstance(event, DataReceived):
            one.size += len(event.data)
            one.crc = zlib.crc32(event.data, one.crc)
        elif isinstance(event, StreamEnded):
            self._served.add(one.fields.get(NUMBER, ""))
            one.task = asyncio.create_task(self._serve(stream, one))
        elif isinstance(event, StreamReset):
            self._over(stream)
            if one.task is not None:
                one.task.cancel()

    async def leave(self) -> None:
        """Announce the end, say which request was the last, and close after its answer."""
        self.say_goaway(LAST_STREAM)
        await asyncio.sleep(ROUND_TRIP)
        self._last = self.h2.highest_inbound_stream_id
        self.say_goaway(self._last)
        if not self._requests:
            self.transport.close()

    def _over(self, stream: int) -> None:
        self._requests.pop(stream, None)
        if self._last < LAST_STREAM and not self._requests:
            self.transport.close()

    async def _serve(self, stream: int, one: _Request) -> None:
        with contextlib.suppress(ConnectionError, ProtocolError):
            await self._answer(stream, one)
        self._over(stream)

    async def _answer(self, stream: int, one: _Request) -> None:
        what, _, value = one.fields[":path"].lstrip("/").partition("/")
        if what == "bytes":
            size = int(value)
            self._head(stream, 200, str(size))
            for at in range(0, size, PIECE):
                await self.send(stream, expected(at, min(PIECE, size - at)), end=False)
            await self.send(stream, b"", end=True)
            return
        if what == "delay":
            await asyncio.sleep(float(value))
        told = {"bytes": one.size, "crc": one.crc} if what == "sum" else {"headers": one.fields}
        body = json.dumps({"name": self._name, **told}).encode()
        self._head(stream, 200, str(len(body)))
        await self.send(stream, body, end=True)

    def _head(self, stream: int, status: int, length: str) -> None:
        self.h2.send_headers(stream, [(":status", str(status)), ("content-length", length)])

    def reset(self) -> None:
        """Break off what has not ended in time."""
        for stream in self._requests:
            with contextlib.suppress(ProtocolError):
                self.h2.reset_stream(stream, ErrorCodes.CANCEL)
        self.speak()
        self.transport.close()


class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds the methods of gRPC."""

    def __init__(self, served: ServedLog) -> None:
        self._served = served

    def service(self, details: Any) -> Any:
        """Return the handler of a call."""
        return {
            "/soak/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/soak/Counts": grpc.unary_stream_rpc_method_handler(self.counts),
            "/soak/Echoes": grpc.stream_stream_rpc_method_handler(self.echoes),
            "/grpc.health.v1.Health/Check": grpc.unary_unary_rpc_method_handler(self.health),
        }.get(details.method)

    def _note(self, context: Any) -> None:
        self._served.add(str(dict(context.invocation_metadata()).get(NUMBER, "")))

    async def unary(self, request: bytes, context: Any) -> bytes:
        """Answer it reversed."""
        self._note(context)
        return request[::-1]

    async def counts(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Count so far."""
        self._note(context)
        for number in range(int(request)):
            yield b"%d" % number

    async def echoes(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Send each back."""
        self._note(context)
        async for request in requests:
            yield request

    async def health(self, _request: bytes, _context: Any) -> bytes:
        """Say that all is well."""
        return _SERVING


async def serve(
    name: str, address: str, http2: Sequence[int], grpc_ports: Sequence[int], served: ServedLog
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    connections: set[Http2Pod] = set()
    calls = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    calls.add_generic_rpc_handlers((Calls(served),))
    for port in grpc_ports:
        calls.add_insecure_port(f"{address}:{port}")
    await calls.start()
    servers = [
        await loop.create_server(lambda: Http2Pod(name, served, connections), address, port) for port in http2
    ]
    print(f"pod2: listening on {address}", flush=True)
    await stop.wait()
    for server in servers:
        server.close()
    leaving = [asyncio.create_task(one.leave()) for one in connections]
    with contextlib.suppress(TimeoutError):
        await asyncio.gather(calls.stop(GRACE), *leaving)
        await until_async(lambda: not connections, GRACE, 0.05)
    for one in list(connections):
        one.reset()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the endpoint in the foreground."""
    parser = argparse.ArgumentParser(prog="pod2", description="A good endpoint of HTTP/2 and gRPC.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--http2", required=True, help="ports, separated by commas")
    parser.add_argument("--grpc", required=True, help="ports, separated by commas")
    parser.add_argument("--name", required=True)
    parser.add_argument("--served", required=True, type=Path, help="where requests are written down")
    given = parser.parse_args(arguments)
    http2, grpc_ports = ([int(port) for port in ports.split(",")] for ports in (given.http2, given.grpc))
    uvloop.run(serve(given.name, given.address, http2, grpc_ports, ServedLog(given.served)))


if __name__ == "__main__":
    main()
