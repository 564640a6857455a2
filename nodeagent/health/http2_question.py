"""One request over HTTP/2 on a connection of its own, which is all that a probe needs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from nodeagent.health.failure import ProbeFailed
from nodeagent.proxy.http2.frames import (
    DATA,
    ENABLE_PUSH,
    END_STREAM,
    FRAME_SIZE,
    PREFACE,
    SETTINGS_ACK,
    ConnectionFault,
    FrameReader,
    frame,
    header_frames,
    ping_frame,
    settings_frame,
)
from nodeagent.proxy.http2.headers import CompressionFault, HeaderDecoder, StreamFault
from nodeagent.proxy.http2.literals import compact, literal
from nodeagent.proxy.message import split_fields
from nodeagent.settings import Limits

MOST_BYTES: Final = 64 * 1024
"""The most bytes of an answer with all its frames; also the window of the stream, which is never made
larger."""
_FRAMES: Final = 1000
_STREAM: Final = 1
_LIMITS: Final = Limits(head_bytes=MOST_BYTES)


class Answer(NamedTuple):
    """A whole response; `fields` are those of its head and its trailers."""

    status: int
    fields: dict[str, str]
    body: bytes


async def ask_http2(
    address: tuple[str, int],
    method: bytes,
    path: bytes,
    fields: Sequence[tuple[bytes, bytes]],
    body: bytes = b"",
) -> Answer:
    """Return the answer to a request.

    Raises:
        ProbeFailed: the answer is not a valid one.
        OSError: there is no connection, or it broke.
    """
    reader, writer = await asyncio.open_connection(*address)
    try:
        block = compact(b":method", method) + compact(b":scheme", b"http") + literal(b":path", path)
        block += literal(b":authority", b"%b:%d" % (address[0].encode("ascii"), address[1]))
        block += b"".join(literal(name, value) for name, value in fields)
        request = header_frames(_STREAM, block, not body, FRAME_SIZE)
        if body:
            request += frame(DATA, END_STREAM, _STREAM, body)
        writer.write(PREFACE + settings_frame({ENABLE_PUSH: 0}) + request)
        return await _read_answer(reader, writer)
    finally:
        writer.close()


async def _read_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer:
    listener = _Listener(writer)
    frames = FrameReader(listener, MOST_BYTES)
    left = MOST_BYTES
    while True:
        data = await reader.read(left)
        left -= len(data)
        if not data:
            raise ProbeFailed("closed the connection without answering" if left else "answers too much")
        try:
            while frames.feed(data, _FRAMES):
                data = b""
        except (ConnectionFault, StreamFault, CompressionFault) as fault:
            raise ProbeFailed(f"does not speak HTTP/2 as it should: {fault}") from None
        if listener.whole:
            return Answer(listener.status, listener.fields, listener.body)


class _Listener:
    """Receives an answer. Implements `nodeagent.proxy.http2.frames.FrameSink`."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.status = 0
        self.fields: dict[str, str] = {}
        self.body = b""
        self.whole = False
        self._writer = writer
        self._decoder = HeaderDecoder(_LIMITS)

    def on_headers(self, stream: int, block: bytes, end: bool) -> None:
        """Take the response's head, or its trailers."""
        if stream != _STREAM:
            raise ConnectionFault(0, "an answer that nobody asked for")
        if self.status:
            lines = self._decoder.trailers(block)
        else:
            head = self._decoder.response(block, end)
            if head.status < 200:
                return
            self.status, lines = head.status, head.fields
        self.fields |= split_fields(lines)
        self.whole = end

    def on_data(self, stream: int, data: bytes, size: int, end: bool) -> None:
        """Take more of the body."""
        if stream != _STREAM or not self.status:
            raise ConnectionFault(0, "DATA where there can be none")
        self.body += data
        self.whole = end

    def on_settings(self, values: list[tuple[int, int]]) -> None:
        """Acknowledge them; what we send is far below any limit."""
        self._writer.write(SETTINGS_ACK)

    def on_ping(self, payload: bytes, ack: bool) -> None:
        """Answer."""
        if not ack:
            self._writer.write(ping_frame(payload, ack=True))

    def on_reset(self, stream: int, code: int) -> None:
        """The request was broken off, unless the answer is already complete."""
        if not self.whole:
            raise ProbeFailed(f"broke the request off with code {code}")

    def on_goaway(self, last: int, code: int, debug: bytes) -> None:
        """The endpoint leaves; it may still answer what it has accepted."""
        if last < _STREAM and not self.whole:
            raise ProbeFailed(f"took no request and said GOAWAY with code {code}")

    def on_stream_fault(self, stream: int, code: int, detail: str) -> None:
        """A frame of the answer is wrong."""
        raise ConnectionFault(code, detail)

    def on_priority(self, stream: int) -> None:
        """It means nothing."""

    def on_settings_ack(self) -> None:
        """It has no effect here."""

    def on_window(self, stream: int, increment: int) -> None:
        """We have nothing more to send."""

    def on_unknown(self) -> None:
        """It means nothing."""
