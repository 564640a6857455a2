"""A rolling window: the last seconds, kept as a ring of buckets of equal width.

It is for figures over recent time (a share of errors, a budget) where memory must stay bounded and a request
may cost no more than a comparison and an addition. It forgets one bucket at a time, so it covers between
`count - 1` and `count` widths.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Bucket = TypeVar("Bucket")


class RollingWindow(Generic[Bucket]):
    """`count` buckets of `width` seconds, made by `make`; `now` never goes back between calls."""

    def __init__(self, make: Callable[[], Bucket], *, count: int, width: float) -> None:
        self._make = make
        self._width = width
        self._buckets: deque[Bucket] = deque(maxlen=count)
        self._ends = float("-inf")
        self._current = make()

    def current(self, now: float) -> Bucket:
        """Return the bucket that `now` falls into, after forgetting what is too old."""
        if now >= self._ends:
            self._turn(now)
        return self._current

    def buckets(self, now: float) -> deque[Bucket]:
        """Return all buckets of the window that ends at `now`, oldest first."""
        if now >= self._ends:
            self._turn(now)
        return self._buckets

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
        self._ends = float("-inf")

    def _turn(self, now: float) -> None:
        size = self._buckets.maxlen or 1
        missed = (now - self._ends) / self._width
        if missed >= size:  # includes the first call, when nothing has ended yet
            self._buckets.clear()
            steps = 1
            self._ends = now
        else:
            steps = int(missed) + 1
        for _ in range(steps):
            self._current = self._make()
            self._buckets.append(self._current)
        self._ends += steps * self._width
