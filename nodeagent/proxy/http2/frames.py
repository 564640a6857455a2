"""The frames of HTTP/2 (RFC 9113 section 4 and 6): bytes in, calls out, and the bytes of frames to send.

`FrameReader` checks what can be checked of a frame alone: its size, its stream's number, its padding, and
that a header block is not interrupted. What a frame means to a stream is for its `FrameSink` to say. No I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Protocol

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every client sends first (RFC 9113 section 3.4)."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
ENHANCE_YOUR_CALM: Final = 0xB

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6
ENABLE_CONNECT_PROTOCOL: Final = 0x8

FRAME_SIZE: Final = 16_384
"""The largest payload that is taken, and that may be sent to a peer that has not said that it takes more."""
DEFAULT_WINDOW: Final = 65_535
LARGEST_WINDOW: Final = 2**31 - 1
LAST_STREAM: Final = 2**31 - 1

MOST_CONTINUATIONS: Final = 32
"""CONTINUATION frames of one header block: honest senders fill them (CVE-2024-27316)."""
MOST_SETTINGS: Final = 32
"""Values in one SETTINGS frame; there are some ten that mean anything."""

PIECE: Final = 4096
"""Bytes of a DATA frame that are passed on before the rest has come: with less, the work would be more."""

HEAD: Final = struct.Struct(">HBBBL")
"""Length (upper 16 bits, lower 8), type, flags, stream."""
_HEAD_SIZE: Final = 9
_TYPES: Final = 10
_NOT_PLAIN: Final = END_HEADERS | PADDED | PRIORITY_FLAG
_SETTING: Final = struct.Struct(">HL")
_pack = HEAD.pack
_unpack = HEAD.unpack_from


class ConnectionFault(Exception):
    """The peer broke the protocol so that the whole connection must end (RFC 9113 section 5.4.1)."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class FrameSink(Protocol):
    """The receiver of frames. Its methods may raise `ConnectionFault`."""

    def on_data(self, stream: int, data: bytes, size: int, end: bool) -> None:
        """Take a DATA frame; `size` is what it counts for flow control, its padding included."""
        ...

    def on_headers(self, stream: int, block: bytes, end: bool) -> None:
        """Take a whole header block, whatever frames it came in."""
        ...

    def on_priority(self, stream: int) -> None:
        """Take note of a PRIORITY frame, which means nothing any more."""
        ...

    def on_reset(self, stream: int, code: int) -> None:
        """Take a RST_STREAM frame."""
        ...

    def on_settings(self, values: list[tuple[int, int]]) -> None:
        """Take the peer's settings."""
        ...

    def on_settings_ack(self) -> None:
        """Take note that the peer has our settings."""
        ...

    def on_ping(self, payload: bytes, ack: bool) -> None:
        """Take a PING, or the answer to ours."""
        ...

    def on_goaway(self, last: int, code: int, debug: bytes) -> None:
        """Take a GOAWAY frame."""
        ...

    def on_window(self, stream: int, increment: int) -> None:
        """Take a WINDOW_UPDATE frame; stream 0 is the connection."""
        ...

    def on_unknown(self) -> None:
        """Take note of a frame of another type."""
        ...

    def on_stream_fault(self, stream: int, code: int, detail: str) -> None:
        """Learn of a frame that is wrong, but harms its stream only."""
        ...


class FrameReader:
    """Reads frames from bytes as they come. `largest_block` bounds a header block, compressed.

    It keeps at most one unfinished frame and one unfinished header block, and what `feed` had to leave for a
    later turn. A DATA frame need not be whole: its pieces are passed on as if they were frames.
    """

    __slots__ = (
        "_block",
        "_block_end",
        "_block_size",
        "_block_stream",
        "_body_ends",
        "_body_left",
        "_body_stream",
        "_held",
        "_largest_block",
        "_need",
        "_sink",
        "stopped",
    )

    def __init__(self, sink: FrameSink, largest_block: int) -> None:
        self._sink = sink
        self._largest_block = largest_block
        self._held = b""
        self._need = _HEAD_SIZE
        """How many bytes must be there before anything new can be done."""
        self._body_left = 0
        """Bytes that are still to come of a DATA frame whose beginning has been passed on; of which stream,
        and whether they end it."""
        self._body_stream = 0
        self._body_ends = False
        self._block: list[bytes] = []
        self._block_stream = 0
        """The stream whose header block is incomplete; 0 if none is."""
        self._block_end = False
        self._block_size = 0
        self.stopped = False
        """Set by the sink: nothing more is read."""

    @property
    def held(self) -> int:
        """Bytes that are kept."""
        return len(self._held) + self._block_size

    def feed(self, data: bytes, budget: int) -> bool:
        """Read at most `budget` frames; return whether whole ones may be left for a later turn.

        They are read by feeding nothing.

        Raises:
            ConnectionFault: the connection must end.
        """
        held = self._held
        if held:
            data = held + data if data else held
            if len(data) < self._need:
                self._held = data
                return False
        sink = self._sink
        position, size = 0, len(data)
        if self._body_left:
            position = self._more_body(data)
            if not position or self.stopped:
                return False
        while size - position >= _HEAD_SIZE:
            high, low, kind, flags, stream = _unpack(data, position)
            length = high << 8 | low
            if length > FRAME_SIZE:
                raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = position + _HEAD_SIZE + length
            if end > size:
                plain = kind == DATA and not flags & PADDED and stream and not self._block_stream
                if plain and size - position - _HEAD_SIZE >= PIECE:
                    position += _HEAD_SIZE
                    self._begin_body(stream & 0x7FFFFFFF, flags, length, data[position:])
                    return False
                self._held = data[position:] if position else data
                self._need = _HEAD_SIZE + (min(length, PIECE) if plain else length)
                return False
            if not budget:
                self._held = data[position:]
                self._need = _HEAD_SIZE
                return True
            budget -= 1
            stream &= 0x7FFFFFFF
            if self._block_stream and (kind != CONTINUATION or stream != self._block_stream):
                raise ConnectionFault(PROTOCOL_ERROR, "a header block was interrupted")
            # Nearly all frames are of these two types; in their plain form they are handled here without a
            # further call.
            if kind == HEADERS and flags & _NOT_PLAIN == END_HEADERS and stream:
                sink.on_headers(stream, data[position + _HEAD_SIZE : end], flags & END_STREAM == END_STREAM)
            elif kind == DATA and not flags & PADDED and stream:
                payload = data[position + _HEAD_SIZE : end]
                sink.on_data(stream, payload, length, flags & END_STREAM == END_STREAM)
            elif kind < _TYPES:
                _READ[kind](self, flags, stream, data[position + _HEAD_SIZE : end])
            else:
                sink.on_unknown()
            position = end
            if self.stopped:
                self._held = b""
                return False
        self._held = data[position:]
        self._need = _HEAD_SIZE
        return False

    def _begin_body(self, stream: int, flags: int, length: int, piece: bytes) -> None:
        """Pass on what has come of a DATA frame of `length` bytes."""
        size = len(piece)
        self._held = b""
        self._body_left = length - size
        self._body_stream = stream
        self._body_ends = flags & END_STREAM != 0
        self._sink.on_data(stream, piece, size, False)

    def _more_body(self, data: bytes) -> int:
        """Pass on more of a DATA frame that has come in part; return how many bytes of `data` that were."""
        left, size = self._body_left, len(data)
        if size < left and size < PIECE:
            self._held = data
            self._need = min(left, PIECE)
            return 0
        self._held = b""
        taken = min(left, size)
        self._body_left = left = left - taken
        self._sink.on_data(self._body_stream, data[:taken], taken, self._body_ends and not left)
        return taken

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream:
            raise ConnectionFault(PROTOCOL_ERROR, "DATA on stream 0")
        size = len(payload)
        if flags & PADDED:
            payload = _unpadded(payload)
        self._sink.on_data(stream, payload, size, flags & END_STREAM != 0)

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream:
            raise ConnectionFault(PROTOCOL_ERROR, "HEADERS on stream 0")
        depends_on = -1
        if flags & (PADDED | PRIORITY_FLAG):
            if flags & PADDED:
                payload = _unpadded(payload)
            if flags & PRIORITY_FLAG:
                if len(payload) < 5:
                    raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS too short for its priority")
                depends_on = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
                payload = payload[5:]
        if flags & END_HEADERS:
            self._sink.on_headers(stream, payload, flags & END_STREAM != 0)
        else:
            self._block = [payload]
            self._block_size = len(payload)
            self._block_stream = stream
            self._block_end = flags & END_STREAM != 0
        if depends_on == stream:
            self._sink.on_stream_fault(stream, PROTOCOL_ERROR, "a stream depends on itself")

    def _continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if not self._block_stream:
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        block = self._block
        block.append(payload)
        self._block_size += len(payload)
        if self._block_size > self._largest_block or len(block) > 1 + MOST_CONTINUATIONS:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a header block of too many bytes or frames")
        if flags & END_HEADERS:
            self._block = []
            self._block_stream = self._block_size = 0
            self._sink.on_headers(stream, b"".join(block), self._block_end)

    def _priority(self, _flags: int, stream: int, payload: bytes) -> None:
        if not stream:
            raise ConnectionFault(PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            self._sink.on_stream_fault(stream, FRAME_SIZE_ERROR, "PRIORITY that is not 5 bytes long")
        elif int.from_bytes(payload[:4], "big") & 0x7FFFFFFF == stream:
            self._sink.on_stream_fault(stream, PROTOCOL_ERROR, "a stream depends on itself")
        else:
            self._sink.on_priority(stream)

    def _rst_stream(self, _flags: int, stream: int, payload: bytes) -> None:
        if not stream:
            raise ConnectionFault(PROTOCOL_ERROR, "RST_STREAM on stream 0")
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "RST_STREAM that is not 4 bytes long")
        self._sink.on_reset(stream, int.from_bytes(payload, "big"))

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            if payload:
                raise ConnectionFault(FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS that has a payload")
            self._sink.on_settings_ack()
            return
        if len(payload) % 6:
            raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS with part of a value")
        if len(payload) > 6 * MOST_SETTINGS:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many values in SETTINGS")
        values = list(_SETTING.iter_unpack(payload))
        for name, value in values:
            _check_setting(name, value)
        self._sink.on_settings(values)

    def _push_promise(self, _flags: int, _stream: int, _payload: bytes) -> None:
        raise ConnectionFault(PROTOCOL_ERROR, "PUSH_PROMISE, which is not allowed here")

    def _ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, "PING that is not 8 bytes long")
        self._sink.on_ping(payload, flags & ACK != 0)

    def _goaway(self, _flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, "GOAWAY of less than 8 bytes")
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        self._sink.on_goaway(last, int.from_bytes(payload[4:8], "big"), payload[8:])

    def _window_update(self, _flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "WINDOW_UPDATE that is not 4 bytes long")
        increment = int.from_bytes(payload, "big") & 0x7FFFFFFF
        if increment:
            self._sink.on_window(stream, increment)
        elif stream:
            self._sink.on_stream_fault(stream, PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
        else:
            raise ConnectionFault(PROTOCOL_ERROR, "WINDOW_UPDATE by 0")


_BY_TYPE: Final[dict[int, Callable[[FrameReader, int, int, bytes], None]]] = {
    DATA: FrameReader._data,
    HEADERS: FrameReader._headers,
    PRIORITY: FrameReader._priority,
    RST_STREAM: FrameReader._rst_stream,
    SETTINGS: FrameReader._settings,
    PUSH_PROMISE: FrameReader._push_promise,
    PING: FrameReader._ping,
    GOAWAY: FrameReader._goaway,
    WINDOW_UPDATE: FrameReader._window_update,
    CONTINUATION: FrameReader._continuation,
}
_READ: Final = tuple(_BY_TYPE[kind] for kind in range(len(_BY_TYPE)))


def _unpadded(payload: bytes) -> bytes:
    if not payload:
        raise ConnectionFault(FRAME_SIZE_ERROR, "a padded frame without the length of its padding")
    end = len(payload) - payload[0]
    if end < 1:
        raise ConnectionFault(PROTOCOL_ERROR, "more padding than payload")
    return payload[1:end]


def _check_setting(name: int, value: int) -> None:
    if name == ENABLE_PUSH and value > 1:
        raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH is neither 0 nor 1")
    if name == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
        raise ConnectionFault(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
    if name == MAX_FRAME_SIZE and not FRAME_SIZE <= value < 2**24:
        raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of bounds")
    if name == ENABLE_CONNECT_PROTOCOL and value > 1:
        raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    size = len(payload)
    return _pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def header_frames(stream: int, block: bytes, end: bool, largest: int) -> bytes:
    """Return HEADERS and as many CONTINUATION frames as the block takes."""
    size = len(block)
    flags = END_STREAM if end else 0
    if size <= largest:
        return _pack(size >> 8, size & 0xFF, HEADERS, flags | END_HEADERS, stream) + block
    out = [frame(HEADERS, flags, stream, block[:largest])]
    for at in range(largest, size, largest):
        last = END_HEADERS if at + largest >= size else 0
        out.append(frame(CONTINUATION, last, stream, block[at : at + largest]))
    return b"".join(out)


def settings_frame(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*value) for value in values.items()))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)


def ping_frame(payload: bytes, ack: bool) -> bytes:
    """Return a PING frame, or the answer to one."""
    return frame(PING, ACK if ack else 0, 0, payload)


def reset_frame(stream: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway_frame(last: int, code: int, debug: bytes = b"") -> bytes:
    """Return a GOAWAY frame."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + debug)


def window_frame(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))
