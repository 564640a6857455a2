"""Lines out of a byte stream: a watch is one JSON document a line, cut anywhere by the network."""

from __future__ import annotations


class LineTooLong(Exception):
    """A line is longer than any object of the API can be."""


class LineBuffer:
    """Collects bytes and hands out whole lines, without their line feed; blank lines are dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def partial(self) -> bool:
        """True while bytes of an unfinished line are held."""
        return self._size > 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes and return the lines that are complete with them.

        Raises:
            LineTooLong: more than `limit` bytes without a line feed.
        """
        first, feed, rest = data.partition(b"\n")
        self._parts.append(first)
        self._size += len(first)
        if self._size > self._limit:
            raise LineTooLong(f"a line of more than {self._limit} bytes")
        if not feed:
            return []
        lines = [b"".join(self._parts), *rest.split(b"\n")]
        last = lines.pop()
        self._parts = [last]
        self._size = len(last)
        return [line for line in lines if line.strip()]
