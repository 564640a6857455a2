"""The golden signals of ports and edges in a short time: the values of `/stats`, for all that read them.

`meshctl`, pages and tests decode JSON as `NodeStats`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, Literal

import msgspec

from middleware.grpc import GrpcStatus, http_code
from nodeagent.stats.columns import (
    BYTES_RECEIVED,
    BYTES_SENT,
    CONNECTIONS,
    DURATION_BOUNDS,
    DURATION_BUCKETS,
    DURATION_SUM,
    GRPC_CALLS,
    MESH_RESPONSES,
    REQUESTS,
    REQUESTS_5XX,
)

LONGEST: Final = 60
"""Seconds that can be asked about."""
_CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
_FAILED: Final = tuple(status for status in GrpcStatus if http_code(200, status) >= 500)


class Signals(msgspec.Struct, frozen=True):
    """What was counted in the window. Rates are per second, durations in seconds."""

    requests: int
    """That have ended; of gRPC, calls."""
    rate: float
    success: float | None
    """The share of them, 0 to 1, that failed neither with 5xx nor with a gRPC status that stands for one
    (UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS); None without requests."""
    failed: int
    """The others."""
    p50: float | None
    p95: float | None
    p99: float | None
    """Percentiles of the duration, interpolated in the histogram's buckets as Prometheus does; a request of
    more than the last bound counts as that long. None without requests."""
    durations: list[int]
    """The histogram that they are made of: requests by the bounds of `svcmesh_request_duration_seconds`, each
    bound counting its own range only; the last is for all that took longer. From these, and not from
    percentiles, those of several nodes are made."""
    classes: dict[str, int]
    """Requests by class of the status, without those that are 0: `2xx`; `none`: the client left before a
    response."""
    grpc: dict[str, int]
    """Calls by gRPC status, without those that are 0."""
    mesh_responses: int
    """Responses that the mesh made itself."""
    connections: int
    """That clients have opened."""
    received_rate: float
    """Bytes a second from clients."""
    sent_rate: float
    """Bytes a second to clients."""


class Goal(msgspec.Struct, frozen=True):
    """One half of a promise, and what became of it. Shares are from 0 to 1."""

    sli: Literal["availability", "latency"]
    share: float
    """Of the requests, that shall be good."""
    within: float
    """Of `latency`: seconds within which a request is good."""
    got: float | None
    """The share that was good; None: there were no requests."""
    kept: bool


class Promise(msgspec.Struct, frozen=True):
    """What the callers of a port may rely on (`svc.mesh/objective`). Shares are from 0 to 1."""

    available: float
    """The share of requests that shall not fail."""
    within: float = 0.0
    """Seconds, one of the bounds of the histogram; 0: any time will do."""
    fast: float = 0.0
    """The share of requests that shall take no longer than that."""

    def goals(self, signals: Signals) -> list[Goal]:
        """Return what became of each half of it; without requests it is kept."""
        goals = [_goal("availability", self.available, 0.0, signals.failed, signals.requests)]
        if self.within:
            slow = sum(signals.durations[bisect_right(DURATION_BOUNDS, self.within) :])
            goals.append(_goal("latency", self.fast, self.within, slow, sum(signals.durations)))
        return goals

    def kept(self, signals: Signals) -> bool:
        """Return whether these requests were as promised; no requests are."""
        return all(goal.kept for goal in self.goals(signals))


class SourceStats(msgspec.Struct, frozen=True):
    """An edge: what one source has asked of the port."""

    namespace: str
    """Empty for `node`, `unknown` and `other`."""
    workload: str
    """`deployment/web`; `node`: the node itself or a pod on its network; `unknown`: a client that is not
    known; `other`: the sources for which there was no room, together."""
    signals: Signals


class PortStats(msgspec.Struct, frozen=True):
    """A port of a Service that was used in the window."""

    namespace: str
    service: str
    port: int
    signals: Signals
    """Of all sources together."""
    sources: list[SourceStats]
    """The one with most requests first."""
    promise: Promise | None = None
    """None: the port has no objective."""


class NodeStats(msgspec.Struct, frozen=True):
    """What this node's clients have asked. A port or source that was not used in the window is missing."""

    node: str
    window: float
    """Seconds that the numbers are for: less than was asked for while there is no more history."""
    ports: list[PortStats]
    """The one with most requests first."""
    left_out: int
    """Ports and sources that are missing because there were too many at once; 0 but for very busy nodes."""


def signals(counted: Sequence[int], seconds: float) -> Signals:
    """Return what these counts (the columns of an edge) in so many seconds mean."""
    classes = counted[REQUESTS : REQUESTS_5XX + 1]
    calls = counted[GRPC_CALLS : GRPC_CALLS + len(GrpcStatus)]
    requests, failed = count_requests(counted), count_failed(counted)
    buckets = counted[DURATION_BUCKETS:DURATION_SUM]
    return Signals(
        requests=requests,
        rate=requests / seconds,
        success=1 - failed / requests if requests else None,
        failed=failed,
        p50=quantile(buckets, 0.5),
        p95=quantile(buckets, 0.95),
        p99=quantile(buckets, 0.99),
        durations=list(buckets),
        classes={name: number for name, number in zip(_CLASSES, classes, strict=True) if number},
        grpc={status.name: number for status, number in zip(GrpcStatus, calls, strict=True) if number},
        mesh_responses=counted[MESH_RESPONSES],
        connections=counted[CONNECTIONS],
        received_rate=counted[BYTES_RECEIVED] / seconds,
        sent_rate=counted[BYTES_SENT] / seconds,
    )


def _goal(sli: Literal["availability", "latency"], share: float, within: float, bad: int, of: int) -> Goal:
    return Goal(sli, share, within, 1 - bad / of if of else None, _few(bad, of, share))


def _few(bad: int, requests: int, good: float) -> bool:
    """Return whether at least the share `good` of the requests is not bad."""
    return bad <= requests * (1 - good) + 1e-6  # so that one of a thousand is 0.1 %


def count_requests(counted: Sequence[int]) -> int:
    """Return how many requests have ended."""
    return sum(counted[REQUESTS : REQUESTS_5XX + 1])


def count_failed(counted: Sequence[int]) -> int:
    """Return how many of them failed; see `Signals.success`."""
    failed = counted[REQUESTS_5XX] + sum(counted[GRPC_CALLS + status] for status in _FAILED)
    return min(count_requests(counted), failed)


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Return the duration that this share of requests did not exceed, as `histogram_quantile` does."""
    total = sum(buckets)
    if not total:
        return None
    rank = share * total
    for number, reached in enumerate(accumulate(buckets)):
        if reached >= rank and buckets[number]:
            break
    if number >= len(DURATION_BOUNDS):
        return DURATION_BOUNDS[-1]
    lower = DURATION_BOUNDS[number - 1] if number else 0.0
    part = (rank - (reached - buckets[number])) / buckets[number]
    return lower + (DURATION_BOUNDS[number] - lower) * part
