"""How far a message's body has come, whatever its framing, and in what form it goes on. No I/O."""

from __future__ import annotations

from typing import Final

from nodeagent.proxy.chunks import ChunkedReader
from nodeagent.proxy.head import CHUNKED, UNTIL_CLOSE

LAST_CHUNK: Final = b"0\r\n\r\n"


class Body:
    """A body of `length` bytes, or CHUNKED, or UNTIL_CLOSE (see `nodeagent.proxy.head`).

    `take(data)` says how many of the bytes belong to the body. `done` is true once all have been seen; for
    UNTIL_CLOSE that is when `end()` has been called. `unchunk` forwards only the data of chunks (to HTTP/1.0
    clients), `rechunk` puts chunks around an UNTIL_CLOSE body; for other lengths they change nothing.
    """

    __slots__ = ("_chunks", "_rechunk", "_remaining", "done")

    def __init__(self, length: int, unchunk: bool = False, rechunk: bool = False) -> None:
        self._chunks = ChunkedReader(keep_payload=unchunk) if length == CHUNKED else None
        self._remaining = length
        self._rechunk = rechunk and length == UNTIL_CLOSE
        self.done = length == 0

    def take(self, data: bytes) -> int:
        """Count `data` in; return how many bytes of it belong to the body.

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
        """Return what goes on to the other side for `data`, which `take` has just accepted."""
        if self._chunks is not None and self._chunks.keep_payload:
            payload = b"".join(self._chunks.payload)
            self._chunks.payload.clear()
            return payload
        if self._rechunk and data:
            return b"%x\r\n%b\r\n" % (len(data), data)
        return data

    def end(self) -> bytes | None:
        """Note that the peer closed; return the bytes that end the body, None if it was cut off."""
        if self._remaining == UNTIL_CLOSE and self._chunks is None:
            self.done = True
            return LAST_CHUNK if self._rechunk else b""
        return b"" if self.done else None
