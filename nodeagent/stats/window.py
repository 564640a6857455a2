"""What was counted in each of the last seconds, for live views. Pure: `now` is the caller's.

A second holds what is new of the ports and edges that were used in it, and of those at most `MOST`; a count
that is 0 takes no memory. So the history has a bound, whatever there is in the plan.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from nodeagent.stats.columns import EDGE_COLUMNS
from nodeagent.stats.identity import OTHER_NAME, workload_of
from nodeagent.stats.region import SlotKey
from nodeagent.stats.signals import NodeStats, PortStats, SourceStats, signals
from nodeagent.stats.tallies import News

LONGEST: Final = 60
"""Seconds that can be asked about."""
MOST: Final = 3000
"""Ports and edges of one second."""
OTHER_SOURCE: Final = f"/{OTHER_NAME}"

_Key = tuple[SlotKey, str]
"""A port (with an empty source) or one of its edges."""
_Sparse = Mapping[_Key, "array[int]"]
"""By key: column, count, column, count, ..."""


class _Second:
    __slots__ = ("began", "counts", "ended", "left_out")

    def __init__(self, began: float, ended: float, counts: _Sparse, left_out: int) -> None:
        self.began = began
        self.ended = ended
        self.counts = counts
        self.left_out = left_out


class Window:
    """The last seconds. Implements `nodeagent.stats.tallies.Taker`."""

    def __init__(self) -> None:
        self._seconds: deque[_Second] = deque()
        self._counts: dict[_Key, array[int]] = {}
        self._left_out = 0
        self._began: float | None = None
        """When the second began that is counted now; None: nobody watches, nothing is kept."""

    @property
    def covers(self) -> float:
        """How many seconds there are numbers for."""
        return self._seconds[-1].ended - self._seconds[0].began if self._seconds else 0.0

    def begin(self, now: float) -> None:
        """Count from here; what was before is forgotten."""
        self.stop()
        self._began = now

    def stop(self) -> None:
        """Forget everything, and count no more."""
        self._seconds.clear()
        self._counts = {}
        self._left_out = 0
        self._began = None

    def take(self, news: News) -> None:
        """Count what is new of a port."""
        if self._began is None or news.key is None:
            return
        if not any(news.counted[:EDGE_COLUMNS]):
            return
        self._add((news.key, ""), news.counted[:EDGE_COLUMNS])
        for source, counted in news.edges.items():
            self._add((news.key, source), counted)

    def tick(self, now: float) -> None:
        """A second is over, and another begins."""
        if self._began is None:
            return
        self._seconds.append(_Second(self._began, now, self._counts, self._left_out))
        self._counts, self._left_out, self._began = {}, 0, now
        while self._seconds and now - self._seconds[0].began > LONGEST + 1:
            self._seconds.popleft()

    def stats(self, node: str, seconds: float) -> NodeStats:
        """Return the signals of the last seconds that are over."""
        if not self._seconds:
            return NodeStats(node, 0.0, [], 0)
        until = self._seconds[-1].ended
        chosen = [one for one in self._seconds if until - one.began <= seconds + 0.5] or [self._seconds[-1]]
        covered = until - chosen[0].began
        sums: dict[_Key, list[int]] = {}
        for second in chosen:
            for which, counts in second.counts.items():
                total = sums.setdefault(which, [0] * EDGE_COLUMNS)
                for at in range(0, len(counts), 2):
                    total[counts[at]] += counts[at + 1]
        edges: dict[SlotKey, dict[str, list[int]]] = {}
        for (key, source), counted in sums.items():
            if source:
                edges.setdefault(key, {})[source] = counted
        ports = [
            _port_stats(key, counted, edges.get(key, {}), covered)
            for (key, source), counted in sums.items()
            if not source
        ]
        ports.sort(key=lambda one: (-one.signals.requests, one.namespace, one.service, one.port))
        return NodeStats(node, covered, ports, max(one.left_out for one in chosen))

    def _add(self, key: _Key, counted: Sequence[int]) -> None:
        known = self._counts.get(key)
        if known is None and len(self._counts) >= MOST:
            self._left_out += 1
            return
        more = array("q", [each for pair in enumerate(counted) if pair[1] for each in pair])
        self._counts[key] = more if known is None else known + more


def _port_stats(
    key: SlotKey, counted: list[int], edges: Mapping[str, list[int]], seconds: float
) -> PortStats:
    service, port = key
    rest = [max(0, total - sum(each)) for total, *each in zip(counted, *edges.values(), strict=True)]
    known = {**edges, **({OTHER_SOURCE: rest} if any(rest) else {})}
    sources = [
        SourceStats(*workload_of(source), signals(numbers, seconds)) for source, numbers in known.items()
    ]
    sources.sort(key=lambda one: (-one.signals.requests, one.namespace, one.workload))
    return PortStats(service.namespace, service.name, port, signals(counted, seconds), sources)
