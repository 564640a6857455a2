"""Bounds for log lines: so many a second, the rest counted. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class LineBudget:
    """Lets so many lines a second through and counts the rest."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = 0
        self._used = 0
        self._suppressed = 0

    def spend(self, now: float) -> int | None:
        """Return None if the line must be left out, else how many lines were before it."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._used = 0
        if self._used >= self._per_second:
            self._suppressed += 1
            return None
        self._used += 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


Port = tuple[str, int]
"""A Service, as namespace/name, and its port."""


class LeftOut(NamedTuple):
    """Lines about one port that were left out, since a moment."""

    port: Port
    lines: int
    since: float


class _Spent:
    """What was spent of one budget in a second."""

    __slots__ = ("left_out", "second", "since", "used")

    def __init__(self) -> None:
        self.second = 0
        self.used = 0
        self.left_out = 0
        self.since = 0.0


class LineBudgets:
    """So many lines a second for each port of a Service; `gaps` tells what was left out.

    Only the ports that were used since the last question or two are remembered.
    """

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._spent: dict[Port, _Spent] = {}

    def spend(self, port: Port, now: float) -> bool:
        """Return whether a line about this port may be written now; one that may not is counted."""
        spent = self._spent.get(port)
        if spent is None:
            spent = self._spent[port] = _Spent()
        second = int(now)
        if second != spent.second:
            spent.second = second
            spent.used = 0
        if spent.used < self._per_second:
            spent.used += 1
            return True
        if not spent.left_out:
            spent.since = now
        spent.left_out += 1
        return False

    def gaps(self, now: float) -> Iterator[LeftOut]:
        """Yield what was left out since the last time that this was asked."""
        for port, spent in list(self._spent.items()):
            if spent.left_out:
                yield LeftOut(port, spent.left_out, spent.since)
                spent.left_out = 0
            elif spent.second != int(now):
                del self._spent[port]
