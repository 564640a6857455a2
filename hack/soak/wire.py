"""A client's connection that hides nothing: no second try, and every break is reported as what it was."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import msgspec

from hack.soak.ledger import Break
from hack.soak.pod import PIECE, expected
from hack.soak.stage import break_off

_REASON = re.compile(r'details="([a-z_]+)')
MOST_KEPT = 1024 * 1024
"""Bytes of a body that are returned; of a larger one only the size."""


class Broken(Exception):
    """An exchange did not come to its end, or not to the right one."""

    def __init__(self, how: Break, what: str) -> None:
        super().__init__(what)
        self.how = how


class Answer(msgspec.Struct, frozen=True):
    """A whole response; fields by their name in lower case."""

    status: int
    fields: Mapping[str, str]
    body: bytes
    size: int

    @property
    def reason(self) -> str:
        """Why the mesh answered itself; empty if it did not."""
        match = _REASON.search(self.fields.get("proxy-status", ""))
        return match[1] if match is not None else ""

    @property
    def closes(self) -> bool:
        """Whether the connection ends with it."""
        return self.fields.get("connection", "").lower() == "close"


class Wire:
    """A connection to a Service, for HTTP/1.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader = reader
        self.writer = writer
        self._host = host
        self._over = False

    @classmethod
    @asynccontextmanager
    async def open(cls, address: str, port: int, host: str) -> AsyncIterator[Wire]:
        """Give a connection; at the end it is closed, with a reset if that was not in order."""
        reader, writer = await asyncio.open_connection(address, port)
        try:
            yield cls(reader, writer, host)
        except BaseException:
            break_off(writer)
            raise
        else:
            writer.close()

    @property
    def usable(self) -> bool:
        """Whether another request may be sent, as far as one can tell."""
        return not (self._over or self.reader.at_eof() or self.writer.transport.is_closing())

    def send(self, data: bytes) -> None:
        """Send this, sooner or later.

        Raises:
            Broken: the connection has ended.
        """
        if self.writer.transport.is_closing():
            raise Broken(Break.CONNECTION, "the connection ended before all was sent")
        self.writer.write(data)

    def send_end(self) -> None:
        """Say that nothing more will be sent.

        Raises:
            Broken: the connection has ended.
        """
        if self.writer.transport.is_closing():
            raise Broken(Break.CONNECTION, "the connection ended before all was sent")
        self.writer.write_eof()

    def head(self, method: str, path: str, *fields: str) -> bytes:
        """Return a request's head."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", *fields]
        return "\r\n".join([*lines, "", ""]).encode()

    async def ask(self, method: str, path: str, *fields: str) -> Answer:
        """Send a request without a body, and read its response."""
        self.send(self.head(method, path, *fields))
        await self.writer.drain()
        return await self.receive()

    async def post(self, path: str, body: Iterable[bytes], length: int | None) -> Answer:
        """Send a request with a body, chunked if there is no length, and read its response."""
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        self.send(self.head("POST", path, framing))
        for piece in body:
            self.send(piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
            await self.writer.drain()
        if length is None:
            self.send(b"0\r\n\r\n")
        await self.writer.drain()
        return await self.receive()

    async def receive(self, *, pattern: bool = False, pause: float = 0.0, bite: int = PIECE) -> Answer:
        """Read a response: with `pattern` its body must be that of a pod.

        `pause` seconds pass after each `bite` bytes.

        Raises:
            Broken, OSError, asyncio.IncompleteReadError: there is no whole response.
        """
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = bytearray()
        size = 0
        async for piece in self._body(fields, bite):
            if pattern and piece != expected(size, len(piece)):
                raise Broken(Break.ANSWER, f"other bytes than were sent, near byte {size} of a body")
            size += len(piece)
            if len(body) < MOST_KEPT and not pattern:
                body += piece
            if pause:
                await asyncio.sleep(pause)
        answer = Answer(int(first.split(" ")[1]), fields, bytes(body), size)
        self._over = self._over or answer.closes
        return answer

    async def _body(self, fields: Mapping[str, str], bite: int) -> AsyncIterator[bytes]:
        if fields.get("transfer-encoding") != "chunked":
            async for piece in self._exactly(int(fields.get("content-length", "0")), bite):
                yield piece
            return
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            async for piece in self._exactly(size, bite):
                yield piece
            await self.reader.readexactly(2)
        await self.reader.readuntil(b"\r\n")

    async def _exactly(self, size: int, bite: int) -> AsyncIterator[bytes]:
        while size:
            piece = await self.reader.read(min(bite, size))
            if not piece:
                raise Broken(Break.CONNECTION, f"the connection ended {size} bytes before the body did")
            size -= len(piece)
            yield piece
