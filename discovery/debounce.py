"""When to apply changes: a single one at once, a burst of them in a few steps.

After changes were applied there is a pause, which is longer if applying them cost more, so that a burst takes
at most a fifth of the time, whatever its length; but never for longer than `longest`. The first time
everything is applied, which says nothing about the cost of the next change. Before the source has reported
everything once, nothing is applied: a plan of half a cluster would remove names that work. Pure: the caller
brings the clock and the timer.
"""

from __future__ import annotations

import math

SHORTEST = 0.010
"""Seconds between two applications, at least."""
FACTOR = 4.0
"""Of the time the last application took."""
LONGEST = 1.0
"""Seconds a change waits at most (for the application before it to be over, besides)."""


class Debounce:
    """Decides when to apply the changes so far. All times are monotonic, in seconds."""

    def __init__(self, shortest: float = SHORTEST, factor: float = FACTOR, longest: float = LONGEST) -> None:
        self._shortest = shortest
        self._factor = factor
        self._longest = longest
        self._synced = False
        self._applied = False
        self._changed_at = -math.inf
        """The latest change."""
        self._pending = False
        self._free_at = -math.inf

    def synced(self, now: float) -> float:
        """Take note that the source has reported everything; counts as a change the first time.

        Returns when to apply, as `changed` does; infinity if nothing waits.
        """
        if not self._synced:
            self._synced = True
            self._free_at = now
            return self.changed(now)
        return self.due

    def changed(self, now: float) -> float:
        """Take note of a change and return when to apply: `now` or later, infinity before the first sync."""
        if not self._pending:
            self._pending = True
            self._free_at = max(self._free_at, now)
        self._changed_at = now
        return self.due

    def applied(self, now: float, took: float, cost: float | None = None) -> float:
        """Take note that all changes up to `now - took` are applied.

        `cost` is what it cost in CPU time, where that is less than the time it took: waiting is no reason to
        let the next change wait.

        Returns when to apply those that came meanwhile, infinity if there were none.
        """
        self._pending = self._changed_at > now - took
        if cost is None:
            cost = took
        if not self._applied:
            self._applied, cost = True, 0.0
        self._free_at = now + min(max(self._shortest, self._factor * cost), self._longest)
        return self.due

    @property
    def due(self) -> float:
        """When to apply what waits; infinity if nothing does, or before the first sync."""
        return self._free_at if self._pending and self._synced else math.inf
