"""Clients that are slow, vanish, or do not speak HTTP. What they have to get is checked nevertheless."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from hack.soak.chance import chance
from hack.soak.clients import OK, Clients, Judged, judge
from hack.soak.ledger import Break, Result
from hack.soak.pod import expected
from hack.soak.stage import break_off
from hack.soak.wire import Broken

MALFORMED = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\nHost: plain\n\n",
    b"get / HTTP/1.1\r\nHost: plain\r\n\r\n",
    b"GET / HTTP/2.0\r\nHost: plain\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : plain\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: plain\r\nA: b\r\n c\r\n\r\n",
    b"POST /sum HTTP/1.1\r\nHost: plain\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /sum HTTP/1.1\r\nHost: plain\r\nContent-Length: -3\r\n\r\nabc",
    b"POST /sum HTTP/1.1\r\nHost: plain\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"CONNECT plain:80 HTTP/1.1\r\nHost: plain\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: plain\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: plain\r\n\r\n",
)
"""What has to be refused."""
WINDOW = 64 * 1024


class _Enough(Exception):
    """A client has waited as long as it wanted to."""


class Rude(Clients):
    """Starts them all with `start`."""

    def start(self) -> None:
        """Let them go."""
        owed: tuple[tuple[str, Callable[[], Awaitable[Judged]]], ...] = (
            ("reads slowly", self._read_slowly),
            ("head byte by byte", self._drip),
            ("half-closes", self._half_close),
            ("malformed", self._malformed),
        )
        for kind, work in owed:
            self.go_round(1, 0.5, lambda kind=kind, work=work: self._owed(kind, work))  # type: ignore[misc]
        careless: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
            ("resets in its request", self._reset_request),
            ("resets in its response", self._reset_response),
            ("ends in its request", self._end_in_request),
            ("never reads", self._never_read),
            ("says nothing", self._say_nothing),
            ("leaves a tunnel", self._leave_tunnel),
            ("leaves a tcp connection", self._leave_stream),
            ("toggled", self._toggled),
        )
        for kind, leave in careless:
            self.go_round(1, 0.5, lambda kind=kind, leave=leave: self._not_owed(kind, leave))  # type: ignore[misc]

    async def _owed(self, kind: str, work: Callable[[], Awaitable[Judged]]) -> None:
        await self.measured(kind, "plain", work())

    async def _not_owed(self, kind: str, leave: Callable[[], Awaitable[None]]) -> None:
        """Whatever becomes of it is right, but it has to become something."""

        async def work() -> Judged:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, Broken, _Enough):
                await leave()
            return Result.OK, ""

        await self.measured(kind, "toggled" if kind == "toggled" else "plain", work())

    # What is owed an answer

    async def _read_slowly(self) -> Judged:
        """Some KB/s, for some seconds; the response is more than all buffers on its way."""
        size = chance().randint(30, 120) * 1024
        async with self.connect("plain") as wire:
            wire.send(wire.head("GET", f"/bytes/{size + 8 * 1024 * 1024}"))
            read = 0
            await wire.reader.readuntil(b"\r\n\r\n")
            while read < size:
                piece = await wire.reader.read(4096)
                if not piece:
                    raise Broken(Break.CONNECTION, "the connection ended in the middle of a slow response")
                if piece != expected(read, len(piece)):
                    raise Broken(Break.ANSWER, f"other bytes than were sent, near byte {read}")
                read += len(piece)
                await self.rest(0.2)
            break_off(wire.writer)
        return OK

    async def _drip(self) -> Judged:
        """A head that takes a second or two; the limit is ten."""
        async with self.connect("plain") as wire:
            for byte in wire.head("GET", "/"):
                wire.send(bytes((byte,)))
                await asyncio.sleep(0.02)
            return judge("plain", await wire.receive())

    async def _half_close(self) -> Judged:
        """It has asked and will ask no more, and waits for its answer."""
        size = chance().randint(1, 300_000)
        async with self.connect("plain") as wire:
            wire.send(wire.head("GET", f"/bytes/{size}"))
            wire.send_end()
            answer = await wire.receive(pattern=True)
            if await wire.reader.read(1):
                raise Broken(Break.ANSWER, "more than one response")
        return judge("plain", answer)

    async def _malformed(self) -> Judged:
        """Must be refused, never answered as if it were right."""
        async with self.connect("plain") as wire:
            wire.send(chance().choice(MALFORMED))
            answer = await wire.receive()
            if answer.status < 400:
                raise Broken(Break.ANSWER, f"{answer.status} for what is malformed")
        return OK

    # What is not

    async def _reset_request(self) -> None:
        async with self.connect("plain") as wire:
            wire.send(wire.head("POST", "/sum", "Content-Length: 500000") + bytes(100_000))
            await self.rest(0.1)
            break_off(wire.writer)

    async def _end_in_request(self) -> None:
        async with self.connect("plain") as wire:
            wire.send(wire.head("POST", "/sum", "Transfer-Encoding: chunked") + b"ff\r\nhalf")
            await self.rest(0.5)
            wire.send_end()
            await wire.reader.read()

    async def _reset_response(self) -> None:
        async with self.connect("plain") as wire:
            wire.send(wire.head("GET", "/bytes/4000000"))
            await wire.reader.readexactly(chance().randint(1, WINDOW))
            break_off(wire.writer)

    async def _never_read(self) -> None:
        async with self.connect("plain") as wire:
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            wire.send(wire.head("GET", "/bytes/8000000") * 3)
            await self.rest(5)
            break_off(wire.writer)

    async def _say_nothing(self) -> None:
        async with self.connect("plain") as wire:
            await self.rest(2)
            if chance().random() < 0.5:
                break_off(wire.writer)

    async def _leave_tunnel(self) -> None:
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        async with self.connect("plain") as wire:
            key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
            wire.send(wire.head("GET", "/tunnel", *upgrade, key))
            await wire.reader.readuntil(b"\r\n\r\n")
            await self.rest(1)
            if chance().random() < 0.7:
                break_off(wire.writer)
            else:
                wire.send_end()
                await wire.reader.read()

    async def _leave_stream(self) -> None:
        async with self.connect("stream") as wire:
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            wire.send(bytes(2_000_000))
            await self.rest(2)
            break_off(wire.writer)

    async def _toggled(self) -> None:
        """Of a Service that comes and goes, speaks this and that, and has endpoints that never answer."""
        try:
            async with self.connect("toggled") as wire, asyncio.timeout(chance().uniform(0.1, 5)):
                while wire.usable and not self.stopped:
                    await wire.ask("GET", "/")
                    await self.rest(0.02)
        except TimeoutError:
            raise _Enough from None
