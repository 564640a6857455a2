"""From workers' memory to series: nothing is lost, nothing is counted twice, and no series ever decreases."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from discovery.model import ServiceKey
from middleware.contract import Metric
from middleware.registry import MIDDLEWARES
from nodeagent.stats.columns import (
    CONNECTIONS_ACTIVE,
    EDGE_COLUMNS,
    OVERFLOW_SLOT,
    REQUESTS_2XX,
    RESENDS,
    Layout,
)
from nodeagent.stats.edges import FOLDS, IDLE, EdgeRows, PortEdges
from nodeagent.stats.ledger import EDGE_COST, PORT_COST, Ledger
from nodeagent.stats.places import IDLE as SERIES_IDLE
from nodeagent.stats.region import SlotAllocator, SlotKey, StatsRegion
from nodeagent.stats.tallies import News, Tallies

LAYOUT = Layout(MIDDLEWARES)
WEB = "shop/deployment/web"
KEYS: list[SlotKey] = [(ServiceKey("shop", name), 80) for name in ("api", "cart", "stock", "users")]
GAUGE: Metric = next(entry.metric for entry in LAYOUT.metrics if entry.metric.kind == "gauge")


class Node:
    """The memory of two workers, and the agent's look at it."""

    def __init__(self, room: int = 10_000, keys: list[SlotKey] = KEYS) -> None:
        self.now = 0.0
        self.regions = [StatsRegion.create(LAYOUT, slots=16) for _ in range(2)]
        self.allocator = SlotAllocator(slots=16, quarantine=0.0)
        self.allocator.assign(keys, (), self.regions, 0.0)
        self.tallies = Tallies(LAYOUT, self.allocator)
        self.ledger = Ledger(LAYOUT.slot_columns, room, lambda: self.now)
        self.told: list[News] = []
        self.tallies.takers += [self.ledger, self]
        self.tables = [EdgeRows(region.cells, region.edges_at) for region in self.regions]
        self.ports: list[dict[SlotKey, PortEdges]] = [{}, {}]
        for worker in (0, 1):
            self.start(worker)

    def take(self, news: News) -> None:
        self.told.append(news)

    def start(self, worker: int) -> None:
        """Start the worker of this place."""
        region = self.regions[worker]
        self.tables[worker] = table = EdgeRows(region.cells, region.edges_at)
        self.ports[worker] = {
            key: table.of_port(str(key[0]), key[1], LAYOUT.base(slot), slot != OVERFLOW_SLOT)
            for key, slot in self.allocator.slots.items()
        }

    def ask(self, worker: int, key: SlotKey, source: str, times: int = 1) -> None:
        self.regions[worker].cells[self.ports[worker][key].find(source) + REQUESTS_2XX] += times

    def slot_cell(self, key: SlotKey, column: int) -> int:
        return LAYOUT.base(self.allocator.slots[key]) + column

    def look(self) -> None:
        """Look, and remember in `counted` what the series were before places changed."""
        self.ledger.begin(self.allocator.slots.keys())
        ports = [(None, OVERFLOW_SLOT), *self.allocator.slots.items()]
        for _ in self.tallies.look(ports, self.regions):
            pass
        self.counted = self.series()
        self.ledger.settle()

    def series(self, column: int = REQUESTS_2XX) -> dict[tuple[str, str], int]:
        """By port and source, as the page would show them."""
        found = {("other", "other"): self.ledger.others.counted[column]}
        for key, port in self.ledger.ports.items():
            found[str(key[0]), "other"] = port.counted[column]
            for source, counted in port.edges.items():
                found[str(key[0]), source] = counted[column]
        return {name: number for name, number in found.items() if number}


@pytest.fixture
def node() -> Node:
    return Node()


def test_requests_by_port_and_source_of_all_workers(node: Node) -> None:
    node.ask(0, KEYS[0], WEB, 3)
    node.ask(1, KEYS[0], WEB, 4)
    node.ask(1, KEYS[0], "/node")
    node.ask(1, KEYS[1], WEB)
    node.look()
    assert node.series() == {("shop/api", WEB): 7, ("shop/api", "/node"): 1, ("shop/cart", WEB): 1}
    (api, _) = sorted(node.told, key=lambda news: str(news.key))
    assert api.counted[REQUESTS_2XX] == 8
    node.told.clear()
    node.look()
    assert node.told == [], "nothing is new"


def test_what_a_row_has_counted_since_the_last_look_and_its_end_is_the_ports(node: Node) -> None:
    node.ask(0, KEYS[0], WEB, 3)
    node.look()
    node.ask(0, KEYS[0], WEB, 2)
    node.ports[0][KEYS[0]].drop(WEB)
    node.look()
    assert node.series() == {("shop/api", WEB): 3, ("shop/api", "other"): 2}
    node.ask(0, KEYS[0], WEB, 10)
    node.look()
    assert node.series() == {("shop/api", WEB): 13, ("shop/api", "other"): 2}


def test_while_a_worker_moves_a_row_its_port_is_left_for_the_next_look(node: Node) -> None:
    node.ask(0, KEYS[0], WEB, 3)
    region = node.regions[0]
    region.cells[region.edges_at + FOLDS] += 1
    node.look()
    assert node.series() == {}
    region.cells[region.edges_at + FOLDS] += 1
    node.look()
    assert node.series() == {("shop/api", WEB): 3}


def test_a_slot_that_belongs_to_another_port_begins_at_nothing(node: Node) -> None:
    cells = node.regions[0].cells
    cells[node.slot_cell(KEYS[0], RESENDS)] = 7
    node.look()
    slot = node.allocator.slots[KEYS[0]]
    new: SlotKey = (ServiceKey("shop", "new"), 80)
    node.allocator.assign((), [KEYS[0]], node.regions, 1.0)
    node.allocator.assign([new], (), node.regions, 2.0)
    assert node.allocator.slots[new] == slot
    cells[node.slot_cell(new, RESENDS)] = 5
    node.look()
    assert node.series(RESENDS) == {("shop/new", "other"): 5}


def test_a_number_that_falls_is_nothing_new(node: Node) -> None:
    cells = node.regions[0].cells
    cells[node.slot_cell(KEYS[0], RESENDS)] = 7
    node.look()
    cells[node.slot_cell(KEYS[0], RESENDS)] = 2
    node.look()
    assert node.series(RESENDS) == {("shop/api", "other"): 7}


def test_gauges_are_as_they_are_now_with_a_place_and_without() -> None:
    node = Node(room=PORT_COST + EDGE_COST)
    column = LAYOUT.column(GAUGE)
    node.ask(0, KEYS[0], WEB, 100)
    node.look()
    for worker, number in ((0, 3), (1, 2)):
        for key in KEYS[1:3]:
            node.regions[worker].cells[node.slot_cell(key, CONNECTIONS_ACTIVE)] = number
            node.regions[worker].cells[node.slot_cell(key, column)] = number
        node.regions[worker].cells[node.slot_cell(KEYS[0], CONNECTIONS_ACTIVE)] = number
    node.look()
    assert node.ledger.ports[KEYS[0]].gauges[CONNECTIONS_ACTIVE] == 5
    elsewhere = node.ledger.gauges_elsewhere()
    assert (elsewhere[CONNECTIONS_ACTIVE], elsewhere[column]) == (10, 3), "the greatest of all workers"
    for worker in (0, 1):
        node.regions[worker].cells[node.slot_cell(KEYS[1], CONNECTIONS_ACTIVE)] = 0
    node.look()
    assert node.ledger.gauges_elsewhere()[CONNECTIONS_ACTIVE] == 5


def test_health_checks_count_once_whoever_has_a_place() -> None:
    node = Node(room=PORT_COST + EDGE_COST)
    node.ask(0, KEYS[0], WEB, 100)
    node.look()
    node.ledger.take_ejections([(KEYS[0], 2), (KEYS[1], 3)], ())
    node.ledger.take_ejections([(KEYS[0], 3), (KEYS[1], 3)], ())
    assert node.ledger.ports[KEYS[0]].ejections == 3
    assert node.ledger.others.ejections == 3


def test_looks_between_two_scrapes_keep_a_place(node: Node) -> None:
    """As `/stats` makes them: what was active then is not idle at the next scrape."""
    node.ask(0, KEYS[0], WEB)
    node.look()
    for _ in range(3):
        node.now += SERIES_IDLE / 2
        node.ask(0, KEYS[0], WEB)
        for _ in node.tallies.look(list(node.allocator.slots.items()), node.regions):
            pass
    node.look()
    assert node.series() == {("shop/api", WEB): 4}


class Looks(RuleBasedStateMachine):
    """Whatever workers, plan and places do, each request adds 1 to exactly one series."""

    @initialize(room=st.sampled_from([0, 40, 75, 110, 10_000]))
    def begin(self, room: int) -> None:
        self.node = Node(room)
        self.asked = 0
        """Since the last look."""
        self.before: dict[tuple[str, str], int] = {}

    @rule(
        worker=st.integers(0, 1),
        key=st.sampled_from(KEYS),
        source=st.sampled_from(["/node", "/unknown", WEB, "shop/job/x"]),
        times=st.integers(1, 50),
    )
    def ask(self, worker: int, key: SlotKey, source: str, times: int) -> None:
        self.node.ask(worker, key, source, times)
        self.asked += times

    @rule(worker=st.integers(0, 1))
    def restart(self, worker: int) -> None:
        self.node.start(worker)

    @rule(seconds=st.sampled_from([1.0, 60.0, IDLE, SERIES_IDLE]))
    def wait(self, seconds: float) -> None:
        self.node.now += seconds
        for table in self.node.tables:
            table.tick(self.node.now)

    @rule(worker=st.integers(0, 1), key=st.sampled_from(KEYS), source=st.sampled_from(["/node", WEB]))
    def free(self, worker: int, key: SlotKey, source: str) -> None:
        port = self.node.ports[worker][key]
        if source in port.rows:
            port.drop(source)

    @rule()
    def look(self) -> None:
        """A scrape. What Prometheus makes of it is the increase of each series; a new one began at 0."""
        node = self.node
        node.look()
        assert all(node.counted[name] >= number for name, number in self.before.items()), "none decreases"
        assert sum(node.counted.values()) - sum(self.before.values()) == self.asked
        shown = node.series()
        assert shown.items() <= node.counted.items(), "who loses its place leaves, and nothing else changes"
        self.before, self.asked = shown, 0

    @invariant()
    def the_ceiling_holds(self) -> None:
        if hasattr(self, "node"):
            places = self.node.ledger.places
            assert places.used <= places.room

    def teardown(self) -> None:
        if hasattr(self, "node"):
            self.look()


Looks.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestLooks = Looks.TestCase


def test_edge_columns_begin_a_slot() -> None:
    assert CONNECTIONS_ACTIVE == EDGE_COLUMNS
