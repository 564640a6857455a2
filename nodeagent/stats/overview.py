"""What several nodes, or one, have counted, as one table of services and one list of who calls whom. Pure.

Rates and counts are sums. Percentiles are made from the sum of the histograms: a mean of percentiles says
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from nodeagent.stats.signals import Goal, NodeStats, Promise, Signals, quantile

_TAIL: Final = {
    "deployment": re.compile(r"-[a-z0-9]{1,10}-[a-z0-9]{5}"),
    "statefulset": re.compile(r"-[0-9]+"),
}
"""What a pod's name has after that of its workload, by kind of the workload; for all others `_SUFFIX`."""
_SUFFIX: Final = re.compile(r"(-[0-9]+)?-[a-z0-9]{5}")


class ServiceName(NamedTuple):
    """A Service."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.name}.{self.namespace}"


Pods = Mapping[ServiceName, Sequence[str]]
"""The pods that are endpoints of Services."""


class PortObjective(msgspec.Struct, frozen=True):
    """What `svc.mesh/objective` promises for a port, and what became of it."""

    port: int
    goals: list[Goal]


class ServiceRow(msgspec.Struct, frozen=True):
    """All ports of a Service together."""

    namespace: str
    service: str
    ports: list[int]
    """That were used."""
    nodes: int
    """Whose clients asked it."""
    signals: Signals
    objective: Literal["met", "missed", ""] = ""
    """Whether the requests of each port were as `svc.mesh/objective` promises; empty: no port that was used
    has one."""
    objectives: list[PortObjective] = []
    """Of each port that was used and has one."""


class Edge(msgspec.Struct, frozen=True):
    """What one source has asked of a Service."""

    source_namespace: str
    source: str
    """A workload such as `deployment/web`, or `node`, `unknown`, `other`."""
    source_service: str
    """The Service, of the same namespace, that the source's pods are endpoints of; empty if there is none, or
    if it is not known."""
    namespace: str
    service: str
    signals: Signals


class Overview(msgspec.Struct, frozen=True):
    """What was asked on all nodes that have answered."""

    window: float
    """Seconds that the numbers are for: of the node that has the longest history."""
    services: list[ServiceRow]
    """By name."""
    edges: list[Edge]
    """By names."""
    left_out: int
    """Ports and sources that the nodes had no room for."""


class AgentSaid(msgspec.Struct, frozen=True):
    """Whether an agent has answered."""

    node: str
    agent: str
    """Its pod, or its address."""
    reason: str = ""
    """Why it has not; empty: it has."""


class Live(msgspec.Struct, frozen=True):
    """The last seconds of all agents that have answered."""

    overview: Overview
    agents: tuple[AgentSaid, ...]

    @property
    def complete(self) -> bool:
        """Whether there are agents, and all have answered."""
        return bool(self.agents) and not any(agent.reason for agent in self.agents)


class Backing:
    """Which Service a source belongs to, by the names of the pods that are endpoints of Services."""

    def __init__(self, pods: Pods) -> None:
        self._named: dict[tuple[str, str], list[tuple[str, str]]] = {}
        """Service and pod, by namespace and each name that the pod's workload may have."""
        for service, names in pods.items():
            for pod in names:
                for workload in _may_make(pod):
                    self._named.setdefault((service.namespace, workload), []).append((service.name, pod))

    def service_of(self, namespace: str, workload: str) -> str:
        """Return the Service whose endpoints the pods of `deployment/web` are; empty if there is none.

        If there are several, it is the one with the workload's own name, or else the first one by name.
        """
        own = workload.partition("/")[2]
        named = self._named.get((namespace, own), ())
        backed = {service for service, pod in named if makes_pod(workload, pod)}
        return own if own in backed else min(backed, default="")


def merge_nodes(nodes: Sequence[NodeStats], backing: Backing | None = None) -> Overview:
    """Return the stats of all nodes together."""
    services: dict[ServiceName, list[Signals]] = {}
    ports: dict[ServiceName, set[int]] = {}
    asked_on: dict[ServiceName, set[str]] = {}
    edges: dict[tuple[tuple[str, str], ServiceName], list[Signals]] = {}
    promised: dict[ServiceName, dict[int, Promise]] = {}
    of_ports: dict[tuple[ServiceName, int], list[Signals]] = {}
    for node in nodes:
        for port in node.ports:
            name = ServiceName(port.namespace, port.service)
            services.setdefault(name, []).append(port.signals)
            ports.setdefault(name, set()).add(port.port)
            asked_on.setdefault(name, set()).add(node.node)
            of_ports.setdefault((name, port.port), []).append(port.signals)
            if port.promise is not None:
                promised.setdefault(name, {}).setdefault(port.port, port.promise)
            for source in port.sources:
                edges.setdefault(((source.namespace, source.workload), name), []).append(source.signals)
    backing = backing or Backing({})
    objectives = {
        name: [
            PortObjective(port, promise.goals(sum_signals(of_ports[name, port])))
            for port, promise in sorted(promises.items())
        ]
        for name, promises in promised.items()
    }
    return Overview(
        window=max((node.window for node in nodes), default=0.0),
        services=[
            ServiceRow(
                *name,
                sorted(ports[name]),
                nodes=len(asked_on[name]),
                signals=sum_signals(services[name]),
                objective=_judge(objectives.get(name, [])),
                objectives=objectives.get(name, []),
            )
            for name in sorted(services)
        ],
        edges=[
            Edge(*source, backing.service_of(*source), *name, signals=sum_signals(edges[source, name]))
            for source, name in sorted(edges)
        ],
        left_out=sum(node.left_out for node in nodes),
    )


def _judge(objectives: Sequence[PortObjective]) -> Literal["met", "missed", ""]:
    """Return whether every port with an objective has kept it."""
    if not objectives:
        return ""
    return "met" if all(goal.kept for one in objectives for goal in one.goals) else "missed"


def sum_signals(parts: Sequence[Signals]) -> Signals:
    """Return what these are together."""
    requests, failed = sum(part.requests for part in parts), sum(part.failed for part in parts)
    durations = [sum(column) for column in zip(*(part.durations for part in parts), strict=True)]
    return Signals(
        requests=requests,
        rate=sum(part.rate for part in parts),
        success=1 - failed / requests if requests else None,
        failed=failed,
        p50=quantile(durations, 0.5),
        p95=quantile(durations, 0.95),
        p99=quantile(durations, 0.99),
        durations=durations,
        classes=_sum_counts(part.classes for part in parts),
        grpc=_sum_counts(part.grpc for part in parts),
        mesh_responses=sum(part.mesh_responses for part in parts),
        connections=sum(part.connections for part in parts),
        received_rate=sum(part.received_rate for part in parts),
        sent_rate=sum(part.sent_rate for part in parts),
    )


def _sum_counts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total


def makes_pod(workload: str, pod: str) -> bool:
    """Return whether a pod of this name is one that the workload (`deployment/web`) makes."""
    kind, _, name = workload.partition("/")
    if not name or not pod.startswith(name):
        return False
    if kind == "pod":
        return pod == name
    return _TAIL.get(kind, _SUFFIX).fullmatch(pod, len(name)) is not None


def _may_make(pod: str) -> Iterator[str]:
    """Yield the names that what made a pod may have: its own without up to three of its last parts."""
    for _ in range(4):
        if not pod:
            return
        yield pod
        pod = pod.rpartition("-")[0]


def _plain(signals: Signals) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(signals)
    del document["durations"]  # what percentiles are made of
    return document


def _row_document(row: ServiceRow | Edge) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(row)
    return {**document, "signals": _plain(row.signals)}


def live_document(live: Live, *parts: Literal["services", "edges"]) -> dict[str, Any]:
    """Return these parts of what agents say as values that JSON can hold."""
    return {
        "window": live.overview.window,
        **{part: [_row_document(row) for row in getattr(live.overview, part)] for part in parts},
        "left_out": live.overview.left_out,
        "agents": [msgspec.to_builtins(agent) for agent in live.agents],
        "total": len(live.agents),
        "answered": sum(not agent.reason for agent in live.agents),
    }
