"""What both sides of HTTP/2 have in common: frames in, frames out, settings, windows, patience, the end.

Implements `nodeagent.proxy.http2.frames.FrameSink`; what a frame means to a stream is for the two sides to
say. All frames of one turn of the loop leave in one write.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any, Final

from nodeagent.proxy.connection import OWN_FULL, TURN, Connection
from nodeagent.proxy.http2.flood import (
    CONTROLS_PER_SECOND,
    MOST_CONTROLS,
    MOST_RESETS,
    RESETS_PER_SECOND,
    Patience,
)
from nodeagent.proxy.http2.flow import CONNECTION_WINDOW, STREAM_WINDOW, ReceiveWindow
from nodeagent.proxy.http2.frames import (
    COMPRESSION_ERROR,
    DEFAULT_WINDOW,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    PROTOCOL_ERROR,
    SETTINGS_ACK,
    STREAM_CLOSED,
    ConnectionFault,
    FrameReader,
    goaway_frame,
    ping_frame,
    reset_frame,
    window_frame,
)
from nodeagent.proxy.http2.headers import CompressionFault, HeaderDecoder, HeaderEncoder, StreamFault
from nodeagent.proxy.http2.stream import Stream, Waiting
from nodeagent.proxy.http2.writing import LARGEST_FRAME, Writer
from nodeagent.proxy.runtime import Runtime
from nodeagent.settings import Limits

FRAMES_PER_TURN: Final = 128
"""Frames that are read at once before others have their turn."""
TABLE_SIZE: Final = 4096
"""Bytes of the header table that we let a peer keep here, and keep at most for it."""
COPIED: Final = 16 * 1024
"""Bytes that are put together to be written; of more the pieces are gathered by the kernel."""
LINGER_TIME: Final = 2.0
"""Seconds that a closing connection still reads, so that its last frames are not lost to a reset."""
REMEMBERED: Final = 512
"""Streams that we do not serve, or have broken off, and whose late frames are expected."""


def table_lost(fault: CompressionFault) -> ConnectionFault:
    """Return the end of a connection whose header blocks cannot be followed any more."""
    code = ENHANCE_YOUR_CALM if fault.excessive else COMPRESSION_ERROR
    return ConnectionFault(code, fault.detail)


class Multiplexed(Connection):
    """An HTTP/2 connection."""

    __slots__ = (
        "_broken_off",
        "_closing",
        "_controls",
        "_progress",
        "_reader",
        "_resets",
        "_said_end",
        "_turn",
        "_unsent",
        "_window",
        "decoder",
        "early",
        "encoder",
        "flushing",
        "peer_left",
        "writer",
    )

    def __init__(self, runtime: Runtime, header_limits: Limits) -> None:
        super().__init__(runtime)
        self.decoder = HeaderDecoder(header_limits, TABLE_SIZE)
        self.encoder = HeaderEncoder()
        self.writer = Writer(self.encoder)
        self.early: list[Any] = []
        """Streams that had a head come in this turn whose body may be in the same bytes."""
        self.peer_left = False
        """It has ended its side."""
        self._reader = FrameReader(self, header_limits.head_bytes)
        self._window = ReceiveWindow(CONNECTION_WINDOW)
        self._controls = Patience(MOST_CONTROLS, CONTROLS_PER_SECOND, runtime.now)
        self._resets = Patience(MOST_RESETS, RESETS_PER_SECOND, runtime.now)
        self._broken_off: dict[int, None] = {}
        self.flushing = False
        """Whether `flush` is to be called."""
        self._turn = False
        """Whether `_go_on` is to be called."""
        self._closing = False
        self._said_end = False
        """Nothing may be written any more."""
        self._unsent = 0
        """Bytes that were still to be sent at the last look at a slow reader, and since when it has them."""
        self._progress = 0.0

    @property
    def held(self) -> int:
        """Bytes of frames that are not whole or wait to be sent, and of what is known of header blocks."""
        remembered = self.decoder.held + self.encoder.held
        return super().held + self._reader.held + self.writer.held + remembered

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with our settings."""
        super().connection_made(transport)
        self.writer.add(self._greeting() + window_frame(0, CONNECTION_WINDOW - DEFAULT_WINDOW))
        self.flush_soon()

    def read(self, data: bytes) -> None:
        """Read frames: of the peer's bytes, and of what waits for its turn."""
        if self._closing:
            return
        try:
            more = self._reader.feed(data, FRAMES_PER_TURN)
        except ConnectionFault as fault:
            self.fail(fault.code, fault.detail)
            return
        if self.early:
            self.start_early()
        if more and not self._turn:
            self._turn = True
            self.hold(TURN)
            self.runtime.loop.call_soon(self._go_on)

    def pause_writing(self) -> None:
        """The peer does not read: no more is read from it, and bodies wait."""
        self.write_paused = self.writer.blocked = True
        self._unsent = self.transport.get_write_buffer_size()
        self._progress = now = self.runtime.now()
        self.due(now + self.runtime.limits.stall_time)

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self.write_paused = self.writer.blocked = False
        self.let_go(OWN_FULL)
        self.flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio calls this once, last."""
        super().connection_lost(exc)
        self._closing = True
        self._reader.stopped = True

    def _go_on(self) -> None:
        """It is this connection's turn again."""
        self._turn = False
        self.read(b"")
        if not self._turn:
            self.let_go(TURN)

    # Sending

    def flush_soon(self) -> None:
        """Have what was added written at the end of this turn."""
        if not self.flushing:
            self.flushing = True
            self.runtime.flush.add(self)

    def flush(self) -> None:
        """Write the frames that are ready, and of those that wait as many as the peer takes."""
        writer = self.writer
        while True:
            if writer.ready:
                writer.fill()
            if writer.bodies:
                self._controls.left += 2 * writer.bodies
                writer.bodies = 0
            size = writer.size
            if size:
                out = writer.take()
                transport = self.transport
                if self._said_end or transport.is_closing():
                    break
                if size > COPIED:
                    transport.writelines(out)
                else:
                    transport.write(b"".join(out))
            if not writer.ready or not writer.going:
                break
        self.flushing = False
        if self.peer_left and not self._closing:
            self.left_alone()

    def send(self, frame: bytes) -> None:
        """Send a frame that needs no window."""
        self.writer.add(frame)
        if not self.flushing:
            self.flushing = True
            self.runtime.flush.add(self)

    def reset_stream(self, stream: int, code: int) -> None:
        """Break a stream off; what still comes for it is passed over for a while."""
        self.pass_over(stream)
        self.send(reset_frame(stream, code))

    def pass_over(self, stream: int) -> None:
        """Expect late frames of a stream for a while."""
        broken = self._broken_off
        broken[stream] = None
        if len(broken) > REMEMBERED:
            del broken[next(iter(broken))]

    def due(self, deadline: float) -> None:
        """Have `expire` called at this time at the latest."""
        if deadline < self.deadline:
            self.deadline = deadline

    # Bodies that come

    def take_body(self, stream: Stream[Any], data: bytes, size: int, end: bool) -> bytes | None:
        """Count DATA in; return what may be passed on now, or None where it has to wait.

        Raises:
            StreamFault: it is not what the stream's head has said.
            ConnectionFault: the peer was not allowed to send it.
        """
        inflow = stream.inflow
        # Mostly there is none, and nothing to credit, because no more will come.
        if inflow is None and not (end and size <= STREAM_WINDOW):
            inflow = stream.inflow = ReceiveWindow(STREAM_WINDOW, self.runtime.window_budget)
        if inflow is not None:
            passes = not (stream.held or end)
            increment = inflow.received_and_passed_on(size) if passes else inflow.received(size)
            if increment:
                if increment < 0:
                    raise ConnectionFault(FLOW_CONTROL_ERROR, "more DATA than the stream's window")
                self.send(window_frame(stream.identifier, increment))
            if passes and data:
                self._controls.left += 1
        left = stream.body_left
        if left >= 0:
            left -= len(data)
            if left < 0 or (end and left):
                raise StreamFault("content_length", "a body that is not as long as its Content-Length")
            stream.body_left = left
        if end:
            stream.received_all = True
        if not stream.held:
            return data
        waiting = stream.waiting
        if waiting is None:
            waiting = stream.waiting = Waiting()
        waiting.pieces.append(data)
        waiting.size += size
        waiting.end = end
        return None

    def credit(self, stream: Stream[Any], inflow: ReceiveWindow, size: int) -> None:
        """Open a stream's window: its bytes have been passed on."""
        increment = inflow.passed_on(size)
        if increment:
            self.send(window_frame(stream.identifier, increment))

    def window_moved(self, increment: int) -> None:
        """Open the connection's window by so much.

        Raises:
            ConnectionFault: it is below 0: the peer was not allowed to send what it has sent.
        """
        if increment < 0:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        self.send(window_frame(0, increment))

    # Frames that concern the connection

    def on_priority(self, stream: int) -> None:
        """Priorities mean nothing any more (RFC 9113 section 5.3.2)."""
        self.spend_patience()

    def on_settings(self, values: list[tuple[int, int]]) -> None:
        """Follow the peer's settings."""
        self.spend_patience(8)
        writer = self.writer
        initial = writer.initial
        for name, value in values:
            if name == INITIAL_WINDOW_SIZE:
                initial = value
            elif name == MAX_FRAME_SIZE:
                writer.largest = min(value, LARGEST_FRAME)
            elif name == HEADER_TABLE_SIZE:
                self.encoder.resize(min(value, TABLE_SIZE))
            else:
                self.setting(name, value)
        if initial != writer.initial:  # once, however often the peer has changed its mind on the way
            change, writer.initial = initial - writer.initial, initial
            for stream in self.every_stream():
                if not writer.opened_stream(stream, change):
                    raise ConnectionFault(FLOW_CONTROL_ERROR, "a window grew too large")
        self.send(SETTINGS_ACK)
        self.settings_followed()

    def on_settings_ack(self) -> None:
        """Take note that the peer has our settings."""
        self.spend_patience()

    def on_ping(self, payload: bytes, ack: bool) -> None:
        """Answer."""
        if ack:
            self.pinged(payload)
        else:
            self.spend_patience()
            self.send(ping_frame(payload, ack=True))

    def on_window(self, stream: int, increment: int) -> None:
        """Send on."""
        self.spend_patience()
        writer = self.writer
        if not stream:
            if not writer.opened(increment):
                raise ConnectionFault(FLOW_CONTROL_ERROR, "the connection's window grew too large")
        else:
            mine = self.stream(stream)
            if mine is None:
                if self.is_idle(stream):
                    raise ConnectionFault(PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
                return
            if not writer.opened_stream(mine, increment):
                self.on_stream_fault(stream, FLOW_CONTROL_ERROR, "the stream's window grew too large")
                return
        if writer.going:
            self.flush_soon()

    def on_unknown(self) -> None:
        """Frames of other types are passed over (RFC 9113 section 5.5)."""
        self.spend_patience()

    def spend_patience(self, cost: float = 1.0) -> None:
        """Let the peer do something useless that costs us, within bounds.

        Raises:
            ConnectionFault: it has done so too often.
        """
        if not self._controls.spend(cost):
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many frames without any effect")

    def spend_reset(self) -> None:
        """Let the peer break off streams early, or by errors, within bounds.

        Raises:
            ConnectionFault: it has done so too often.
        """
        if not self._resets.spend():
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many streams broken off")

    def skip(self, block: bytes) -> None:
        """Read a header block that concerns nobody: the table must follow it.

        Raises:
            ConnectionFault: it cannot be read.
        """
        self.spend_patience()
        try:
            self.decoder.skip(block)
        except CompressionFault as lost:
            raise table_lost(lost) from None

    def late(self, stream: int, what: str) -> None:
        """A frame has come for a stream that is over.

        Raises:
            ConnectionFault: and that the peer knew.
        """
        if self.is_idle(stream):
            raise ConnectionFault(PROTOCOL_ERROR, f"{what} on an idle stream")
        self.spend_patience()
        if stream not in self._broken_off:
            raise ConnectionFault(STREAM_CLOSED, f"{what} on a closed stream")

    # The end

    def fail(self, code: int, detail: str) -> None:
        """The peer has broken the protocol: say so, end what is under way, close."""
        self.send(goaway_frame(self.last_stream(), code, detail.encode("ascii", "replace")))
        self.streams_lost(code, detail)
        self.close_gently()

    def close_gently(self) -> None:
        """Close for writing and continue to read for a moment: unread bytes at the close would reset the
        connection.
        """
        if self._closing:
            return
        self._closing = True
        self._reader.stopped = True
        self.flush()
        transport, now = self.transport, self.runtime.now()
        self._unsent, self._progress = transport.get_write_buffer_size(), now
        self.deadline = now + LINGER_TIME
        if self.peer_left or transport.is_closing() or not transport.can_write_eof():
            transport.close()
            return
        self.let_go(~0)
        self._said_end = True
        transport.write_eof()

    def expire_writing(self, now: float) -> bool:
        """End a connection whose peer does not read for too long; return whether the connection stays."""
        limits = self.runtime.limits
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent, self._progress = unsent, now
        if unsent and now - self._progress < limits.stall_time:
            self.due(now + (LINGER_TIME if self._closing else limits.stall_time))
            return True
        if self._closing or unsent:
            self.reset()
            return False
        return True

    # What the two sides say

    @abstractmethod
    def _greeting(self) -> bytes:
        """Return what is said first."""

    @abstractmethod
    def every_stream(self) -> list[Stream[Any]]:
        """All streams that are open."""

    @abstractmethod
    def stream(self, stream: int) -> Stream[Any] | None:
        """An open stream."""

    @abstractmethod
    def is_idle(self, stream: int) -> bool:
        """Whether there has never been such a stream."""

    @abstractmethod
    def last_stream(self) -> int:
        """The last stream of the peer that we have dealt with."""

    def setting(self, name: int, value: int) -> None:
        """Follow a setting of the peer that concerns this side only."""

    def settings_followed(self) -> None:
        """The peer's settings are in force; it will be told before it gets anything that they allow."""

    def pinged(self, payload: bytes) -> None:
        """The peer has answered a PING."""

    @abstractmethod
    def start_early(self) -> None:
        """Pass on the heads in `early` whose bodies have not come: everything that has come is read."""

    def left_alone(self) -> None:
        """What could be written is, for a peer that says nothing any more."""

    @abstractmethod
    def streams_lost(self, code: int, detail: str) -> None:
        """End everything that is under way: the connection ends."""

    @abstractmethod
    def on_data(self, stream: int, data: bytes, size: int, end: bool) -> None:
        """Take a DATA frame."""

    @abstractmethod
    def on_headers(self, stream: int, block: bytes, end: bool) -> None:
        """Take a header block."""

    @abstractmethod
    def on_reset(self, stream: int, code: int) -> None:
        """Take a RST_STREAM frame."""

    @abstractmethod
    def on_goaway(self, last: int, code: int, debug: bytes) -> None:
        """Take a GOAWAY frame."""

    @abstractmethod
    def on_stream_fault(self, stream: int, code: int, detail: str) -> None:
        """A frame was wrong, but harms its stream only."""
