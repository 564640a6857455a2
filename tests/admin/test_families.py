"""Every family on the page of metrics is declared, type and labels too; every declared one is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Timestamp

from discovery.model import Service, ServiceKey, ServiceObject
from hack.metrics import cardinality, families
from middleware.grpc import GrpcStatus
from middleware.registry import MIDDLEWARES
from nodeagent.admin.family import PORT_LABELS, Family
from nodeagent.admin.formats import OPEN_METRICS
from nodeagent.admin.freshness import Freshness
from nodeagent.admin.health import HealthState
from nodeagent.admin.metrics import AgentState, MetricsPage
from nodeagent.admin.traces import TraceState
from nodeagent.plan.model import BackendKey, LayerSpec, Listener, NodePlan, Objective, ServicePlan
from nodeagent.stats import columns
from nodeagent.stats.columns import REFUSALS, WORKER_SLOT, Layout
from nodeagent.stats.exemplars import Exemplars
from nodeagent.stats.methods import MethodRows
from nodeagent.stats.region import SlotAllocator, StatsRegion

KEY = ServiceKey("default", "web")
LAYERS = tuple(LayerSpec(middleware.name, None) for middleware in MIDDLEWARES)
LISTENER = Listener(KEY, "web", "10.0.0.1", 80, 80, "http", (), LAYERS)
SERVICE = ServicePlan(
    Service(ServiceObject(KEY, {}), {}),
    "10.0.0.1",
    (LISTENER,),
    (),
    {},
    objectives={80: Objective(99_900, 0.25, 99_000)},
)
PLAN = NodePlan(7, {KEY: SERVICE})
TRACE = bytes(range(16))
ADDED_BY_THE_PARSER = {"histogram": {"le"}}


@pytest.fixture
def page() -> Iterator[MetricsPage]:
    """The page of an agent that has counted everything that it can count."""
    layout = Layout(MIDDLEWARES, REFUSALS)
    region = StatsRegion.create(layout, slots=8)
    allocator = SlotAllocator(slots=8)
    allocator.assign({(KEY, 80)}, (), [region], 0)
    for slot in (WORKER_SLOT, allocator.slots[KEY, 80]):
        base = layout.base(slot)
        for column in range(layout.slot_columns):
            region.cells[base + column] = 1
    MethodRows(region.methods).of_port(str(KEY), 80).count(b"/shop.Cart/Add", GrpcStatus.OK, True)
    state = AgentState(
        plan=PLAN,
        plan_changed=1.0,
        source=Freshness(),
        regions=[region],
        workers=1,
        worker_restarts=0,
        dns_queries={"noerror": 1},
        dns_responses={"udp": 1},
        ejected={BackendKey(KEY, 80): 1},
        traces=TraceState(1, 1, 1, {"refused": 1}),
        health=HealthState(unhealthy={BackendKey(KEY, 80): 1}, ejections={BackendKey(KEY, 80): 1}),
    )
    exemplars = Exemplars()
    exemplars.take((KEY, 80), "shop/deployment/web", TRACE, 0.003, 1_700_000_000.25)
    yield MetricsPage(layout, allocator, lambda: state, "1.2.3", "node", exemplars=exemplars)
    region.close()


@pytest.fixture
def text(page: MetricsPage) -> str:
    return b"".join(page.render()).decode()


@pytest.fixture
def open_text(page: MetricsPage) -> str:
    return b"".join(page.render(OPEN_METRICS)).decode()


def shown(text: str) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of every family of the page that is the mesh's own, by its name."""
    found = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("svcmesh_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels}
            found[name] = (family.type, labels - ADDED_BY_THE_PARSER.get(family.type, set()))
    return found


def declared() -> dict[str, Family]:
    return {family.name: family for family in families()}


def test_what_is_shown_is_what_is_declared(text: str) -> None:
    expected = {name: (family.kind, set(family.labels)) for name, family in declared().items()}
    assert shown(text) == expected


def test_a_family_has_no_more_series_than_it_declares(text: str) -> None:
    """Of one port that one source has asked, and whose every column was counted."""
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if name not in declared():
            continue
        most, _, of = cardinality(declared()[name]).partition(" a ")
        mine = [sample for sample in family.samples if sample.labels.get("service", "web") == "web"]
        if of in ("", "source", "port"):
            assert len(mine) == int(most), name
        else:
            assert len({tuple(sample.labels.values()) for sample in mine}) == len(mine), name


def opened(text: str) -> Iterator[Metric]:
    yield from openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]


def test_openmetrics_shows_the_same_families_and_samples(text: str, open_text: str) -> None:
    plain = {family.name: family for family in text_string_to_metric_families(text)}
    found = {family.name: family for family in opened(open_text)}
    assert open_text.endswith("# EOF\n")
    assert open_text.count("# EOF") == 1
    assert found.keys() == plain.keys()
    assert len(found) > 80
    for name, family in found.items():
        other = plain[name]
        assert (family.type, family.documentation) == (other.type, other.documentation), name
        assert series(family) == series(other), name
        assert not any(sample.name.endswith("_created") for sample in family.samples)
    for name, declaration in declared().items():
        assert found[declaration.base].unit == declaration.unit, name


def series(family: Metric) -> list[tuple[str, dict[str, str], float | None]]:
    """Samples in order; values of ports only, since the agent's own change."""
    return [
        (sample.name, sample.labels, sample.value if "service" in sample.labels else None)
        for sample in family.samples
    ]


def test_an_exemplar_stands_at_its_bucket_in_openmetrics_only(text: str, open_text: str) -> None:
    (found,) = [
        (sample.labels["source_workload"], sample.labels["le"], sample.exemplar)
        for family in opened(open_text)
        for sample in family.samples
        if sample.exemplar
    ]
    labels, value, at = found[2]
    assert isinstance(at, Timestamp)
    assert found[:2] == ("other", "0.005"), "the source has no series of its own"
    assert (labels, value, float(at)) == ({"trace_id": TRACE.hex()}, 0.003, 1_700_000_000.25)
    assert TRACE.hex() not in text


def test_the_help_is_the_declared_one(text: str) -> None:
    helps = dict(re.findall(r"^# HELP (svcmesh_\w+) (.*)$", text, re.MULTILINE))
    assert helps == {name: family.help for name, family in declared().items()}


def test_no_family_is_declared_twice() -> None:
    names = [family.name for family in families()]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("family", list(families()), ids=lambda family: family.name)
def test_each_declaration_tells_its_reader_something(family: Family) -> None:
    assert re.fullmatch(r"svcmesh(_[a-z][a-z0-9]*)+", family.name), "no colons: they are for recording rules"
    assert family.name.endswith("_total") == (family.kind == "counter")
    assert family.help.endswith(".")
    assert family.use.endswith(".")
    ours = set(PORT_LABELS) & set(family.labels)
    assert not ours or family.labels[: len(PORT_LABELS)] == PORT_LABELS


def test_the_page_names_the_figures_of_the_process(text: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    exposed = set(re.findall(r"^# TYPE (process_\w+)", text, re.MULTILINE))
    assert exposed
    assert set(re.findall(r"`(process_\w+)`", page)) == exposed
    assert "python_" not in text


def test_the_columns_of_ports_are_all_shown() -> None:
    """A column that nothing reads would be counted in vain."""
    read = {series.column for family in families() for series in getattr(family, "series", ())}
    histogram = range(columns.DURATION_BUCKETS, columns.DURATION_SUM + 1)
    assert set(range(columns.SLOT_COLUMNS)) - set(histogram) <= read
