"""A connection over HTTP/2 for one call of gRPC at a time: a message there, a message back.

It is made of the frames and header blocks of the data plane. A call sends what the peer's windows allow. Its
answer has less than `MOST_ANSWER` bytes, the window that the peer is given and that is never made larger.
Between calls the connection answers PING, so that it can be used again. Whoever gives a call up, for example
because its time is over, has to abort the connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from ssl import SSLContext
from typing import Final, NamedTuple, cast

from middleware.grpc import GrpcStatus
from nodeagent.proxy.http2.flood import CONTROLS_PER_SECOND, MOST_CONTROLS, Patience
from nodeagent.proxy.http2.frames import (
    CANCEL,
    DATA,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SETTINGS_ACK,
    ConnectionFault,
    FrameReader,
    frame,
    goaway_frame,
    header_frames,
    ping_frame,
    reset_frame,
    settings_frame,
    window_frame,
)
from nodeagent.proxy.http2.headers import CompressionFault, HeaderDecoder, StreamFault
from nodeagent.proxy.http2.literals import compact, literal, never_indexed
from nodeagent.proxy.message import split_fields
from nodeagent.settings import Limits

MOST_ANSWER: Final = DEFAULT_WINDOW
"""Bytes of an answer's body that are too many."""
_LIMITS: Final = Limits(head_bytes=64 * 1024)
_FRAMES: Final = 1000
"""Frames that are read before it is looked at again whether the connection has ended."""
_LAST_STREAM: Final = 2**30
"""A connection is not used any more when its streams are numbered so high."""
_OTHERS: Final = {
    b"HTTP/1": "it speaks HTTP/1 here: is this its port for gRPC (4317)?",
    b"\x15\x03": "it speaks TLS here: otlp+grpcs is for that",
}
"""How the answers of those begin who speak something else."""
_OF_RESET: Final = {
    REFUSED_STREAM: GrpcStatus.UNAVAILABLE,
    CANCEL: GrpcStatus.CANCELLED,
    ENHANCE_YOUR_CALM: GrpcStatus.RESOURCE_EXHAUSTED,
}
"""What it means that a call was broken off; INTERNAL for all other codes
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)."""

Fields = Sequence[tuple[bytes, bytes]]


class Answer(NamedTuple):
    """A whole response; `fields` are those of its head and its trailers."""

    status: int
    """Of HTTP."""
    fields: dict[str, str]
    body: bytes


class CallBroken(Exception):
    """The peer broke this call off, or its answer cannot be taken. The connection may go on."""

    def __init__(self, status: GrpcStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class ConnectionLost(OSError):
    """The connection has ended, and with it the call if one was under way."""


async def connect(host: str, port: int, tls: SSLContext | None) -> UnaryConnection:
    """Return a new connection.

    Raises:
        OSError: there is none, its certificate is not valid, or the peer does not offer HTTP/2.
    """
    scheme = b"https" if tls is not None else b"http"
    shown = b"[%b]" % host.encode() if ":" in host else host.encode("idna")
    connection = UnaryConnection(scheme, b"%b:%d" % (shown, port))
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: connection, host, port, ssl=tls)
    if tls is not None:
        session = transport.get_extra_info("ssl_object")
        if session is None or session.selected_alpn_protocol() != "h2":
            transport.abort()
            raise ConnectionLost("it does not offer HTTP/2 (ALPN)")
    return connection


class UnaryConnection(asyncio.Protocol):
    """Made by `connect`. Implements `nodeagent.proxy.http2.frames.FrameSink`."""

    def __init__(self, scheme: bytes, authority: bytes) -> None:
        self.calls = 0
        """Calls that were begun on it."""
        self._scheme = scheme
        self._authority = authority
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader(self, _LIMITS.head_bytes)
        self._decoder = HeaderDecoder(_LIMITS)
        self._patience = Patience(MOST_CONTROLS, CONTROLS_PER_SECOND, time.monotonic)
        self._leaving = False
        """It takes no further call."""
        self._lost = ""
        """Why it has ended."""
        self._heard = False
        self._stream = -1
        """Of the last call."""
        self._answer: asyncio.Future[Answer] | None = None
        """Of the call that is under way."""
        self._status = 0
        self._fields: dict[str, str] = {}
        self._body = b""
        self._unsent = memoryview(b"")
        self._window = DEFAULT_WINDOW
        self._first_window = DEFAULT_WINDOW
        self._stream_window = 0

    @property
    def usable(self) -> bool:
        """Whether a call can be made with it."""
        return not self._lost and not self._leaving and self._stream < _LAST_STREAM

    async def call(self, path: bytes, fields: Fields, body: bytes, secrets: Fields = ()) -> Answer:
        """Send a message, which must not be empty, and return the answer. No other call may be under way.

        `secrets` are further fields, which nobody on the way keeps.

        Raises:
            CallBroken: there is no answer, or one that cannot be taken.
            ConnectionLost: the connection has ended.
        """
        if self._lost or self._transport is None:
            raise ConnectionLost(self._lost or "it was not connected")
        self.calls += 1
        self._stream += 2
        self._status, self._fields, self._body = 0, {}, b""
        self._unsent, self._stream_window = memoryview(body), self._first_window
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answer = answer
        block = compact(b":method", b"POST") + compact(b":scheme", self._scheme) + literal(b":path", path)
        block += literal(b":authority", self._authority)
        block += b"".join(literal(name, value) for name, value in fields)
        block += b"".join(never_indexed(name, value) for name, value in secrets)
        self._transport.write(header_frames(self._stream, block, False, FRAME_SIZE))
        self._send_body()
        try:
            return await answer
        finally:
            self._answer = None
            self._unsent = memoryview(b"")

    def abort(self) -> None:
        """End the connection at once, and whatever is under way."""
        self._leaving = True
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with the preface and our settings."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(PREFACE + settings_frame({ENABLE_PUSH: 0}))

    def data_received(self, data: bytes) -> None:
        """Read frames."""
        if self._lost:
            return
        if not self._heard:
            self._heard = True
            for beginning, reason in _OTHERS.items():
                if data.startswith(beginning):
                    self._end(reason)
                    return
        try:
            while self._reader.feed(data, _FRAMES):
                data = b""
        except (ConnectionFault, StreamFault, CompressionFault) as fault:
            self._write(goaway_frame(0, PROTOCOL_ERROR))
            self._end(f"it does not speak HTTP/2 as it should: {fault}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio calls this once, last."""
        self._end(str(exc) if exc is not None else "it closed the connection")

    # What the frames mean

    def on_headers(self, stream: int, block: bytes, end: bool) -> None:
        """Take the answer's head, or its trailers. Late ones are read for the sake of the table of fields."""
        if stream > self._stream:
            raise ConnectionFault(PROTOCOL_ERROR, "an answer that nobody asked for")
        if stream != self._stream:
            self._spend()
            self._decoder.skip(block)
            return
        if self._status:
            lines = self._decoder.trailers(block)
        else:
            head = self._decoder.response(block, end)
            if head.status < 200:
                self._spend()
                return
            self._status, lines = head.status, head.fields
        self._fields |= split_fields(lines)
        if end:
            self._finish()

    def on_data(self, stream: int, data: bytes, size: int, end: bool) -> None:
        """Take more of the body, unless it is too much."""
        if size:
            self._write(window_frame(0, size))
        if stream != self._stream or self._answer is None or self._answer.done():
            self._spend()
            return
        if not size:
            self._spend()
        if not self._status:
            raise ConnectionFault(PROTOCOL_ERROR, "a body before its head")
        self._body += data
        if len(self._body) >= MOST_ANSWER:
            self._break(GrpcStatus.RESOURCE_EXHAUSTED, f"an answer of more than {MOST_ANSWER} bytes")
        elif end:
            self._finish()

    def on_settings(self, values: list[tuple[int, int]]) -> None:
        """Follow the size of windows, and acknowledge; what else we send is below any limit."""
        self._spend()
        for name, value in values:
            if name == INITIAL_WINDOW_SIZE:
                self._stream_window += value - self._first_window
                self._first_window = value
        self._write(SETTINGS_ACK)
        self._send_body()

    def on_window(self, stream: int, increment: int) -> None:
        """Send more, if there is more."""
        self._spend()
        if not stream:
            self._window += increment
        elif stream == self._stream:
            self._stream_window += increment
        if max(self._window, self._stream_window) > LARGEST_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "a window of more than 2^31 - 1 bytes")
        self._send_body()

    def on_ping(self, payload: bytes, ack: bool) -> None:
        """Answer."""
        self._spend()
        if not ack:
            self._write(ping_frame(payload, ack=True))

    def on_reset(self, stream: int, code: int) -> None:
        """The call was broken off, unless its answer is already complete."""
        self._spend()
        if stream == self._stream:
            status = _OF_RESET.get(code, GrpcStatus.INTERNAL)
            self._fail(CallBroken(status, f"it broke the call off with code {code}"))

    def on_goaway(self, last: int, code: int, debug: bytes) -> None:
        """The peer leaves; it may still answer what it has accepted."""
        self._leaving = True
        if self._answer is None:
            self._end("it said GOAWAY")
        elif last < self._stream:
            said = debug.decode("utf-8", "replace")
            self._end(f"it took no call and said GOAWAY with code {code}" + (f": {said}" if said else ""))

    def on_stream_fault(self, stream: int, code: int, detail: str) -> None:
        """A frame of the answer is wrong."""
        raise ConnectionFault(code, detail)

    def on_priority(self, stream: int) -> None:
        """It means nothing."""
        self._spend()

    def on_settings_ack(self) -> None:
        """It has no effect here."""
        self._spend()

    def on_unknown(self) -> None:
        """It means nothing."""
        self._spend()

    # How it goes on

    def _spend(self) -> None:
        if not self._patience.spend():
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many frames that mean nothing")

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _send_body(self) -> None:
        while self._unsent and (room := min(self._window, self._stream_window, FRAME_SIZE)) > 0:
            piece, self._unsent = self._unsent[:room], self._unsent[room:]
            self._window -= len(piece)
            self._stream_window -= len(piece)
            self._patience.left += 2  # a peer may make both windows larger for each frame
            self._write(frame(DATA, 0 if self._unsent else END_STREAM, self._stream, bytes(piece)))

    def _finish(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(self._status, self._fields, self._body))
            if self._unsent:
                self._unsent = memoryview(b"")
                self._write(reset_frame(self._stream, CANCEL))
        self._patience.left += 20

    def _break(self, status: GrpcStatus, detail: str) -> None:
        self._write(reset_frame(self._stream, CANCEL))
        self._fail(CallBroken(status, detail))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _end(self, reason: str) -> None:
        self._lost = self._lost or reason
        self._leaving = True
        self._reader.stopped = True
        self._fail(ConnectionLost(self._lost))
        if self._transport is not None:
            self._transport.close()
