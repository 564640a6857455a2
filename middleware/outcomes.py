"""What became of the requests of the last ten seconds: the figures a circuit breaker's condition asks for.

The definitions are those of vulcand/oxy (`memmetrics`), which Traefik uses, so that expressions mean the
same: ten buckets of one second, a network error is a 502 or a 504 (here also every error that brought no
response from the endpoint), ratios of nothing are 0. Two things differ: latencies are kept for the same ten
seconds (oxy: a minute) to within 1.6 % (oxy: 1 %), and are measured from the request's last byte to the
response's head (oxy: from its head to the response's last byte).

Memory is bounded: at most `STATUSES` counters and `latency_class(LONGEST)` latency classes in each bucket.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from middleware.window import RollingWindow

WINDOW_BUCKETS: Final = 10
BUCKET_WIDTH: Final = 1.0
NETWORK_ERRORS: Final = frozenset({502, 504})
STATUSES: Final = 1000
"""Status codes have three digits."""
LONGEST: Final = 3600.0
"""Seconds; a longer latency counts as this."""


class _Second:
    """What ended within one bucket of the window."""

    __slots__ = ("latencies", "network_errors", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.latencies: dict[int, int] = {}
        self.network_errors = 0


class Outcomes:
    """Counts outcomes by status code and, if `latencies`, by latency. Times in seconds."""

    def __init__(self, *, latencies: bool) -> None:
        self._window = RollingWindow(_Second, count=WINDOW_BUCKETS, width=BUCKET_WIDTH)
        self._with_latencies = latencies
        self._newest: _Second | None = None
        self._older: dict[int, int] = {}

    def record(self, now: float, latency: float, status: int, network_error: bool) -> None:
        """Count one outcome; `network_error` says that no response came, whatever the status."""
        second = self._window.current(now)
        statuses = second.statuses
        statuses[status] = statuses.get(status, 0) + 1
        if network_error or status in NETWORK_ERRORS:
            second.network_errors += 1
        if self._with_latencies:
            klass = latency_class(latency)
            second.latencies[klass] = second.latencies.get(klass, 0) + 1

    def clear(self) -> None:
        """Forget everything."""
        self._window.clear()

    def total(self, now: float) -> int:
        """Return how many outcomes the window holds."""
        return sum(sum(second.statuses.values()) for second in self._window.buckets(now))

    def network_error_ratio(self, now: float) -> float:
        """Return network errors by outcomes."""
        errors = sum(second.network_errors for second in self._window.buckets(now))
        return errors / self.total(now) if errors else 0.0

    def response_code_ratio(self, now: float, part: range, whole: range) -> float:
        """Return outcomes with a status in `part` by those with a status in `whole`."""
        counted = counted_whole = 0
        for second in self._window.buckets(now):
            for status, count in second.statuses.items():
                counted += count if status in part else 0
                counted_whole += count if status in whole else 0
        return counted / counted_whole if counted_whole else 0.0

    def latency_at_quantile(self, now: float, quantile: float) -> float:
        """Return the latency in seconds that `quantile` per cent of outcomes do not exceed (nearest rank)."""
        merged = self._latencies(now)
        rank = max(1, ceil(quantile / 100 * sum(merged.values())))
        for klass in sorted(merged):
            rank -= merged[klass]
            if rank <= 0:
                return middle_of(klass)
        return 0.0

    def _latencies(self, now: float) -> dict[int, int]:
        """Return the window's latency classes; seconds that are over are added up once, not at each check."""
        newest = self._window.current(now)
        if newest is not self._newest:
            self._newest, self._older = newest, {}
            for second in self._window.buckets(now):
                if second is not newest:
                    add(self._older, second.latencies)
        return add(dict(self._older), newest.latencies)


def add(sums: dict[int, int], counts: dict[int, int]) -> dict[int, int]:
    """Add `counts` to `sums`, which is returned."""
    for key, count in counts.items():
        sums[key] = sums.get(key, 0) + count
    return sums


def latency_class(latency: float) -> int:
    """Return the class of a latency in seconds: whole µs up to 64, then 32 classes to each doubling.

    This is the bucket scheme of HdrHistogram with 32 sub-buckets.
    """
    microseconds = int(min(latency, LONGEST) * 1e6)
    if microseconds < 64:
        return max(microseconds, 0)
    shift = microseconds.bit_length() - 6
    return (shift << 5) + (microseconds >> shift)


def middle_of(klass: int) -> float:
    """Return the latency in seconds at the middle of a class of `latency_class`."""
    if klass < 64:
        return klass / 1e6
    shift = (klass >> 5) - 1
    lower = (klass - (shift << 5)) << shift
    return (lower + (1 << shift) / 2) / 1e6
