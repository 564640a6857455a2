"""A server of gRPC on its C core, with the methods of hack/interop/h2peer/server.go: `... 127.0.0.1:PORT`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 64 * 1024),
)


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds the methods, and knows which calls of Sleeps are under way."""

    def __init__(self) -> None:
        self.asleep: set[str] = set()

    def service(self, details: Any) -> Any:
        """Return the handler of a call."""
        return {
            "/test/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/test/Refuses": grpc.unary_unary_rpc_method_handler(self.refuses),
            "/test/Sleeps": grpc.unary_unary_rpc_method_handler(self.sleeps),
            "/test/Asleep": grpc.unary_unary_rpc_method_handler(self.is_asleep),
            "/test/Counts": grpc.unary_stream_rpc_method_handler(self.counts),
            "/test/Adds": grpc.stream_unary_rpc_method_handler(self.adds),
            "/test/Echoes": grpc.stream_stream_rpc_method_handler(self.echoes),
        }.get(details.method)

    async def unary(self, request: bytes, context: Any) -> bytes:
        """Answer the message reversed, and the caller's metadata."""
        given = [(name, value) for name, value in context.invocation_metadata() if name.startswith("x-")]
        await context.send_initial_metadata([pair for pair in given if pair[0] != "x-forwarded-for"])
        context.set_trailing_metadata((("size", str(len(request))), ("blob-bin", b"\0\xff")))
        return request[::-1]

    async def refuses(self, _request: bytes, context: Any) -> bytes:
        """Fail."""
        context.set_trailing_metadata((("why-bin", b"\0\xff"),))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: é")
        raise AssertionError

    async def sleeps(self, _request: bytes, context: Any) -> bytes:
        """Answer never."""
        name = str(dict(context.invocation_metadata())["name"])
        self.asleep.add(name)
        try:
            await asyncio.Event().wait()
        finally:
            self.asleep.discard(name)
        return b""

    async def is_asleep(self, request: bytes, _context: Any) -> bytes:
        """Tell whether the call of Sleeps that the message names is under way."""
        return b"true" if request.decode() in self.asleep else b"false"

    async def counts(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        """Send this many messages."""
        for number in range(int(request)):
            yield b"%d" % number

    async def adds(self, requests: Any, _context: Any) -> bytes:
        """Answer the sum."""
        return b"%d" % sum([int(request) async for request in requests])

    async def echoes(self, requests: Any, _context: Any) -> AsyncIterator[bytes]:
        """Send back what comes."""
        async for request in requests:
            yield request


async def main(address: str) -> None:
    """Serve until killed."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((Handlers(),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
