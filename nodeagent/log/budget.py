"""A bound for log lines: so many a second, the rest counted. Pure: time is an argument."""

from __future__ import annotations


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
