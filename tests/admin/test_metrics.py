from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import pytest
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from discovery.model import Endpoint, Problem, Service, ServiceKey, ServiceObject
from middleware.contract import Metric, Middleware
from middleware.grpc import GrpcStatus
from middleware.registry import MIDDLEWARES
from nodeagent.admin.exposition import PIECE_LINES, PIECE_PORTS
from nodeagent.admin.families import port_families
from nodeagent.admin.family import SOURCE_LABELS
from nodeagent.admin.freshness import Freshness
from nodeagent.admin.health import HealthState
from nodeagent.admin.metrics import AgentState, MetricsPage
from nodeagent.plan.model import BackendKey, BackendSpec, LayerSpec, Listener, NodePlan, ServicePlan
from nodeagent.settings import MOST_SERIES
from nodeagent.stats import columns
from nodeagent.stats.columns import OVERFLOW_SLOT, REFUSALS, WORKER_SLOT, Layout
from nodeagent.stats.methods import MethodRows
from nodeagent.stats.region import SlotAllocator, StatsRegion

RETRIES = Metric("svcmesh_retries", "Requests sent again.")
OPEN = Metric("svcmesh_circuit_breaker_open", "1 while the breaker is open.", "gauge")


def middleware(name: str, metric: Metric) -> Middleware:
    build: Callable[..., Any] = lambda _options, _context: lambda handler: handler  # noqa: E731
    return Middleware(
        name=name,
        annotations=(),
        options=msgspec.Struct,
        parse=lambda _: None,
        build=build,
        metrics=(metric,),
    )


LAYOUT = Layout([middleware("retry", RETRIES), middleware("circuit-breaker", OPEN)], REFUSALS)


def service_plan(name: str, port: int, *layers: str, problems: int = 0) -> ServicePlan:
    key = ServiceKey("default", name)
    specs = tuple(LayerSpec(layer, None) for layer in layers)
    return ServicePlan(
        source=Service(ServiceObject(key, {}), {}),
        address="10.0.0.1",
        listeners=(Listener(key, "web", "10.0.0.1", port, port, "http", (), specs),),
        backends=(),
        effective={},
        problems=(Problem("default", name, "f", "v", "r"),) * problems,
    )


NO_SOURCE = {"source_namespace": "", "source_workload": "other"}
"""What is counted in no row of a source."""


def without_source(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name not in SOURCE_LABELS}


class Node:
    """An agent's memory with two workers, and the page it shows."""

    def __init__(
        self,
        *services: ServicePlan,
        slots: int = 64,
        layout: Layout = LAYOUT,
        most_series: int = MOST_SERIES,
    ) -> None:
        self.layout = layout
        self.plan = NodePlan(7, {service.source.key: service for service in services})
        self.regions = [StatsRegion.create(layout, slots=slots) for _ in range(2)]
        self.allocator = SlotAllocator(slots=slots)
        self.allocator.assign({(one.service, one.port) for one in self.plan.listeners()}, (), self.regions, 0)
        self.time = 1000.0
        self.unusable: dict[BackendKey, int] = {}
        self.unhealthy: dict[BackendKey, int] = {}
        self.page = MetricsPage(
            layout, self.allocator, self.state, "1.2.3", 'no"de', most_series, now=lambda: self.time
        )

    def state(self) -> AgentState:
        return AgentState(
            plan=self.plan,
            plan_changed=1.0,
            source=Freshness(1_700_000_100.0, "no answer", 1_700_000_000.0),
            regions=self.regions,
            workers=2,
            worker_restarts=3,
            dns_queries={"noerror": 11, "nxdomain": 2},
            dns_responses={"udp": 11, "tcp": 2},
            tasks=9,
            ready=True,
            unusable=self.unusable,
            health=HealthState(unhealthy=self.unhealthy),
        )

    def write(self, worker: int, name: str, column: int, number: int, port: int = 80) -> None:
        slot = self.allocator.slots[ServiceKey("default", name), port]
        self.regions[worker].cells[self.layout.base(slot) + column] = number

    def close(self) -> None:
        for region in self.regions:
            region.close()

    def text(self) -> str:
        return b"".join(self.page.render()).decode()

    def families(self) -> dict[str, Family]:
        return {family.name: family for family in text_string_to_metric_families(self.text())}

    def value(self, name: str, **labels: str) -> float | None:
        """The value of a sample, None if there is none."""
        for family in self.families().values():
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return None

    def of_port(self, name: str, **labels: str) -> float | None:
        """The value of this port, summed over sources; None if there is none."""
        wanted = {"service": "web", "namespace": "default", "port": "80", **labels}
        found = [
            sample.value
            for family in self.families().values()
            for sample in family.samples
            if sample.name == name and without_source(sample.labels) == wanted
        ]
        return sum(found) if found else None


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node(service_plan("web", 80), service_plan("api", 8080, "retry", "circuit-breaker", problems=2))
    yield made
    made.close()


def test_a_scrape_merges_the_workers(node: Node) -> None:
    node.write(0, "web", columns.REQUESTS_2XX, 5)
    node.write(1, "web", columns.REQUESTS_2XX, 6)
    node.write(1, "web", columns.REQUESTS_5XX, 1)
    node.write(0, "web", columns.CONNECTIONS, 3)
    node.write(0, "web", columns.CONNECTIONS_ACTIVE, 1)
    node.write(1, "web", columns.CONNECTIONS_ACTIVE, 1)
    node.write(1, "web", columns.UPSTREAM_STALLED, 4)
    node.write(1, "web", columns.BYTES_SENT, 2**53 + 1)
    assert node.of_port("svcmesh_requests_total", code_class="2xx") == 11
    assert node.of_port("svcmesh_requests_total", code_class="5xx") == 1
    assert node.of_port("svcmesh_requests_total", code_class="4xx") == 0, "so that rate() sees the first one"
    assert node.of_port("svcmesh_requests_total", code_class="none") is None
    assert node.of_port("svcmesh_mesh_responses_total") == 0
    assert node.of_port("svcmesh_connections_total") == 3
    assert node.of_port("svcmesh_connections_active") == 2
    assert node.of_port("svcmesh_upstream_errors_total", reason="stalled") == 4
    assert node.of_port("svcmesh_upstream_errors_total", reason="reset") is None
    exact = (
        'svcmesh_response_bytes_total{service="web",namespace="default",port="80",'
        f'source_namespace="",source_workload="other"}} {2**53 + 1}'
    )
    assert exact in node.text().splitlines()


def test_calls_of_grpc_by_their_status(node: Node) -> None:
    node.write(0, "web", columns.GRPC_CALLS + GrpcStatus.NOT_FOUND, 5)
    node.write(1, "web", columns.GRPC_CALLS + GrpcStatus.NOT_FOUND, 6)
    node.write(0, "api", columns.REQUESTS_2XX, 1, 8080)
    assert node.of_port("svcmesh_grpc_calls_total", grpc_status="NOT_FOUND") == 11
    assert node.of_port("svcmesh_grpc_calls_total", grpc_status="UNAVAILABLE") == 0, "for rate()"
    assert node.of_port("svcmesh_grpc_calls_total", grpc_status="ABORTED") is None
    calls = node.families()["svcmesh_grpc_calls"]
    assert {sample.labels["service"] for sample in calls.samples} == {"web"}, "others have no line"


def test_calls_of_grpc_by_method(node: Node) -> None:
    for worker, status in ((0, GrpcStatus.OK), (1, GrpcStatus.OK), (1, GrpcStatus.ABORTED)):
        methods = MethodRows(node.regions[worker].methods)
        methods.of_port("default/web", 80).count(b"/shop.Cart/Add", status, True)
        methods.of_port("default/gone", 80).count(b"/shop.Cart/Add", status, True)
    node.write(0, "web", columns.GRPC_CALLS, 3)
    name = "svcmesh_grpc_method_calls_total"
    assert node.of_port(name, method="shop.Cart/Add", grpc_status="OK") == 2
    assert node.of_port(name, method="shop.Cart/Add", grpc_status="ABORTED") == 1
    assert len(node.families()["svcmesh_grpc_method_calls"].samples) == 2, "none of a port outside the plan"


def test_buckets_become_cumulative(node: Node) -> None:
    node.write(0, "web", columns.DURATION_BUCKETS, 2)
    node.write(1, "web", columns.DURATION_BUCKETS + 1, 3)
    node.write(1, "web", columns.DURATION_SUM - 1, 4)
    node.write(0, "web", columns.DURATION_SUM, 1_500_000)
    name = "svcmesh_request_duration_seconds"
    assert node.of_port(f"{name}_bucket", le="0.0005") == 2
    assert node.of_port(f"{name}_bucket", le="0.001") == 5
    assert node.of_port(f"{name}_bucket", le="10.0") == 5
    assert node.of_port(f"{name}_bucket", le="+Inf") == 9
    assert node.of_port(f"{name}_count") == 9
    assert node.of_port(f"{name}_sum") == 1.5


def test_an_idle_port_costs_no_line_and_a_busy_one_shows_its_middleware_at_zero(node: Node) -> None:
    text = node.text()
    assert 'service="web"' not in text
    assert 'service="api"' not in text
    node.write(0, "api", columns.REQUESTS_2XX, 1, 8080)
    text = node.text()
    labels = 'service="api",namespace="default",port="8080"'
    assert f"svcmesh_retries_total{{{labels}}} 0" in text.splitlines()
    assert f"svcmesh_circuit_breaker_open{{{labels}}} 0" in text.splitlines()
    node.write(0, "web", columns.REQUESTS_2XX, 1)
    assert 'svcmesh_retries_total{service="web"' not in node.text(), "it does not use it"


def test_of_middleware_counters_the_sum_and_of_gauges_the_greatest(node: Node) -> None:
    for worker, number in ((0, 1), (1, 2)):
        node.write(worker, "api", LAYOUT.column(RETRIES), number, 8080)
        node.write(worker, "api", LAYOUT.column(OPEN), number, 8080)
    labels = {"service": "api", "namespace": "default", "port": "8080"}
    assert node.value("svcmesh_retries_total", **labels) == 3
    assert node.value("svcmesh_circuit_breaker_open", **labels) == 2


def test_a_port_that_left_the_plan_is_not_shown(node: Node) -> None:
    node.write(0, "web", columns.REQUESTS_2XX, 5)
    assert node.of_port("svcmesh_requests_total", code_class="2xx") == 5
    node.plan = NodePlan(8, {})
    assert node.of_port("svcmesh_requests_total", code_class="2xx") is None


def test_a_scrape_between_a_plan_and_its_slots_is_soon_forgotten(node: Node) -> None:
    new = service_plan("new", 80)
    node.plan = NodePlan(8, {new.source.key: new})
    assert 'service="new"' not in node.text()
    node.allocator.assign({(new.source.key, 80)}, (), node.regions, 1)
    node.write(0, "new", columns.REQUESTS_2XX, 5)
    labels = {"service": "new", "namespace": "default", "port": "80", **NO_SOURCE}
    assert node.value("svcmesh_requests_total", code_class="2xx", **labels) == 5


def test_what_found_no_slot_is_shown_as_other(node: Node) -> None:
    node.regions[0].cells[LAYOUT.base(OVERFLOW_SLOT) + columns.REQUESTS_2XX] = 5
    other = {"service": "other", "namespace": "", "port": "", **NO_SOURCE}
    assert node.value("svcmesh_requests_total", code_class="2xx", **other) == 5


def test_names_from_the_input_cannot_break_the_text() -> None:
    node = Node(service_plan('we"b\\\n', 80))
    node.write(0, 'we"b\\\n', columns.REQUESTS_2XX, 5)
    labels = {"service": 'we"b\\\n', "namespace": "default", "port": "80", **NO_SOURCE}
    assert node.value("svcmesh_requests_total", code_class="2xx", **labels) == 5
    node.close()


def test_the_agents_own_state(node: Node) -> None:
    assert node.value("svcmesh_build_info", version="1.2.3", node='no"de') == 1
    assert node.value("svcmesh_ready") == 1
    assert node.value("svcmesh_plan_version") == 7
    assert (node.value("svcmesh_plan_age_seconds") or 0) > 1_000_000
    assert node.value("svcmesh_services") == 2
    assert node.value("svcmesh_problems") == 2
    assert node.value("svcmesh_source_stale") == 1
    assert (node.value("svcmesh_source_stale_seconds") or 0) > 1_000_000
    assert node.value("svcmesh_source_last_sync_timestamp_seconds") == 1_700_000_000
    assert node.value("svcmesh_dns_queries_total", result="noerror") == 11
    assert node.value("svcmesh_workers") == 2
    assert node.value("svcmesh_agent_tasks") == 9
    assert node.value("svcmesh_worker_restarts_total") == 3
    assert (node.value("process_resident_memory_bytes") or 0) > 1_000_000


def test_the_workers_own_numbers(node: Node) -> None:
    base = LAYOUT.base(WORKER_SLOT)
    for region in node.regions:
        region.cells[base + LAYOUT.malformed_column("bare_lf")] += 2
        region.cells[base + LAYOUT.malformed_column("unheard of")] += 3
        region.cells[base + columns.WORKER_REFUSED_LIMIT] += 4
        region.cells[base + columns.WORKER_HEAD_TIMEOUTS] += 5
        region.cells[base + columns.WORKER_LOCKS_FORGONE] += 6
    node.regions[1].cells[base + columns.WORKER_PLAN_VERSION] = 6
    node.regions[1].cells[base + columns.WORKER_HEARTBEAT] = 1
    assert node.value("svcmesh_malformed_requests_total", reason="bare_lf") == 4
    assert node.value("svcmesh_malformed_requests_total", reason="other") == 6
    assert node.value("svcmesh_malformed_requests_total", reason="head_timeout") == 10
    assert node.value("svcmesh_connections_refused_total", reason="limit") == 8
    assert node.value("svcmesh_shared_locks_forgone_total") == 12
    assert node.value("svcmesh_connections_refused_total", reason="no_route") == 0
    assert node.value("svcmesh_worker_plan_version", worker="0") == 0
    assert node.value("svcmesh_worker_plan_version", worker="1") == 6
    assert node.value("svcmesh_worker_heartbeat_age_seconds", worker="0") is None, "it never served"
    assert (node.value("svcmesh_worker_heartbeat_age_seconds", worker="1") or 0) > 0


def test_what_each_worker_has_open(node: Node) -> None:
    base = LAYOUT.base(WORKER_SLOT)
    cells = node.regions[1].cells
    for column in (columns.WORKER_TASKS, columns.WORKER_CLIENTS, columns.WORKER_EXCHANGES):
        cells[base + column] = column
    cells[base + columns.WORKER_UPSTREAMS_ACTIVE] = 3
    cells[base + columns.WORKER_UPSTREAMS_IDLE] = 4
    cells[base + columns.WORKER_WAITING] = 5
    cells[base + columns.WORKER_PAUSED] = 6
    cells[base + columns.WORKER_LONGEST_PAUSE] = 7_500_000
    seen = {
        name: node.value(f"svcmesh_worker_{name}", worker="1")
        for name in (
            "tasks",
            "client_connections",
            "exchanges",
            "upstream_connections_active",
            "upstream_connections_idle",
            "requests_waiting",
            "connections_paused",
            "longest_pause_seconds",
        )
    }
    assert list(seen.values()) == [
        columns.WORKER_TASKS, columns.WORKER_CLIENTS, columns.WORKER_EXCHANGES, 3, 4, 5, 6, 7.5,
    ]  # fmt: skip
    assert node.value("svcmesh_worker_tasks", worker="0") == 0


def test_how_many_endpoints_there_are_and_are_in_use() -> None:
    def served(name: str, endpoints: int) -> ServicePlan:
        backend = BackendSpec(
            BackendKey(ServiceKey("default", name), 80),
            tuple(Endpoint("10.1.0.1", number + 1) for number in range(endpoints)),
        )
        return msgspec.structs.replace(service_plan(name, 80), backends=(backend,))

    node = Node(served("web", 5), served("quiet", 3), served("lame", 2))
    node.unusable = {BackendKey(ServiceKey("default", "web"), 80): 2}
    node.unhealthy = {BackendKey(ServiceKey("default", "lame"), 80): 1}
    node.write(0, "web", columns.REQUESTS_2XX, 5)
    assert (node.of_port("svcmesh_endpoints"), node.of_port("svcmesh_endpoints_in_use")) == (5, 3)
    lame = {"service": "lame", "namespace": "default", "port": "80"}
    assert node.value("svcmesh_endpoints_unhealthy", **lame) == 1, "shown though nobody asks it"
    other = {"service": "other", "namespace": "", "port": ""}
    assert node.value("svcmesh_endpoints", **other) == 3, "of all that have no series of their own"
    node.close()


def test_many_ports_come_in_pieces() -> None:
    services = [service_plan(f"s{number}", 80) for number in range(1000)]
    node = Node(*services, slots=2000, most_series=100_000)
    for number in range(1000):
        node.write(0, f"s{number}", columns.DURATION_BUCKETS, 1)
    pieces = list(node.page.render())
    assert b"".join(pieces).count(b"svcmesh_request_duration_seconds_count{") == 1000
    assert max(piece.count(b"\n") for piece in pieces) <= PIECE_LINES + 1000 * 17, "one family at most more"
    assert sum(not piece for piece in pieces) > 1000 / PIECE_PORTS, "pauses while lines are made"
    node.close()


def test_no_series_is_told_twice(node: Node) -> None:
    for column in range(columns.SLOT_COLUMNS):
        node.write(0, "web", column, 1)
    series = [line.rsplit(" ", 1)[0] for line in node.text().splitlines() if not line.startswith("#")]
    assert sorted(set(series)) == sorted(series)


def own_families(text: str) -> list[Family]:
    families = text_string_to_metric_families(text)
    return [family for family in families if not family.name.startswith(("process_", "python_"))]


def lint(text: str) -> list[str]:
    """What Prometheus' conventions would have otherwise (https://prometheus.io/docs/practices/naming/)."""
    wrong = [
        f"{name}: a counter without _total"  # the parser would hide it
        for name in re.findall(r"^# TYPE (\w+) counter$", text, re.MULTILINE)
        if not name.endswith("_total")
    ]
    for family in own_families(text):
        name = family.name
        if not re.fullmatch(r"svcmesh(_[a-z][a-z0-9]*)+", name):
            wrong.append(f"{name}: not svcmesh_ and lower case words")
        if not family.documentation.endswith(".") or len(family.documentation) < 10:
            wrong.append(f"{name}: its help is no sentence")
        if re.search(
            r"_(ms|milliseconds|microseconds|minutes|kb|kilobytes|percent|counter|gauge)(_|$)", name
        ):
            wrong.append(f"{name}: not a base unit")
        if family.type == "gauge" and name.endswith("_total"):
            wrong.append(f"{name}: a gauge is no total")
        if family.type == "histogram" and not name.endswith(("_seconds", "_bytes")):
            wrong.append(f"{name}: a histogram without a unit")
        if family.type not in ("counter", "gauge", "histogram"):
            wrong.append(f"{name}: is {family.type}")
    return wrong


def test_names_and_help_keep_to_the_conventions(node: Node) -> None:
    for column in range(columns.SLOT_COLUMNS):
        node.write(0, "web", column, 1)
    assert lint(node.text()) == []
    families = own_families(node.text())
    assert len({family.name for family in families}) == len(families)
    assert len(families) > 20
    for name in ("svcmesh_requests", "svcmesh_upstream_errors", "svcmesh_request_duration_seconds"):
        family = node.families()[name]
        assert all({"service", "namespace", "port"} <= set(sample.labels) for sample in family.samples)
        assert family.samples


def test_a_metric_whose_name_is_taken_in_either_format_is_left_out() -> None:
    names = (
        "svcmesh_requests",
        "svcmesh_requests_total",
        "svcmesh_request_duration_seconds_sum",
        "own_total",
    )
    made = [middleware(f"own-{name}", Metric(name, "Counts.", "gauge")) for name in names]
    layout = Layout([*made, middleware("own", Metric("own", "Counts.")), middleware("e", Metric("e", "E."))])
    with capture_logs() as logs:
        shown = {family.name for family in port_families(layout) if family.middleware}
    assert shown == {"own_total", "e_total"}
    assert [line["metric"] for line in logs] == [*names[:3], "own"]


def test_the_metrics_of_our_middleware_keep_to_the_conventions() -> None:
    layout = Layout(MIDDLEWARES)
    node = Node(service_plan("web", 80, *(middleware.name for middleware in MIDDLEWARES)), layout=layout)
    node.write(0, "web", columns.REQUESTS_2XX, 1)
    text = node.text()
    assert lint(text) == []
    for entry in layout.metrics:
        assert re.search(rf"^{entry.metric.name}(_total)?{{service=\"web\",.*}} 0$", text, re.MULTILINE)
    node.close()


def test_a_users_metric_cannot_spoil_the_page() -> None:
    users = [
        middleware("mine", Metric("svcmesh_requests", "Taken.")),
        middleware("blank", Metric("svcmesh_a b", "No name.")),
        middleware("good", Metric("svcmesh_good", "A line\nand another.")),
    ]
    node = Node(service_plan("web", 80, "mine", "blank", "good"), layout=Layout(users))
    node.write(0, "web", columns.REQUESTS_2XX, 5)
    assert "svcmesh_a b" not in node.text()
    assert node.text().count("# TYPE svcmesh_requests_total ") == 1
    assert node.of_port("svcmesh_requests_total", code_class="2xx") == 5
    assert node.of_port("svcmesh_good_total") == 0
    node.close()


def test_the_lint_finds_what_is_wrong() -> None:
    bad = "# HELP svcmesh_wait_ms x\n# TYPE svcmesh_wait_ms counter\nsvcmesh_wait_ms 1\n"
    assert len(lint(bad)) == 3
