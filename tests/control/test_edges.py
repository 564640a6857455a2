"""Requests by source in a worker's memory: rows that fill, idle and end, and a worker killed in between."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nodeagent.stats import edges
from nodeagent.stats.columns import CONNECTIONS, EDGE_COLUMNS, REQUESTS_2XX
from nodeagent.stats.edges import FOLDS, IDLE, MOST_SOURCES, SHAPE, EdgeRows, PortEdges
from nodeagent.stats.rows import Shape, read_tags

SLOT = 100
FIRST = 2000
WEB = "shop/deployment/web"


def memory(rows: int = 16) -> memoryview:
    cells = FIRST + edges.ROWS_AT + Shape(SHAPE.name_bytes, SHAPE.counters, rows).cells
    return memoryview(bytearray(8 * cells)).cast("q")


def names(cells: memoryview) -> set[str]:
    return {tag.name for tag in read_tags(cells[FIRST + edges.ROWS_AT :], SHAPE) if tag is not None}


def total(cells: memoryview, column: int = REQUESTS_2XX, slot: int = SLOT) -> int:
    """The column of the slot and of all rows together."""
    rows = cells[FIRST + edges.ROWS_AT :]
    tags = [tag for tag in read_tags(rows, SHAPE) if tag is not None]
    return cells[slot + column] + sum(rows[tag.at + SHAPE.counters_at + column] for tag in tags)


def ask(cells: memoryview, port: PortEdges, source: str, times: int = 1) -> None:
    cells[port.find(source) + REQUESTS_2XX] += times


def test_a_request_is_counted_in_the_row_of_its_source_and_nowhere_else() -> None:
    cells = memory()
    port = EdgeRows(cells, FIRST).of_port("shop/api", 80, SLOT, True)
    ask(cells, port, WEB, 3)
    ask(cells, port, "/node")
    assert names(cells) == {WEB, "/node"}
    assert cells[SLOT + REQUESTS_2XX] == 0
    assert total(cells) == 4


def test_the_total_is_that_of_slot_and_rows_unless_others_share_the_slot() -> None:
    cells = memory(1)
    table = EdgeRows(cells, FIRST)
    port = table.of_port("shop/api", 80, SLOT, True)
    ask(cells, port, WEB, 3)
    ask(cells, port, "shop/deployment/no-row-left", 2)
    cells[SLOT + REQUESTS_2XX + 1] += 4
    assert (port.total(REQUESTS_2XX, 1), port.total(REQUESTS_2XX, 2)) == (5, 9)
    port.drop(WEB)
    assert port.total(REQUESTS_2XX, 2) == 9
    assert table.of_port("shop/more", 80, SLOT, False).total(REQUESTS_2XX, 2) == 0


def test_rows_are_whole_cache_lines() -> None:
    assert SHAPE.row % 8 == 0
    assert edges.ROWS_AT % 8 == 0


def test_what_finds_no_row_is_counted_in_the_slot() -> None:
    cells = memory(3)
    table = EdgeRows(cells, FIRST)
    port = table.of_port("shop/api", 80, SLOT, True)
    for number in range(5):
        ask(cells, port, f"shop/deployment/c{number}")
    assert len(names(cells)) == 3
    assert (cells[SLOT + REQUESTS_2XX], total(cells)) == (2, 5)


def test_a_port_has_so_many_sources() -> None:
    cells = memory(MOST_SOURCES + 10)
    port = EdgeRows(cells, FIRST).of_port("shop/api", 80, SLOT, True)
    for number in range(MOST_SOURCES + 2):
        ask(cells, port, f"shop/deployment/c{number}")
    assert len(names(cells)) == MOST_SOURCES
    assert cells[SLOT + REQUESTS_2XX] == 2


def test_a_name_that_is_too_long_and_a_shared_slot_get_no_row() -> None:
    cells = memory()
    table = EdgeRows(cells, FIRST)
    ask(cells, table.of_port("shop/api", 80, SLOT, True), "shop/deployment/" + "x" * 300)
    ask(cells, table.of_port("shop/more", 80, SLOT, False), WEB)
    assert names(cells) == set()
    assert cells[SLOT + REQUESTS_2XX] == 2


def test_without_memory_for_rows_the_slot_counts() -> None:
    cells = memoryview(bytearray(8 * 1000)).cast("q")
    table = EdgeRows(cells)
    ask(cells, table.of_port("shop/api", 80, SLOT, True), WEB)
    table.tick(1.0)
    assert cells[SLOT + REQUESTS_2XX] == 1


def test_an_idle_source_gives_its_row_back_and_connections_find_theirs_anew() -> None:
    cells = memory()
    table = EdgeRows(cells, FIRST)
    port = table.of_port("shop/api", 80, SLOT, True)
    ask(cells, port, WEB, 5)
    ask(cells, port, "/node")
    epoch = table.epoch
    now = 0.0
    while now < IDLE * 2:
        ask(cells, port, "/node")
        table.tick(now)
        now += 60.0
    assert names(cells) == {"/node"}
    assert table.epoch > epoch
    assert cells[SLOT + REQUESTS_2XX] == 5
    ask(cells, port, WEB)
    assert names(cells) == {WEB, "/node"}, "it comes back"


def test_a_port_that_leaves_gives_its_rows_back_and_counts_in_its_slot_from_then_on() -> None:
    cells = memory()
    table = EdgeRows(cells, FIRST)
    port = table.of_port("shop/api", 80, SLOT, True)
    ask(cells, port, WEB, 5)
    port.close()
    ask(cells, port, WEB)
    assert names(cells) == set()
    assert cells[SLOT + REQUESTS_2XX] == 6


def test_a_port_that_gets_another_slot_leaves_its_counts_in_the_old_one() -> None:
    cells = memory()
    port = EdgeRows(cells, FIRST).of_port("shop/api", 80, SLOT, True)
    ask(cells, port, WEB, 5)
    port.move(SLOT + 100, True)
    ask(cells, port, WEB)
    assert cells[SLOT + REQUESTS_2XX] == 5
    assert total(cells, slot=SLOT + 100) == 1


def test_the_next_worker_goes_on_with_the_rows_it_finds() -> None:
    cells = memory()
    ask(cells, EdgeRows(cells, FIRST).of_port("shop/api", 80, SLOT, True), WEB, 5)
    ask(cells, EdgeRows(cells, FIRST).of_port("shop/api", 80, SLOT, True), WEB)
    assert names(cells) == {WEB}
    assert total(cells) == 6


class Killed(Exception):
    pass


class DyingMemory:
    """Cells that let a worker write so many more times."""

    def __init__(self, cells: memoryview, writes: int) -> None:
        self.cells = cells
        self.writes = writes

    def __getitem__(self, key: int | slice) -> int | memoryview:
        return self.cells[key]

    def __len__(self) -> int:
        return len(self.cells)

    def __setitem__(self, key: int, value: int) -> None:
        if not self.writes:
            raise Killed
        self.writes -= 1
        self.cells[key] = value


@given(st.integers(0, EDGE_COLUMNS + 8))
def test_a_worker_killed_while_it_moves_a_row_loses_nothing_and_counts_nothing_twice(writes: int) -> None:
    cells = memory()
    table = EdgeRows(cells, FIRST)
    port = table.of_port("shop/api", 80, SLOT, True)
    ask(cells, port, WEB, 5)
    cells[SLOT + REQUESTS_2XX] = 7
    cells[port.find(WEB) + CONNECTIONS] = 2
    table._cells = DyingMemory(cells, writes)  # type: ignore[assignment]
    with contextlib.suppress(Killed):
        port.close()
    EdgeRows(cells, FIRST)
    assert cells[FIRST + FOLDS] % 2 == 0
    assert (total(cells), total(cells, CONNECTIONS)) == (12, 2)


class Rows(RuleBasedStateMachine):
    """Whatever happens to rows, each request is counted once."""

    @initialize()
    def begin(self) -> None:
        self.cells = memory(4)
        self.now = 0.0
        self.asked = {0: 0, 1: 0}
        self.start()

    @rule()
    def start(self) -> None:
        """Another worker takes the place of the one that is."""
        self.table = EdgeRows(self.cells, FIRST)
        self.ports = {
            number: self.table.of_port("shop/api", number, SLOT + number * 100, True) for number in self.asked
        }

    @rule(number=st.integers(0, 1), source=st.sampled_from(["/node", WEB, "a/b/c", "d/e/f"]))
    def ask(self, number: int, source: str) -> None:
        ask(self.cells, self.ports[number], source)
        self.asked[number] += 1

    @rule(seconds=st.sampled_from([1.0, IDLE]))
    def wait(self, seconds: float) -> None:
        self.table.tick(self.now)
        self.now += seconds
        self.table.tick(self.now)

    @rule(number=st.integers(0, 1))
    def leave(self, number: int) -> None:
        self.ports[number].close()
        self.ports[number] = self.table.of_port("shop/api", number, SLOT + number * 100, True)

    @invariant()
    def each_is_counted_once(self) -> None:
        if hasattr(self, "asked"):
            both = self.cells[SLOT + REQUESTS_2XX] + self.cells[SLOT + 100 + REQUESTS_2XX]
            rows = total(self.cells) - self.cells[SLOT + REQUESTS_2XX]
            assert both + rows == sum(self.asked.values())


TestRows = Rows.TestCase
