"""What waits to be sent on a connection: frames in order, bodies as windows allow, streams in turns. Pure.

A body's bytes become frames at once where nothing stands in the way. Otherwise they wait in their stream,
which is told when that is too much, and streams with something to send take turns, a frame each.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from nodeagent.proxy.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_STREAM,
    FRAME_SIZE,
    HEAD,
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
_pack = HEAD.pack


class Trailers(Protocol):
    """Makes header blocks of trailers: in the order in which they are sent, for the peer keeps a table."""

    def trailers(self, lines: bytes) -> bytes:
        """Return the block."""
        ...


class Outflow:
    """What a stream sends. Subclasses hear what becomes of it."""

    __slots__ = (
        "_at",
        "_ready",
        "_trailers",
        "ending",
        "full",
        "identifier",
        "queue",
        "queued",
        "sent_all",
        "window",
    )

    def __init__(self, identifier: int, window: int) -> None:
        self.identifier = identifier
        self.window = window
        """Bytes that the peer lets this stream send; below 0 when it has changed its mind."""
        self.queue: deque[bytes] | None = None
        self.queued = 0
        self._at = 0
        """How much of the first piece is sent."""
        self._ready = False
        self._trailers = b""
        self.ending = False
        """Nothing is added any more."""
        self.sent_all = False
        """The frame with END_STREAM has been made."""
        self.full = False

    def filled(self) -> None:
        """So much waits that who sends has to wait."""
        raise NotImplementedError

    def taken(self) -> None:
        """Who sends may go on."""
        raise NotImplementedError

    def ended(self) -> None:
        """The last that waited has become a frame."""
        raise NotImplementedError


class Writer:
    """Makes the frames of one connection. `out` is what is to be written, in order."""

    __slots__ = (
        "_ready",
        "_waiting",
        "blocked",
        "bodies",
        "initial",
        "largest",
        "out",
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
        """DATA frames that were made, without crumbs of a larger piece; whoever asked sets it back."""
        self.blocked = False
        """The transport takes no more for now."""
        self.window = DEFAULT_WINDOW
        """Bytes that the peer lets the connection send."""
        self.initial = DEFAULT_WINDOW
        """The window that its streams begin with."""
        self.largest = FRAME_SIZE
        self._ready: deque[Outflow] = deque()
        """Streams that have something to send and a window for it, next first."""
        self._waiting = 0

    @property
    def held(self) -> int:
        """Bytes that wait."""
        return self._waiting + self.size

    @property
    def going(self) -> bool:
        """Whether there is something that could be sent now."""
        return bool(self._ready) and self.window > 0 and not self.blocked

    def add(self, data: bytes) -> None:
        """Send a frame that needs no window."""
        self.out.append(data)
        self.size += len(data)

    def headers(self, stream: Outflow, block: bytes, end: bool) -> None:
        """Send a header block. It must come before the stream's data."""
        self.add(header_frames(stream.identifier, block, end, self.largest))
        if end:
            stream.ending = stream.sent_all = True

    def data(self, stream: Outflow, data: bytes, end: bool) -> None:
        """Send more of a body, now or as soon as it may be."""
        size = len(data)
        if (
            self._ready
            or stream.queued
            or size > stream.window
            or size > self.window
            or self.blocked
            or self.size > AT_ONCE
        ) and size:
            self._keep(stream, data, end)
            return
        if end and stream.queued:
            stream.ending = True
            return
        if not (size or end):
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
        self.size += size + 9
        self.bodies += 1
        if end:
            stream.ending = stream.sent_all = True

    def finish(self, stream: Outflow, lines: bytes) -> None:
        """Send trailers behind what waits; they are the end."""
        stream.ending = True
        if stream.queued:
            stream._trailers = lines
        else:
            self._send_trailers(stream, lines)

    def drop(self, stream: Outflow) -> None:
        """Forget what waits in a stream: it has been broken off."""
        self._waiting -= stream.queued
        stream.queue = None
        stream.queued = 0
        stream.ending = stream.sent_all = True
        if stream._ready:
            stream._ready = False
            self._ready.remove(stream)

    def opened(self, size: int) -> bool:
        """Let the connection send more; False: a window of that size there cannot be."""
        self.window += size
        return self.window <= LARGEST_WINDOW

    def opened_stream(self, stream: Outflow, size: int) -> bool:
        """Let a stream send more; False: a window of that size there cannot be."""
        stream.window += size
        if stream.queued and stream.window > 0 and not stream._ready:
            stream._ready = True
            self._ready.append(stream)
        return stream.window <= LARGEST_WINDOW

    def fill(self) -> None:
        """Make frames of what waits, as much as may be sent now and is written at once."""
        ready = self._ready
        while ready and self.window > 0 and self.size <= AT_ONCE and not self.blocked:
            stream = ready.popleft()
            stream._ready = False
            if stream.queued and stream.window > 0:
                self._send_one(stream)

    def take(self) -> bytes:
        """Return what is to be written, once."""
        out = self.out
        data = out[0] if len(out) == 1 else b"".join(out)
        self.out = []
        self.size = 0
        return data

    def _keep(self, stream: Outflow, data: bytes, end: bool) -> None:
        if stream.queue is None:
            stream.queue = deque()
        size = len(data)
        stream.queue.append(data)
        stream.queued += size
        stream.ending = end
        self._waiting += size
        if not stream._ready and stream.window > 0:
            stream._ready = True
            self._ready.append(stream)
        if not (stream.full or end) and (stream.queued > HIGH or self._waiting > MOST_WAITING):
            stream.full = True
            stream.filled()

    def _send_one(self, stream: Outflow) -> None:
        """Make the next frame of a stream that has bytes and a window."""
        queue = stream.queue
        assert queue is not None
        piece, at = queue[0], stream._at
        most = min(stream.window, self.window, self.largest)
        if len(piece) - at <= most:
            queue.popleft()
            data = piece[at:] if at else piece
            stream._at = 0
        else:
            data = piece[at : at + most]
            stream._at = at + most
        size = len(data)
        stream.queued -= size
        stream.window -= size
        self._waiting -= size
        self.window -= size
        last = stream.ending and not stream.queued
        flags = END_STREAM if last and not stream._trailers else 0
        self.out.append(_pack(size >> 8, size & 0xFF, DATA, flags, stream.identifier))
        self.out.append(data)
        self.size += size + 9
        if size >= WORTH_IT or not stream._at:
            self.bodies += 1
        if stream.queued and stream.window > 0:
            stream._ready = True
            self._ready.append(stream)
        if last:
            if stream._trailers:
                self._send_trailers(stream, stream._trailers)
            stream.sent_all = True
            stream.full = False
            stream.ended()
        elif stream.full and stream.queued <= LOW:
            stream.full = False
            stream.taken()

    def _send_trailers(self, stream: Outflow, lines: bytes) -> None:
        self.add(header_frames(stream.identifier, self.trailers.trailers(lines), True, self.largest))
        stream.sent_all = True
