"""How many requests ports with an objective have had, and how many of them failed or were too slow. Pure.

These counts are apart from the other time series (`nodeagent.stats.ledger`): a port with an objective is
counted from when it gets the objective until it leaves the plan, however idle it is and however many other
ports there are, so that its error budget has no gaps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from nodeagent.stats.columns import DURATION_BOUNDS, DURATION_BUCKETS, DURATION_SUM
from nodeagent.stats.region import SlotKey
from nodeagent.stats.signals import count_failed, count_requests
from nodeagent.stats.tallies import News


class Counted:
    """What was counted of a port."""

    __slots__ = ("failed", "requests", "slow")

    def __init__(self) -> None:
        self.requests = 0
        self.failed = 0
        self.slow = 0
        """Those that took longer than the objective says, failed or not."""


class ObjectiveCounts:
    """The counts of all ports with an objective. Implements `nodeagent.stats.tallies.Taker`."""

    def __init__(self) -> None:
        self._slow_from: Mapping[SlotKey, int] = {}
        self.ports: dict[SlotKey, Counted] = {}
        """Of the ports that were asked, the one that was asked first comes first."""

    def begin(self, slow_from: Mapping[SlotKey, int]) -> None:
        """Begin to count what is new. These ports have an objective, each with its `first_slow_column`."""
        self._slow_from = slow_from
        for key in [key for key in self.ports if key not in slow_from]:
            del self.ports[key]

    def take(self, news: News) -> None:
        """Count what is new of a port."""
        key = news.key
        first = self._slow_from.get(key) if key is not None else None
        if key is None or first is None:
            return
        requests = count_requests(news.counted)
        if not requests:
            return
        port = self.ports.get(key)
        if port is None:
            port = self.ports[key] = Counted()
        port.requests += requests
        port.failed += count_failed(news.counted)
        port.slow += sum(news.counted[first:DURATION_SUM])


def first_slow_column(within: float) -> int:
    """Return the first column of the histogram for longer requests; if `within` is 0, the one behind it."""
    return DURATION_BUCKETS + bisect_left(DURATION_BOUNDS, within) + 1 if within else DURATION_SUM
