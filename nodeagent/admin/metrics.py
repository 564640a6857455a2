"""Everything that `/metrics` shows: the agent's own state by prometheus_client, the ports by `exposition`.

Reads memory and values only; no worker is asked and nothing waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from nodeagent.admin.exposition import PortExposition
from nodeagent.admin.freshness import Freshness, SnapshotState
from nodeagent.admin.health import HealthState
from nodeagent.plan.counts import count_services
from nodeagent.plan.model import BackendKey, NodePlan
from nodeagent.stats import columns
from nodeagent.stats.columns import WORKER_SLOT, Layout
from nodeagent.stats.region import SlotAllocator, StatsRegion

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class AgentState(msgspec.Struct, frozen=True):
    """The agent at the moment of a scrape. Times are `time.time()`, seconds; 0 means never."""

    plan: NodePlan
    plan_changed: float
    """When this plan was made."""
    source: Freshness
    regions: Sequence[StatsRegion]
    """Of every worker slot, in order, whether its worker lives or not."""
    workers: int
    """Workers that live now."""
    worker_restarts: int
    dns_queries: Mapping[str, int]
    """By result."""
    dns_responses: Mapping[str, int]
    """By transport."""
    snapshot: SnapshotState = SnapshotState()
    log_lines_lost: int = 0
    """By the agent; its workers count for themselves."""
    admin_malformed: int = 0
    """Requests to the admin server that were no HTTP, or broke a limit."""
    tasks: int = 0
    """Of the agent's own loop."""
    health: HealthState = HealthState()


class AgentCollector(Collector):
    """The agent's state as metric families; `state` is called once for each scrape."""

    def __init__(self, state: Callable[[], AgentState], version: str, node: str) -> None:
        self._state = state
        self._version = version
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """Yield the families of the plan, the source, DNS and the workers."""
        state = self._state()
        build = GaugeMetricFamily(
            "svcmesh_build_info", "Which agent this is; always 1.", labels=["version", "node"]
        )
        build.add_metric([self._version, self._node], 1)
        yield build
        yield from _plan_families(state)
        yield from _snapshot_families(state.snapshot)
        yield from _health_families(state.health)
        yield _counter(
            "svcmesh_dns_queries",
            "DNS queries by result; dropped: there was no answer.",
            ["result"],
            (((result,), number) for result, number in state.dns_queries.items()),
        )
        yield _counter(
            "svcmesh_dns_responses",
            "DNS responses by transport.",
            ["transport"],
            (((transport,), number) for transport, number in state.dns_responses.items()),
        )
        yield _counter(
            "svcmesh_admin_malformed_requests",
            "Requests to the admin server that were no HTTP, or broke a limit.",
            [],
            [((), state.admin_malformed)],
        )
        yield from _worker_families(state)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what is collected does not depend on it."""
        return ()


class MetricsPage:
    """The whole page, in pieces of a few milliseconds; one for the life of an agent."""

    def __init__(
        self,
        layout: Layout,
        allocator: SlotAllocator,
        state: Callable[[], AgentState],
        version: str,
        node: str,
    ) -> None:
        self._state = state
        self._ports = PortExposition(layout, allocator)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(AgentCollector(state, version, node))
        ProcessCollector(registry=self._registry)

    def render(self) -> Iterator[bytes]:
        """Yield the page as text of format 0.0.4 (`CONTENT_TYPE`)."""
        yield generate_latest(self._registry)
        state = self._state()
        yield from self._ports.render(state.plan, state.regions)


def _gauge(name: str, text: str, number: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=number)


def _counter(
    name: str, text: str, labels: list[str], numbers: Iterable[tuple[Sequence[str], int]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in numbers:
        family.add_metric(values, number)
    return family


def _plan_families(state: AgentState) -> Iterator[Metric]:
    plan, now = state.plan, time.time()
    yield _gauge("svcmesh_plan_version", "The version of the plan in force.", plan.version)
    yield _gauge(
        "svcmesh_plan_age_seconds",
        "Time since the plan last changed.",
        max(0.0, now - state.plan_changed) if state.plan_changed else 0.0,
    )
    services = count_services(plan)
    yield _gauge("svcmesh_services", "Services in the mesh.", services.meshed)
    yield _gauge(
        "svcmesh_services_left_out",
        "Services that ask for the mesh and cannot be in it; their problems say why.",
        services.left_out,
    )
    yield _gauge(
        "svcmesh_services_with_problems",
        "Services, in the mesh or left out, of which something cannot be used.",
        services.with_problems,
    )
    yield _gauge(
        "svcmesh_problems",
        "Things in the input that cannot be used.",
        len(plan.problems) + sum(len(service.problems) for service in plan.services.values()),
    )
    yield _gauge("svcmesh_source_stale", "1 while the source has lost touch.", int(state.source.stale))
    yield _gauge(
        "svcmesh_source_stale_seconds",
        "How long the source has been out of touch; 0 while it is in touch.",
        state.source.stale_seconds(now),
    )
    yield _gauge(
        "svcmesh_source_last_sync_timestamp_seconds",
        "When the source was last up to date, Unix time; 0: never.",
        state.source.synced,
    )


def _snapshot_families(snapshot: SnapshotState) -> Iterator[Metric]:
    yield _gauge(
        "svcmesh_snapshot_refused",
        "1 if the snapshot on disk was not trusted when the agent started.",
        int(snapshot.refused),
    )
    yield _gauge(
        "svcmesh_snapshot_written_timestamp_seconds",
        "When the snapshot on disk was last written, Unix time; 0: not by this agent.",
        snapshot.written,
    )
    yield _counter(
        "svcmesh_snapshot_write_failures",
        "Attempts to write the snapshot to disk that failed.",
        [],
        [((), snapshot.failures)],
    )


def _health_families(health: HealthState) -> Iterator[Metric]:
    """Yield what health checks have found; of a backend, only if it ever had an unhealthy endpoint."""
    yield _gauge("svcmesh_health_check_endpoints", "Endpoints that are asked how they are.", health.endpoints)
    yield _counter(
        "svcmesh_health_checks",
        "Health checks by result; not_asked: the node could not, which says nothing about the endpoint.",
        ["result"],
        [(("passed",), health.passed), (("failed",), health.failed), (("not_asked",), health.unasked)],
    )
    labels = ["service", "namespace", "port"]
    yield _counter(
        "svcmesh_endpoint_ejections",
        "Times that an endpoint failed its health checks and was taken out of use.",
        labels,
        ((_of_backend(key), number) for key, number in health.ejections.items()),
    )
    unhealthy = GaugeMetricFamily(
        "svcmesh_endpoints_unhealthy",
        "Endpoints that fail their health checks; if these are all, all are used.",
        labels=labels,
    )
    for key in health.ejections.keys() | health.unhealthy.keys():
        unhealthy.add_metric(_of_backend(key), health.unhealthy.get(key, 0))
    yield unhealthy


def _of_backend(key: BackendKey) -> tuple[str, str, str]:
    return (key.service.name, key.service.namespace, str(key.port))


def _worker_families(state: AgentState) -> Iterator[Metric]:
    yield _gauge("svcmesh_agent_tasks", "Tasks of the agent's own loop.", state.tasks)
    yield _gauge("svcmesh_workers", "Workers that are alive.", state.workers)
    restarts = CounterMetricFamily("svcmesh_worker_restarts", "Workers that died and were replaced.")
    restarts.add_metric([], state.worker_restarts)
    yield restarts
    slots = [_worker_numbers(region) for region in state.regions]
    now = time.monotonic_ns()
    version = GaugeMetricFamily(
        "svcmesh_worker_plan_version", "The version of the plan that a worker serves.", labels=["worker"]
    )
    silence = GaugeMetricFamily(
        "svcmesh_worker_heartbeat_age_seconds",
        "Time since a worker last gave a sign of life; it does so every second.",
        labels=["worker"],
    )
    lag = GaugeMetricFamily(
        "svcmesh_worker_loop_lag_seconds", "How late a worker's last heartbeat was.", labels=["worker"]
    )
    for index, numbers in enumerate(slots):
        version.add_metric([str(index)], numbers[columns.WORKER_PLAN_VERSION])
        if numbers[columns.WORKER_HEARTBEAT]:
            silence.add_metric([str(index)], max(0, now - numbers[columns.WORKER_HEARTBEAT]) / 1e9)
        lag.add_metric([str(index)], numbers[columns.WORKER_LOOP_LAG] / 1e6)
    yield from (version, silence, lag)
    yield from _worker_gauges(slots)
    yield from _worker_counters(state, slots)


_WORKER_GAUGES: Sequence[tuple[str, str, int, float]] = (
    ("tasks", "Tasks of a worker's loop.", columns.WORKER_TASKS, 1),
    ("client_connections", "Connections of clients.", columns.WORKER_CLIENTS, 1),
    ("exchanges", "Requests, tunnels and tcp connections under way.", columns.WORKER_EXCHANGES, 1),
    (
        "upstream_connections_active",
        "Connections to endpoints that carry a request, a tunnel or a tcp connection.",
        columns.WORKER_UPSTREAMS_ACTIVE,
        1,
    ),
    (
        "upstream_connections_idle",
        "Connections to endpoints that wait to be used again, or are closing.",
        columns.WORKER_UPSTREAMS_IDLE,
        1,
    ),
    ("requests_waiting", "Requests that wait for a connection to an endpoint.", columns.WORKER_WAITING, 1),
    (
        "connections_paused",
        "Connections from which nothing is read for now: who gets their bytes does not keep up.",
        columns.WORKER_PAUSED,
        1,
    ),
    (
        "longest_pause_seconds",
        "How long the longest of those pauses has lasted.",
        columns.WORKER_LONGEST_PAUSE,
        1e6,
    ),
)
"""What a worker counts once a second: the end of the name, the help, the column, and cells of one unit."""


def _worker_gauges(slots: list[list[int]]) -> Iterator[Metric]:
    for name, text, column, unit in _WORKER_GAUGES:
        family = GaugeMetricFamily(f"svcmesh_worker_{name}", text, labels=["worker"])
        for index, numbers in enumerate(slots):
            family.add_metric([str(index)], numbers[column] / unit)
        yield family


def _worker_counters(state: AgentState, slots: list[list[int]]) -> Iterator[Metric]:
    def total(column: int) -> int:
        return sum(numbers[column] for numbers in slots)

    known = state.regions[0].layout.malformed if state.regions else {}
    malformed = {reason: total(column) for reason, column in known.items()}
    malformed["head_timeout"] = total(columns.WORKER_HEAD_TIMEOUTS)  # whether the codec lists it or not
    malformed["other"] = total(columns.WORKER_MALFORMED)
    yield _counter(
        "svcmesh_malformed_requests",
        "Requests that were refused because they break HTTP/1.1 or a limit, by reason.",
        ["reason"],
        (((reason,), number) for reason, number in malformed.items()),
    )
    yield _counter(
        "svcmesh_connections_refused",
        "Connections that the mesh closed: no route, too many of a source or in all, too much memory.",
        ["reason"],
        [
            (("no_route",), total(columns.WORKER_REFUSED_NO_ROUTE)),
            (("limit",), total(columns.WORKER_REFUSED_LIMIT)),
            (("full",), total(columns.WORKER_REFUSED_FULL)),
            (("memory",), total(columns.WORKER_REFUSED_MEMORY)),
        ],
    )
    yield _counter(
        "svcmesh_log_lines_lost",
        "Lines of the log that could not be written, by process.",
        ["process"],
        [
            (("agent",), state.log_lines_lost),
            (("workers",), total(columns.WORKER_LOG_LINES_LOST)),
        ],
    )
    yield _counter(
        "svcmesh_access_log_dropped",
        "Lines of the access log that are missing: over the budget of their port, or the log was not read.",
        ["reason"],
        [
            (("budget",), total(columns.WORKER_ACCESS_BUDGET)),
            (("slow_reader",), total(columns.WORKER_ACCESS_SLOW)),
        ],
    )
    yield _counter(
        "svcmesh_shared_locks_forgone",
        "Locks on numbers shared by workers that one held too long, so that the others went on without.",
        [],
        [((), total(columns.WORKER_LOCKS_FORGONE))],
    )


def _worker_numbers(region: StatsRegion) -> list[int]:
    base = region.layout.base(WORKER_SLOT)
    return region.cells[base : base + region.layout.slot_columns].tolist()
