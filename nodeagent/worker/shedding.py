"""When a worker takes no new requests, so that those under way do not take more memory than it has. Pure.

What a request takes is bounded, and so is the number of connections, but many of both are more than a
container has. The process's size is what counts in the end. It alone says too little: it stays large for a
while after a peak, and grows with the plan. So requests are refused only if requests are what fills it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

UPPER: Final = 0.85
"""The part of the budget from which new requests are refused. What is left is for what requests under way
still take, and for what comes before the next look."""
LOWER: Final = 0.75
"""The part of the budget below which they are taken again."""
CAUSE: Final = 1 / 8
"""Of the budget, held for requests: with less, refusing others would not help."""
RELIEF: Final = 1 / 16
"""Of the budget, held for requests: below it new ones are taken again, however large the process still is."""

FASTEST: Final = 512 * 1024 * 1024
"""Bytes a second by which a process may grow, for the time until the next look."""
SHORTEST: Final = 0.05
LONGEST: Final = 1.0
"""Seconds between two looks."""
PER_CONNECTION: Final = 0.00001
"""Seconds between two looks for each connection, as all of them are asked what they hold: ten times as long
as that takes."""


class Shedding:
    """Whether new requests are refused; `budget` is in bytes."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self.on = False

    def look(self, used: int, in_flight: Callable[[], int]) -> bool:
        """Decide anew by the bytes that the process uses, and those of them that are held for requests."""
        if self.on:
            self.on = used > self._budget * LOWER and in_flight() > self._budget * RELIEF
        else:
            self.on = self.reached(used) and in_flight() > self._budget * CAUSE
        return self.on

    def reached(self, used: int) -> bool:
        """Whether the process is so large that requests may have to be refused."""
        return used > self._budget * UPPER

    def next_look(self, used: int, connections: int) -> float:
        """Return the seconds until the next look: before the process can have grown too large."""
        soonest = max(SHORTEST, connections * PER_CONNECTION)
        return max(soonest, min((self._budget * UPPER - used) / FASTEST, LONGEST))
