"""What waits to be sent on a connection: frames in order, bodies as windows allow, streams in turns. Pure.

A body's bytes become frames at once if possible. Otherwise they wait in their stream, which is told when too
many wait; streams with bytes to send take turns, with one frame each.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import Final, Protocol

from nodeagent.proxy.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE,
    HEAD,
    HEADERS,
    LARGEST_WINDOW,
    header_frames,
)

HIGH: Final = 64 * 1024
"""Bytes that may wait in a stream before who sends them is told to wait."""
LOW: Final = 16 * 1024
MOST_WAITING: Final = 1024 * 1024
"""Bytes that may wait in all streams of a connection before that is so for each of them at once."""
AT_ONCE: Final = 128 * 1024
"""Bytes of frames that are made before they are written."""
LARGEST_FRAME: Final = 64 * 1024
"""Bytes of a DATA frame, should the peer take so many: others have their turn behind each."""
WORTH_IT: Final = 1024
"""Bytes of a DATA frame that a small window has cut off, from which on it is no crumb."""
_HEAD_SIZE: Final = HEAD.size
_WHOLE_HEAD: Final = END_HEADERS | END_STREAM
_pack = HEAD.pack


class Trailers(Protocol):
    """Makes header blocks of trailers: in the order in which they are sent, for the peer keeps a table."""

    def trailers(self, lines: bytes) -> bytes:
        """Return the block."""
        ...


class Backlog:
    """What waits in a stream. `full`: the sender was told to wait; `ready`: the writer has it in its list."""

    __slots__ = ("at", "ending", "full", "pieces", "ready", "trailers")

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self.at = 0
        """How much of the first piece is sent."""
        self.ready = False
        self.full = False
        self.ending = False
        """Nothing is added any more."""
        self.trailers = b""


class Outflow:
    """What a stream sends. Subclasses are told what happens to it.

    They also set the fields, those of all levels together: a constructor for each level would cost time for
    every stream.
    """

    __slots__ = ("backlog", "identifier", "queued", "sent_all", "window")

    identifier: int
    window: int
    """Bytes that the peer lets this stream send; below 0 when it has changed its mind."""
    backlog: Backlog | None
    """What had to wait; None: nothing ever had."""
    queued: int
    """Bytes that wait."""
    sent_all: bool
    """The frame with END_STREAM has been made."""

    @abstractmethod
    def filled(self) -> None:
        """So much waits that who sends has to wait."""

    @abstractmethod
    def taken(self) -> None:
        """The sender may continue."""

    @abstractmethod
    def ended(self) -> None:
        """The last that waited has become a frame."""


class Writer:
    """Makes the frames of one connection. `out` is what is to be written, in order."""

    __slots__ = (
        "_waiting",
        "blocked",
        "bodies",
        "initial",
        "largest",
        "out",
        "ready",
        "size",
        "trailers",
        "window",
    )

    def __init__(self, trailers: Trailers) -> None:
        self.trailers = trailers
        self.out: list[bytes] = []
        self.size = 0
        """Of `out`, in bytes."""
        self.bodies = 0
        """DATA frames that were made, without small rests of a larger piece; the caller resets it."""
        self.blocked = False
        """The transport takes no more for now."""
        self.window = DEFAULT_WINDOW
        """Bytes that the peer lets the connection send."""
        self.initial = DEFAULT_WINDOW
        """The window that its streams begin with."""
        self.largest = FRAME_SIZE
        self.ready: deque[Outflow] = deque()
        """Streams that have something to send and a window for it, next first."""
        self._waiting = 0

    @property
    def held(self) -> int:
        """Bytes that wait."""
        return self._waiting + self.size

    @property
    def going(self) -> bool:
        """Whether there is something that could be sent now."""
        return bool(self.ready) and self.window > 0 and not self.blocked

    def add(self, data: bytes) -> None:
        """Send a frame that needs no window."""
        self.out.append(data)
        self.size += len(data)

    def headers(self, stream: Outflow, block: bytes, end: bool) -> None:
        """Send a header block. It must come before the stream's data."""
        size = len(block)
        if size > self.largest:
            self.add(header_frames(stream.identifier, block, end, self.largest))
        else:
            flags = _WHOLE_HEAD if end else END_HEADERS
            self.out += (_pack(size >> 8, size & 0xFF, HEADERS, flags, stream.identifier), block)
            self.size += size + _HEAD_SIZE
        if end:
            stream.sent_all = True

    def message(self, stream: Outflow, block: bytes, data: bytes, end: bool) -> None:
        """Send a header block and the beginning of a body, in one go where nothing stands in the way."""
        length, size, largest = len(block), len(data), self.largest
        if (
            length > largest
            or size > largest
            or size > stream.window
            or size > self.window
            or not size
            or self.ready
            or self.blocked
            or self.size > AT_ONCE
        ):
            self.headers(stream, block, end and not size)
            if size:
                self.data(stream, data, end)
            return
        identifier = stream.identifier
        self.window -= size
        stream.window -= size
        self.out += (
            _pack(length >> 8, length & 0xFF, HEADERS, END_HEADERS, identifier),
            block,
            _pack(size >> 8, size & 0xFF, DATA, END_STREAM if end else 0, identifier),
            data,
        )
        self.size += length + size + 2 * _HEAD_SIZE
        self.bodies += 1
        if end:
            stream.sent_all = True

    def data(self, stream: Outflow, data: bytes, end: bool) -> None:
        """Send more of a body, now or as soon as it may be."""
        size = len(data)
        if (
            self.ready
            or stream.queued
            or size > stream.window
            or size > self.window
            or self.blocked
            or self.size > AT_ONCE
        ) and size:
            self._keep(stream, data, end)
            return
        if not size:
            if not end:
                return
            if stream.queued:
                assert stream.backlog is not None
                stream.backlog.ending = True
                return
        self.window -= size
        stream.window -= size
        out, largest = self.out, self.largest
        at = 0
        while size - at > largest:
            out.append(_pack(largest >> 8, largest & 0xFF, DATA, 0, stream.identifier))
            out.append(data[at : at + largest])
            at += largest
        left = size - at
        out.append(_pack(left >> 8, left & 0xFF, DATA, END_STREAM if end else 0, stream.identifier))
        out.append(data[at:] if at else data)
        self.size += size + _HEAD_SIZE
        self.bodies += 1
        if end:
            stream.sent_all = True

    def finish(self, stream: Outflow, lines: bytes) -> None:
        """Send trailers after what waits; they end the stream."""
        if stream.queued:
            assert stream.backlog is not None
            stream.backlog.ending = True
            stream.backlog.trailers = lines
        else:
            self._send_trailers(stream, lines)

    def drop(self, stream: Outflow) -> None:
        """Forget what waits in a stream: it has been broken off."""
        stream.sent_all = True
        backlog = stream.backlog
        if backlog is None:
            return
        self._waiting -= stream.queued
        stream.queued = 0
        stream.backlog = None
        if backlog.ready:
            self.ready.remove(stream)

    def opened(self, size: int) -> bool:
        """Let the connection send more; False: a window of that size there cannot be."""
        self.window += size
        return self.window <= LARGEST_WINDOW

    def opened_stream(self, stream: Outflow, size: int) -> bool:
        """Let a stream send more; False: a window of that size there cannot be."""
        stream.window += size
        if stream.queued:
            self._now_ready(stream)
        return stream.window <= LARGEST_WINDOW

    def fill(self) -> None:
        """Make frames of what waits, as much as may be sent now and is written at once."""
        ready = self.ready
        while ready and self.window > 0 and self.size <= AT_ONCE and not self.blocked:
            stream = ready.popleft()
            backlog = stream.backlog
            assert backlog is not None
            backlog.ready = False
            if stream.queued and stream.window > 0:
                self._send_one(stream, backlog)

    def take(self) -> list[bytes]:
        """Return what is to be written, once, in pieces."""
        out, self.out = self.out, []
        self.size = 0
        return out

    def _keep(self, stream: Outflow, data: bytes, end: bool) -> None:
        backlog = stream.backlog
        if backlog is None:
            backlog = stream.backlog = Backlog()
        size = len(data)
        backlog.pieces.append(data)
        stream.queued += size
        backlog.ending = end
        self._waiting += size
        self._now_ready(stream)
        if not (backlog.full or end) and (stream.queued > HIGH or self._waiting > MOST_WAITING):
            backlog.full = True
            stream.filled()

    def _now_ready(self, stream: Outflow) -> None:
        """Let a stream with bytes have its turn, if it has a window."""
        backlog = stream.backlog
        if backlog is not None and stream.window > 0 and not backlog.ready:
            backlog.ready = True
            self.ready.append(stream)

    def _send_one(self, stream: Outflow, backlog: Backlog) -> None:
        """Make the next frame of a stream that has bytes and a window."""
        piece, at = backlog.pieces[0], backlog.at
        most = min(stream.window, self.window, self.largest)
        if len(piece) - at <= most:
            backlog.pieces.popleft()
            data = piece[at:] if at else piece
            backlog.at = 0
        else:
            data = piece[at : at + most]
            backlog.at = at + most
        size = len(data)
        stream.queued -= size
        stream.window -= size
        self._waiting -= size
        self.window -= size
        last = backlog.ending and not stream.queued
        flags = END_STREAM if last and not backlog.trailers else 0
        self.out.append(_pack(size >> 8, size & 0xFF, DATA, flags, stream.identifier))
        self.out.append(data)
        self.size += size + _HEAD_SIZE
        if size >= WORTH_IT or not backlog.at:
            self.bodies += 1
        if stream.queued:
            self._now_ready(stream)
        if last:
            if backlog.trailers:
                self._send_trailers(stream, backlog.trailers)
            stream.sent_all = True
            backlog.full = False
            stream.ended()
        elif backlog.full and stream.queued <= LOW:
            backlog.full = False
            stream.taken()

    def _send_trailers(self, stream: Outflow, lines: bytes) -> None:
        self.add(header_frames(stream.identifier, self.trailers.trailers(lines), True, self.largest))
        stream.sent_all = True
