"""How much of a message's body has come, whatever its framing, and in which form it is passed on. No I/O."""

from __future__ import annotations

from typing import Final

from nodeagent.proxy.chunks import ChunkedReader
from nodeagent.proxy.message import CHUNKED, UNTIL_CLOSE

LAST_CHUNK: Final = b"0\r\n\r\n"


class Body:
    """A body of `length` bytes, or CHUNKED, or UNTIL_CLOSE (see `nodeagent.proxy.message`).

    `take(data)` says how many of the bytes belong to the body. `done` is true once all have been seen; for
    UNTIL_CLOSE that is when `end()` has been called. `trailers` lets those of a chunked body go on.
    """

    __slots__ = ("_chunks", "_remaining", "done")

    def __init__(self, length: int, trailers: bool = False) -> None:
        self._chunks = ChunkedReader(trailers=trailers) if length == CHUNKED else None
        self._remaining = length
        self.done = length == 0

    def take(self, data: bytes) -> int:
        """Count `data` in; return how many bytes of it belong to the body and have been followed.

        Fewer than all while not `done`: give the rest again in a later turn (see `ChunkedReader.feed`).

        Raises:
            HeadError: malformed chunks.
        """
        if self._chunks is not None:
            used = self._chunks.feed(data)
            self.done = self._chunks.done
            return used
        remaining = self._remaining
        if remaining == UNTIL_CLOSE:
            return len(data)
        size = len(data)
        if size < remaining:
            self._remaining = remaining - size
            return size
        self._remaining = 0
        self.done = True
        return remaining

    def forwarded(self, data: bytes) -> bytes:
        """Return what goes on to the other side for `data`, which `take` has just followed."""
        return data if self._chunks is None else self._chunks.passed_on(data)

    def end(self) -> bool:
        """Note that the peer closed in order; return whether that ends the body, or cuts it off."""
        if self._remaining == UNTIL_CLOSE and self._chunks is None:
            self.done = True
        return self.done


class Unchunked:
    """The data of a chunked body, for a receiver that does not know chunks."""

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader = ChunkedReader(keep_payload=True)

    def payload(self, data: bytes) -> bytes:
        """Return the data in the next bytes of a body that has been found to be well formed."""
        reader = self._reader
        while data and not reader.done:
            data = data[reader.feed(data) :]
        payload = b"".join(reader.payload)
        reader.payload.clear()
        return payload

    @property
    def trailers(self) -> bytes:
        """The lines of its trailers, as far as they have come."""
        return self._reader.trailer_lines


def chunk(data: bytes) -> bytes:
    """Return `data` as a chunk; no data is no chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
