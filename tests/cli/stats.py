"""Stats of nodes, as agents would tell them, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Mapping

from nodeagent.stats.columns import (
    DURATION_BOUNDS,
    DURATION_BUCKETS,
    EDGE_COLUMNS,
    REQUESTS_2XX,
    REQUESTS_5XX,
)
from nodeagent.stats.identity import workload_of
from nodeagent.stats.overview import sum_signals
from nodeagent.stats.signals import NodeStats, PortStats, Signals, SourceStats, signals

Asked = Mapping[str, Mapping[str, Signals]]
"""By `namespace/service:port`, then by `namespace/workload`."""


def counted(good: int = 0, bad: int = 0, seconds: float = 10.0, bucket: int = 4) -> Signals:
    """Requests that all took as long as this bucket of the histogram says."""
    columns = [0] * EDGE_COLUMNS
    columns[REQUESTS_2XX], columns[REQUESTS_5XX] = good, bad
    columns[DURATION_BUCKETS + bucket] = good + bad
    assert bucket <= len(DURATION_BOUNDS)
    return signals(columns, seconds)


def node_stats(node: str, asked: Asked, left_out: int = 0, window: float = 10.0) -> NodeStats:
    """What a node tells of these."""
    ports = []
    for key, sources in asked.items():
        service, _, port = key.rpartition(":")
        namespace, _, name = service.partition("/")
        ports.append(
            PortStats(
                namespace,
                name,
                int(port),
                sum_signals(list(sources.values())),
                [SourceStats(*workload_of(source), each) for source, each in sources.items()],
            )
        )
    return NodeStats(node, window, ports, left_out)
