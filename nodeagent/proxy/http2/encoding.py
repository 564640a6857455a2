"""Lines of HTTP/1 in, pieces of header blocks out: the encoder's dynamic table (RFC 7541).

A field is put into the table when it comes the second time. A full table takes a new one only now and then: a
set of values that is larger than the table would otherwise go round in it and never be of use.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from nodeagent.proxy.http2.integers import integer
from nodeagent.proxy.http2.literals import INDEXED, SHARED, Literal, unique
from nodeagent.proxy.http2.static_table import ENTRIES
from nodeagent.proxy.memory import Memory

_LARGEST_TABLE: Final = 4096
_LARGEST_SHARE: Final = 4
"""A field that takes more than this part of the table is not put into it."""
_REPLACE_EVERY: Final = 64
"""Header blocks between two fields that push others out."""
_OWN_ROOM: Final = 4 * 1024
_FIRST: Final = len(ENTRIES)
_REFERENCES: Final = tuple(integer(_FIRST + age, 0x7F, INDEXED) for age in range(_LARGEST_TABLE // 32 + 2))
"""By how many fields have been added since, and one."""


class LineEncoder:
    """Encodes the lines of one direction of a connection. `added` counts what was put into the table."""

    __slots__ = ("_blocks", "_index", "_limit", "_own", "_queue", "_size", "added", "resizes")

    def __init__(self) -> None:
        self.added = 0
        self._limit = _LARGEST_TABLE
        self._size = 0
        self._index: dict[bytes, int] = {}
        """How many had been added before each line of the table."""
        self._queue: deque[tuple[bytes, int]] = deque()
        """The same lines with their sizes, the oldest first."""
        self._blocks = 0
        """Since a field has pushed out another."""
        self._own: Memory[bytes, Literal] = Memory(_OWN_ROOM)
        """Secrets."""
        self.resizes: list[int] = []
        """Sizes of the table that the next block has to begin with."""

    @property
    def held(self) -> int:
        """Bytes that it takes, about."""
        return self._own.held + self._size + 150 * len(self._queue)

    def resize(self, limit: int) -> None:
        """Use at most this many bytes of the table; the next block says so."""
        limit = min(limit, _LARGEST_TABLE)
        resizes = self.resizes
        if limit == (resizes[-1] if resizes else self._limit):
            return
        # RFC 7541 section 4.2: the smallest size in between has to be announced, and the last one.
        smallest = min((limit, *resizes))
        self.resizes = [limit] if limit == smallest else [smallest, limit]

    def begin(self) -> bytes:
        """Return what a new block begins with."""
        self._blocks += 1
        out = b""
        for limit in self.resizes:
            out += integer(limit, 0x1F, 0x20)
            self._limit = limit
            self._evict(0)
        self.resizes = []
        return out

    def encode(self, lines: list[bytes]) -> bytes:
        """Return the fields of these lines, in their order."""
        added, known = self._index.get, SHARED.young.get
        out = []
        for line in lines:
            before = added(line)
            if before is not None:
                out.append(_REFERENCES[self.added - before])
                continue
            literal = known(line)
            if literal is None:
                plain = unique(line)
                if plain is not None:
                    out.append(plain)
                    continue
                literal = SHARED.older(line) or self._own.young.get(line) or self._own.older(line)
            again = literal is not None
            if literal is None:
                literal = Literal(line)
                memory = self._own if literal.secret else SHARED
                again = memory.again(line)
                if again:
                    memory.keep(line, literal)
            if again and literal.indexed and self._add(line, literal.size):
                out.append(literal.indexing)
            else:
                out.append(literal.plain)
        return b"".join(out)

    def _add(self, line: bytes, size: int) -> bool:
        """Put a line into the table; return whether it may be there."""
        if size * _LARGEST_SHARE > self._limit:
            return False
        if self._size + size > self._limit:
            if self._blocks < _REPLACE_EVERY:
                return False
            self._blocks = 0
            self._evict(size)
        self._index[line] = self.added
        self._queue.append((line, size))
        self._size += size
        self.added += 1
        return True

    def _evict(self, room: int) -> None:
        while self._size + room > self._limit:
            line, size = self._queue.popleft()
            self._size -= size
            del self._index[line]
