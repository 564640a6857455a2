"""Exemplars: the latest traced request of each bucket of durations, for the bucket's series on `/metrics`.

They come from what workers record for the collector of `--traces`, so a request that is not traced costs
nothing. They are bounded: those of the edges that were traced last, one request for each bucket.

Prometheus refuses, and logs at each scrape, an exemplar that is older than the one before in its series. So
none is shown after a later one, though workers report in any order, and edges change their series.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from nodeagent.stats.columns import DURATION_BOUNDS
from nodeagent.stats.ledger import SeriesKey
from nodeagent.stats.region import SlotKey

MOST_EDGES: Final = 1024
"""With all their buckets about 5 MiB."""


class Exemplar(NamedTuple):
    """A request of a bucket."""

    trace_id: str
    """32 hexadecimal digits."""
    seconds: float
    """How long it took."""
    at: float
    """When it ended, as Unix time."""

    def text(self) -> str:
        """Return what is written after the bucket's value. Its labels have 40 characters; 128 are allowed."""
        return f'# {{trace_id="{self.trace_id}"}} {self.seconds!r} {self.at:.3f}'


NO_EXEMPLARS: Final[Mapping[int, Exemplar]] = {}


class Exemplars:
    """Those of a node, by port, source and bucket."""

    def __init__(self, most: int = MOST_EDGES) -> None:
        self._most = most
        self._edges: dict[SeriesKey, dict[int, Exemplar]] = {}
        """The one that was traced last comes last."""
        self._shown: dict[SeriesKey, dict[int, float]] = {}
        """When the one ended that was shown last, by series and bucket."""

    def take(self, key: SlotKey, source: str, trace_id: bytes, seconds: float, at: float) -> None:
        """Keep a request for its bucket, in place of one that ended before it."""
        exact = round(seconds, 6)
        edge = self._edges.pop((key, source), None)
        if edge is None:
            edge = {}
            while len(self._edges) >= self._most:
                del self._edges[next(iter(self._edges))]
        self._edges[key, source] = edge
        _keep(edge, bisect_left(DURATION_BOUNDS, exact), Exemplar(trace_id.hex(), exact, at))

    def by_series(
        self, series: Callable[[SlotKey, str], SeriesKey]
    ) -> Mapping[SeriesKey, Mapping[int, Exemplar]]:
        """Return those of each series, the latest where several edges share it; `series` says which series an
        edge is counted in.
        """
        found: dict[SeriesKey, dict[int, Exemplar]] = {}
        for (key, source), edge in self._edges.items():
            known = found.setdefault(series(key, source), {})
            for bucket, exemplar in edge.items():
                _keep(known, bucket, exemplar)
        before, self._shown = self._shown, {}
        for which, latest in found.items():
            shown = self._shown[which] = before.get(which, {})
            for bucket, exemplar in list(latest.items()):
                if exemplar.at < shown.get(bucket, exemplar.at):
                    del latest[bucket]
                else:
                    shown[bucket] = exemplar.at
        return found


def _keep(buckets: dict[int, Exemplar], bucket: int, exemplar: Exemplar) -> None:
    """Keep the exemplar unless there is one of a later request."""
    before = buckets.get(bucket)
    if before is None or before.at <= exemplar.at:
        buckets[bucket] = exemplar
