"""How long to wait after the n-th failure in a row: exponential, with jitter, no clock and no sleep."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Delays that double from `first` to `limit` seconds, each cut to between half and all of itself.

    The jitter keeps the nodes of a cluster from coming back to a restarted API server all at once.
    Each kind of failure is counted for itself: a server that was away for an hour and then answers 500 while
    it starts has failed once in that way. `random` returns numbers from [0, 1).
    """

    def __init__(self, first: float, limit: float, random: Callable[[], float]) -> None:
        self._first = first
        self._limit = limit
        self._random = random
        self._failures: dict[str, int] = {}

    @property
    def failures(self) -> int:
        """How many failures have been counted since the last reset."""
        return sum(self._failures.values())

    def failed(self, kind: str = "", limit: float | None = None) -> float:
        """Count a failure of a kind and return the seconds to wait before the next attempt.

        A `limit` that is lower than the general one holds for this delay.
        """
        count = self._failures.get(kind, 0)
        self._failures[kind] = count + 1
        ceiling = self._limit if limit is None else min(limit, self._limit)
        # The exponent is bounded: 2.0**1024 overflows after a long weekend without an API server.
        return min(ceiling, self._first * 2.0 ** min(count, 64)) * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """Forget the failures: contact is good again."""
        self._failures.clear()
