"""What `/metrics` says of objectives, and how much of the page that may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from nodeagent.admin.live import with_promises
from nodeagent.admin.objectives import OBJECTIVE_SHARE
from nodeagent.plan.model import NodePlan, Objective, ServicePlan
from nodeagent.stats import columns
from nodeagent.stats.signals import Promise
from tests.admin.test_metrics import Node, service_plan
from tests.cli.stats import counted, node_stats

WITH_TIME = Objective(99_900, 0.25, 95_000)
PORT = {"service": "web", "namespace": "default", "port": "80"}


def promised(name: str, objective: Objective) -> ServicePlan:
    return msgspec.structs.replace(service_plan(name, 80), objectives={80: objective})


@pytest.fixture
def make() -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(*services: ServicePlan, most_series: int = 3000) -> Node:
        made.append(Node(*services, most_series=most_series))
        return made[-1]

    yield make
    for node in made:
        node.close()


def test_a_port_with_an_objective_says_what_was_promised_and_what_was_bad(make: Callable[..., Node]) -> None:
    node = make(promised("web", WITH_TIME), service_plan("api", 80))
    node.write(0, "web", columns.REQUESTS_2XX, 90)
    node.write(1, "web", columns.REQUESTS_5XX, 10)
    node.write(0, "web", columns.DURATION_BUCKETS + columns.DURATION_BOUNDS.index(0.25), 93)
    node.write(1, "web", columns.DURATION_BUCKETS + columns.DURATION_BOUNDS.index(0.5), 7)
    node.write(1, "api", columns.REQUESTS_5XX, 1)
    assert node.value("svcmesh_objective_ratio", **PORT, sli="availability") == 0.999
    assert node.value("svcmesh_objective_ratio", **PORT, sli="latency") == 0.95
    assert node.value("svcmesh_objective_latency_seconds", **PORT) == 0.25
    assert node.value("svcmesh_objective_requests_total", **PORT) == 100
    assert node.value("svcmesh_objective_bad_requests_total", **PORT, sli="availability") == 10
    assert node.value("svcmesh_objective_bad_requests_total", **PORT, sli="latency") == 7
    assert 'svcmesh_objective_requests_total{service="api"' not in node.text(), "it has promised nothing"


def test_an_objective_without_a_time_is_one_of_availability_alone(make: Callable[..., Node]) -> None:
    node = make(promised("web", Objective(99_000)))
    node.write(0, "web", columns.REQUESTS_2XX, 1)
    text = node.text()
    assert 'sli="availability"' in text
    assert 'sli="latency"' not in text
    assert node.families()["svcmesh_objective_latency_seconds"].samples == []


def test_a_port_that_nobody_here_asks_has_no_series(make: Callable[..., Node]) -> None:
    node = make(promised("web", WITH_TIME))
    assert 'svcmesh_objective_ratio{service="web"' not in node.text()


def test_a_new_plan_changes_what_is_promised_and_not_what_was_counted(make: Callable[..., Node]) -> None:
    node = make(promised("web", WITH_TIME))
    node.write(0, "web", columns.REQUESTS_5XX, 3)
    node.text()
    service = promised("web", Objective(99_990))
    node.plan = NodePlan(8, {service.source.key: service})
    assert node.value("svcmesh_objective_ratio", **PORT, sli="availability") == 0.9999
    assert node.value("svcmesh_objective_bad_requests_total", **PORT, sli="availability") == 3


def test_counts_do_not_end_with_an_hour_without_requests_nor_with_other_busy_ports(
    make: Callable[..., Node],
) -> None:
    busy = [service_plan(f"busy-{number}", 80) for number in range(8)]
    node = make(promised("web", WITH_TIME), *busy, most_series=250)
    node.write(0, "web", columns.REQUESTS_5XX, 3)
    node.text()
    node.time += 7200
    for number, service in enumerate(busy):
        node.write(0, service.source.key.name, columns.REQUESTS_2XX, 1000 + number)
    text = node.text()
    assert 'svcmesh_requests_total{service="web"' not in text
    assert node.value("svcmesh_objective_bad_requests_total", **PORT, sli="availability") == 3


def test_objectives_have_half_of_the_series_at_most_and_those_asked_first_stay(
    make: Callable[..., Node],
) -> None:
    names = [f"s{number:02}" for number in range(40)]
    node = make(*(promised(name, WITH_TIME) for name in names), most_series=250)
    for name in reversed(names[:30]):
        node.write(0, name, columns.REQUESTS_2XX, 1)

    def shown() -> set[str]:
        found = node.families()["svcmesh_objective_requests"].samples
        return {sample.labels["service"] for sample in found}

    first = shown()
    assert len(first) == int(250 * OBJECTIVE_SHARE) // 6
    for name in names:
        node.write(0, name, columns.REQUESTS_2XX, 1000)
    assert shown() == first
    lines = [line for line in node.text().splitlines() if not line.startswith("#")]
    assert node.value("svcmesh_series") == len(lines) <= 250
    folded = node.value("svcmesh_series_folded")
    assert folded is not None
    assert folded >= len(names) - len(first)


def test_stats_say_what_is_promised() -> None:
    """A port may have left the plan since its requests were counted."""
    plan = NodePlan(1, {one.source.key: one for one in (promised("web", WITH_TIME), service_plan("api", 80))})
    asked = {
        f"default/{name}": {"/node": counted(good=1)} for name in ("web:80", "web:81", "api:80", "gone:80")
    }
    stats = with_promises(node_stats("n", asked), plan)
    said = {(port.service, port.port): port.promise for port in stats.ports}
    assert said.pop(("web", 80)) == Promise(0.999, 0.25, 0.95)
    assert set(said.values()) == {None}
