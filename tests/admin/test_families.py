"""Every family on the page of metrics is declared, type and labels too; every declared one is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from discovery.model import Service, ServiceKey, ServiceObject
from hack.metrics import cardinality, families
from middleware.grpc import GrpcStatus
from middleware.registry import MIDDLEWARES
from nodeagent.admin.family import PORT_LABELS, Family
from nodeagent.admin.freshness import Freshness
from nodeagent.admin.health import HealthState
from nodeagent.admin.metrics import AgentState, MetricsPage
from nodeagent.admin.traces import TraceState
from nodeagent.plan.model import BackendKey, LayerSpec, Listener, NodePlan, ServicePlan
from nodeagent.stats import columns
from nodeagent.stats.columns import REFUSALS, WORKER_SLOT, Layout
from nodeagent.stats.methods import MethodRows
from nodeagent.stats.region import SlotAllocator, StatsRegion

KEY = ServiceKey("default", "web")
LAYERS = tuple(LayerSpec(middleware.name, None) for middleware in MIDDLEWARES)
LISTENER = Listener(KEY, "web", "10.0.0.1", 80, 80, "http", (), LAYERS)
SERVICE = ServicePlan(Service(ServiceObject(KEY, {}), {}), "10.0.0.1", (LISTENER,), (), {}, ())
PLAN = NodePlan(7, {KEY: SERVICE})
ADDED_BY_THE_PARSER = {"histogram": {"le"}}


@pytest.fixture
def text() -> Iterator[str]:
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
    yield b"".join(MetricsPage(layout, allocator, lambda: state, "1.2.3", "node").render()).decode()
    region.close()


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
