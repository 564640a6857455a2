"""Everything that `/metrics` shows: the agent's own state by prometheus_client, the ports by `exposition`.

Reads memory and values only; no worker is asked and nothing waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nodeagent.admin import own_families
from nodeagent.admin.exposition import Facts, PortExposition
from nodeagent.admin.family import Family
from nodeagent.admin.formats import PLAIN, TextFormat
from nodeagent.admin.freshness import Freshness, SnapshotState
from nodeagent.admin.health import HealthState
from nodeagent.admin.traces import TraceState
from nodeagent.plan.counts import count_problems, count_services
from nodeagent.plan.model import BackendKey, NodePlan
from nodeagent.settings import MOST_SERIES
from nodeagent.stats import columns
from nodeagent.stats.columns import WORKER_SLOT, Layout
from nodeagent.stats.exemplars import Exemplars
from nodeagent.stats.region import SlotAllocator, StatsRegion
from nodeagent.stats.tallies import Tallies


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
    ready: bool = False
    """Whether `/readyz` says that the mesh is served."""
    health: HealthState = HealthState()
    traces: TraceState | None = None
    """None: the agent has no collector."""
    ejected: Mapping[BackendKey, int] = {}
    """Endpoints that outlier detection has ejected, by backend."""
    unusable: Mapping[BackendKey, int] = {}
    """Endpoints that are ejected, unhealthy, or both, by backend."""


class AgentCollector(Collector):
    """The agent's state as metric families; `state` is called once for each scrape."""

    def __init__(self, state: Callable[[], AgentState], version: str, node: str) -> None:
        self._state = state
        self._version = version
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """Yield the families of the plan, the source, DNS and the workers."""
        state = self._state()
        yield _family(own_families.BUILD_INFO, [((self._version, self._node), 1)])
        yield _family(own_families.READY, _one(int(state.ready)))
        yield from _plan_families(state)
        yield from _snapshot_families(state.snapshot)
        yield from _health_families(state.health)
        if state.traces is not None:
            yield from _trace_families(state.traces)
        yield _family(own_families.DNS_QUERIES, _by_label(state.dns_queries))
        yield _family(own_families.DNS_RESPONSES, _by_label(state.dns_responses))
        yield _family(own_families.ADMIN_MALFORMED_REQUESTS, _one(state.admin_malformed))
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
        most_series: int = MOST_SERIES,
        tallies: Tallies | None = None,
        now: Callable[[], float] = time.monotonic,
        exemplars: Exemplars | None = None,
    ) -> None:
        self._state = state
        tallies = tallies or Tallies(layout, allocator)
        self._ports = PortExposition(layout, allocator, tallies, most_series, now, exemplars)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(AgentCollector(state, version, node))
        ProcessCollector(registry=self._registry)

    def render(self, form: TextFormat = PLAIN) -> Iterator[bytes]:
        """Yield the page in this format."""
        own = form.write(self._registry).removesuffix(form.end)
        yield own
        state = self._state()
        facts = Facts(state.health.unhealthy, state.ejected, state.unusable, state.health.ejections)
        already = own.count(b"\n") - own.count(b"\n#") - own.startswith(b"#")
        yield from self._ports.render(state.plan, state.regions, facts, already, form)
        yield form.end


Samples = Iterable[tuple[Sequence[str], float]]
"""The values of the labels, in the order of the declaration, and the number."""


def _family(declared: Family, samples: Samples) -> Metric:
    make = CounterMetricFamily if declared.kind == "counter" else GaugeMetricFamily
    family = make(declared.name, declared.help, labels=declared.labels, unit=declared.unit)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _one(number: float) -> Samples:
    return [((), number)]


def _by_label(numbers: Mapping[str, float]) -> Samples:
    return [((value,), number) for value, number in numbers.items()]


def _plan_families(state: AgentState) -> Iterator[Metric]:
    plan, source, now = state.plan, state.source, time.time()
    age = max(0.0, now - state.plan_changed) if state.plan_changed else 0.0
    services = count_services(plan)
    yield _family(own_families.PLAN_VERSION, _one(plan.version))
    yield _family(own_families.PLAN_AGE, _one(age))
    yield _family(own_families.SERVICES, _one(services.meshed))
    yield _family(own_families.SERVICES_LEFT_OUT, _one(services.left_out))
    yield _family(own_families.SERVICES_WITH_PROBLEMS, _one(services.with_problems))
    yield _family(own_families.PROBLEMS, _one(count_problems(plan)))
    yield _family(own_families.SOURCE_STALE, _one(int(source.stale)))
    yield _family(own_families.SOURCE_STALE_SECONDS, _one(source.stale_seconds(now)))
    yield _family(own_families.SOURCE_LAST_SYNC, _one(source.synced))


def _snapshot_families(snapshot: SnapshotState) -> Iterator[Metric]:
    yield _family(own_families.SNAPSHOT_REFUSED, _one(int(snapshot.refused)))
    yield _family(own_families.SNAPSHOT_WRITTEN, _one(snapshot.written))
    yield _family(own_families.SNAPSHOT_WRITE_FAILURES, _one(snapshot.failures))


def _health_families(health: HealthState) -> Iterator[Metric]:
    """Yield how many health checks there were."""
    results = {"passed": health.passed, "failed": health.failed, "not_asked": health.unasked}
    yield _family(own_families.HEALTH_CHECK_ENDPOINTS, _one(health.endpoints))
    yield _family(own_families.HEALTH_CHECKS, _by_label(results))


def _trace_families(traces: TraceState) -> Iterator[Metric]:
    yield _family(own_families.TRACE_SPANS_SENT, _one(traces.sent))
    yield _family(own_families.TRACE_SPANS_REJECTED, _one(traces.rejected))
    yield _family(own_families.TRACED_REQUESTS_WAITING, _one(traces.waiting))
    yield _family(own_families.TRACED_REQUESTS_DROPPED, _by_label(traces.dropped))


def _worker_families(state: AgentState) -> Iterator[Metric]:
    yield _family(own_families.AGENT_TASKS, _one(state.tasks))
    yield _family(own_families.WORKERS, _one(state.workers))
    yield _family(own_families.WORKER_RESTARTS, _one(state.worker_restarts))
    slots = [_worker_numbers(region) for region in state.regions]
    now = time.monotonic_ns()
    beats = [(str(index), numbers[columns.WORKER_HEARTBEAT]) for index, numbers in enumerate(slots)]
    yield _of_workers(own_families.WORKER_PLAN_VERSION, slots, columns.WORKER_PLAN_VERSION)
    yield _family(
        own_families.WORKER_HEARTBEAT_AGE,
        [((worker,), max(0, now - beat) / 1e9) for worker, beat in beats if beat],
    )
    yield _of_workers(own_families.WORKER_LOOP_LAG, slots, columns.WORKER_LOOP_LAG, 1e6)
    for gauge in own_families.WORKER_GAUGES:
        yield _of_workers(gauge.family, slots, gauge.column, gauge.unit)
    yield from _worker_counters(state, slots)


def _of_workers(declared: Family, slots: list[list[int]], column: int, unit: float = 1) -> Metric:
    return _family(declared, [((str(index),), numbers[column] / unit) for index, numbers in enumerate(slots)])


def _worker_counters(state: AgentState, slots: list[list[int]]) -> Iterator[Metric]:
    def total(column: int) -> int:
        return sum(numbers[column] for numbers in slots)

    known = state.regions[0].layout.malformed if state.regions else {}
    malformed = {reason: total(column) for reason, column in known.items()}
    malformed["head_timeout"] = total(columns.WORKER_HEAD_TIMEOUTS)  # whether the codec lists it or not
    malformed["other"] = total(columns.WORKER_MALFORMED)
    refused = {
        "no_route": total(columns.WORKER_REFUSED_NO_ROUTE),
        "limit": total(columns.WORKER_REFUSED_LIMIT),
        "full": total(columns.WORKER_REFUSED_FULL),
        "memory": total(columns.WORKER_REFUSED_MEMORY),
    }
    shed = total(columns.WORKER_REQUESTS_SHED)
    lost = {"agent": state.log_lines_lost, "workers": total(columns.WORKER_LOG_LINES_LOST)}
    dropped = {
        "budget": total(columns.WORKER_ACCESS_BUDGET),
        "slow_reader": total(columns.WORKER_ACCESS_SLOW),
    }
    yield _family(own_families.MALFORMED_REQUESTS, _by_label(malformed))
    yield _family(own_families.CONNECTIONS_REFUSED, _by_label(refused))
    yield _family(own_families.REQUESTS_SHED, _one(shed))
    yield _family(own_families.LOG_LINES_LOST, _by_label(lost))
    yield _family(own_families.ACCESS_LOG_DROPPED, _by_label(dropped))
    yield _family(own_families.SHARED_LOCKS_FORGONE, _one(total(columns.WORKER_LOCKS_FORGONE)))


def _worker_numbers(region: StatsRegion) -> list[int]:
    base = region.layout.base(WORKER_SLOT)
    return region.cells[base : base + region.layout.slot_columns].tolist()
