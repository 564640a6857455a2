"""How long to wait after the n-th failure in a row: exponential, with jitter, no clock and no sleep."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Delays that double from `first` to `limit` seconds, each cut to between half and all of itself.

    The jitter keeps the nodes of a cluster from coming back to a restarted API server all at once.
    `random` returns numbers from [0, 1).
    """

    def __init__(self, first: float, limit: float, random: Callable[[], float]) -> None:
        self._first = first
        self._limit = limit
        self._random = random
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many failures have been counted since the last reset."""
        return self._failures

    def failed(self) -> float:
        """Count a failure and return the seconds to wait before the next attempt."""
        # The exponent is bounded: 2.0**1024 overflows after a long weekend without an API server.
        ceiling = min(self._limit, self._first * 2.0 ** min(self._failures, 64))
        self._failures += 1
        return ceiling * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """Forget the failures: contact is good again."""
        self._failures = 0
