"""What the caches of all nodes do, as `meshctl cache stat` shows it: from agents' metrics to rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from nodeagent.meshctl.said import answered_line, count_answered, why_line
from nodeagent.meshctl.table import Table

PREFIX: Final = "svcmesh_cache_"
COUNTERS: Final = ("hits", "stale", "misses", "collapsed", "stored", "evicted", "purged")
GAUGE: Final = "bytes"
COLUMNS: Final = ("SERVICE", "PORT", "NODES", "HIT-RATE", *(name.upper() for name in COUNTERS), "BYTES")


class CacheCounts(msgspec.Struct, frozen=True):
    """The counts of one port's caches, on one node or on several."""

    namespace: str
    service: str
    port: int
    nodes: int = 1
    hits: int = 0
    stale: int = 0
    misses: int = 0
    collapsed: int = 0
    stored: int = 0
    evicted: int = 0
    purged: int = 0
    bytes: int = 0
    """Of the worker that has most, on the node that has most."""

    @property
    def hit_rate(self) -> float | None:
        """The part of requests that were answered without asking an endpoint; None without any."""
        answered = self.hits + self.stale + self.collapsed
        return answered / (answered + self.misses) if answered + self.misses else None


class AgentCaches(msgspec.Struct, frozen=True):
    """What one agent says of its caches, or why it does not."""

    node: str
    pod: str
    namespace: str
    caches: tuple[CacheCounts, ...] = ()
    reason: str = ""


def read_counts(metrics: str) -> tuple[CacheCounts, ...]:
    """Return what a page of metrics says of caches.

    Raises:
        ValueError: it is no page of an agent.
    """
    lines = [line for line in metrics.splitlines() if line.startswith(PREFIX)]
    if not lines and "svcmesh_build_info" not in metrics:
        raise ValueError("no svc.mesh agent answers there")
    found: dict[tuple[str, str, int], dict[str, int]] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            name = sample.name.removeprefix(PREFIX).removesuffix("_total")
            port = sample.labels.get("port", "")
            if name not in (*COUNTERS, GAUGE) or not port.isdecimal():
                continue  # ports beyond those that have counters of their own
            key = (sample.labels.get("namespace", ""), sample.labels.get("service", ""), int(port))
            found.setdefault(key, {})[name] = int(sample.value)
    return tuple(
        msgspec.structs.replace(CacheCounts(*key), **numbers) for key, numbers in sorted(found.items())
    )


def merge_counts(agents: Iterable[AgentCaches]) -> tuple[CacheCounts, ...]:
    """Return the counts of each port over all nodes."""
    merged: dict[tuple[str, str, int], CacheCounts] = {}
    for one in (one for agent in agents for one in agent.caches):
        key = (one.namespace, one.service, one.port)
        known = merged.get(key)
        if known is not None:
            sums = {name: getattr(known, name) + getattr(one, name) for name in ("nodes", *COUNTERS)}
            one = msgspec.structs.replace(known, bytes=max(known.bytes, one.bytes), **sums)
        merged[key] = one
    return tuple(merged[key] for key in sorted(merged))


def stat_lines(agents: Sequence[AgentCaches]) -> Iterator[str | Table]:
    """Yield a table, why agents have not answered, and a summary."""
    counts = merge_counts(agents)
    if counts:
        yield Table(COLUMNS, [*map(_row, counts)])
    for agent in agents:
        if agent.reason:
            yield why_line(agent.node, agent.pod, agent.reason)
    ports = f"{len(counts)} port{'' if len(counts) == 1 else 's'} with a cache"
    yield f"{ports}; {answered_line(agents)}"


def _row(one: CacheCounts) -> tuple[str, ...]:
    rate = "-" if one.hit_rate is None else f"{one.hit_rate:.1%}"
    numbers = (str(getattr(one, name)) for name in (*COUNTERS, GAUGE))
    return (f"{one.service}.{one.namespace}", str(one.port), str(one.nodes), rate, *numbers)


def stat_document(agents: Sequence[AgentCaches]) -> dict[str, Any]:
    """Return the same as values that JSON can hold, with each agent's own counts."""
    return {
        "caches": [{**msgspec.to_builtins(one), "hit_rate": one.hit_rate} for one in merge_counts(agents)],
        "agents": [msgspec.to_builtins(agent) for agent in agents],
        "total": len(agents),
        "answered": count_answered(agents),
    }
