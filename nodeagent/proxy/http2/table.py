"""The decoder's dynamic table (RFC 7541 section 2.3.2), kept as a log.

Fields are added at the end and nothing is moved. Whether a field has fallen out of the table is computed from
the sizes of the later ones, and only when it is referred to: many senders add fields and never refer to them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from nodeagent.proxy.http2.field import Field

_PROTOCOL_SIZE: Final = 4096
"""Bytes of a table before anybody has said anything (RFC 9113 section 6.5.2)."""
_SLACK: Final = 1024
"""Bytes that may have fallen out, beside as many as the table has, before they are let go."""


class TableLog:
    """The fields that the peer has added, the newest last."""

    __slots__ = ("_gone", "_limit", "_starts", "_total", "fields", "first")

    def __init__(self) -> None:
        self.fields: list[Field] = []
        """Those of the table from `first` on, and some that have fallen out."""
        self.first = 0
        self._limit = _PROTOCOL_SIZE
        self._starts: list[int] = []
        """The size of all that came before each."""
        self._total = 0
        self._gone = 0
        """The size of all that has been let go."""

    def add(self, field: Field) -> None:
        """Add a field; one that is larger than the table empties it (RFC 7541 section 4.4)."""
        starts = self._starts
        self.fields.append(field)
        starts.append(self._total)
        self._total = total = self._total + field.size
        gone = total - self._limit
        first, last = self.first, len(starts)
        while first < last and starts[first] < gone:
            first += 1
        self.first = first
        if gone - self._gone > self._limit + _SLACK:
            self._let_go()

    def at(self, index: int) -> Field | None:
        """Return the field of this index, from 1 for the newest; None if there is none."""
        position = len(self.fields) - index
        return self.fields[position] if position >= self.first else None

    @property
    def held(self) -> int:
        """Bytes that it takes, about."""
        return 3 * (self._total - self._gone) + 200 * len(self.fields)

    def resize(self, limit: int) -> None:
        """Change the table's size; what does not fit falls out, and is not in it again when it grows."""
        self._limit = min(limit, self._limit)
        self._let_go()
        self._limit = limit

    def _let_go(self) -> None:
        """Drop what has fallen out."""
        gone = bisect_left(self._starts, self._total - self._limit)
        del self.fields[:gone], self._starts[:gone]
        self.first = 0
        self._gone = self._starts[0] if self._starts else self._total
