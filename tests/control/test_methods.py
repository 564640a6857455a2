"""Calls by method in a worker's memory: which methods get a row, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.grpc import GrpcStatus
from nodeagent.stats.methods import (
    CELLS,
    MOST_METHODS,
    OTHER,
    ROWS,
    SHAPE,
    MethodRows,
    PortMethods,
    read_rows,
)

OK, INTERNAL = GrpcStatus.OK, GrpcStatus.INTERNAL


def memory(rows: int = ROWS) -> memoryview:
    return memoryview(bytearray(8 * (CELLS - (ROWS - rows) * SHAPE.row))).cast("q")


def read(*memories: memoryview) -> dict[tuple[str, int, str], dict[str, int]]:
    return {
        (row.service, row.port, row.method): {
            status.name: number for status, number in zip(GrpcStatus, row.calls, strict=True) if number
        }
        for cells in memories
        for row in read_rows(cells)
        if row is not None
    }


def shop(cells: memoryview) -> PortMethods:
    return MethodRows(cells).of_port("shop/cart", 80)


def test_rows_are_whole_cache_lines() -> None:
    assert SHAPE.row % 8 == 0


def test_calls_by_method_and_status() -> None:
    cells = memory()
    table = MethodRows(cells)
    cart, stock = table.of_port("shop/cart", 80), table.of_port("shop/stock", 81)
    for status in (OK, OK, INTERNAL):
        cart.count(b"/shop.Cart/Add", status, True)
    stock.count(b"/shop.Cart/Add", OK, True)
    assert read(cells) == {
        ("shop/cart", 80, "shop.Cart/Add"): {"OK": 2, "INTERNAL": 1},
        ("shop/stock", 81, "shop.Cart/Add"): {"OK": 1},
    }


def test_a_method_that_no_endpoint_knows_is_one_of_the_others() -> None:
    cells = memory()
    cart = shop(cells)
    for number in range(1000):
        cart.count(b"/shop.Cart/No%d" % number, GrpcStatus.UNIMPLEMENTED, False)
    assert read(cells) == {("shop/cart", 80, OTHER): {"UNIMPLEMENTED": 1000}}


def test_a_known_method_is_counted_whatever_its_status() -> None:
    cells = memory()
    cart = shop(cells)
    cart.count(b"/shop.Cart/Add", GrpcStatus.UNAVAILABLE, False)
    cart.count(b"/shop.Cart/Add", OK, True)
    cart.count(b"/shop.Cart/Add", GrpcStatus.UNAVAILABLE, False)
    assert read(cells) == {
        ("shop/cart", 80, OTHER): {"UNAVAILABLE": 1},
        ("shop/cart", 80, "shop.Cart/Add"): {"OK": 1, "UNAVAILABLE": 1},
    }


def test_a_port_has_so_many_methods() -> None:
    cells = memory()
    cart = shop(cells)
    for number in range(MOST_METHODS + 10):
        cart.count(b"/shop.Cart/M%d" % number, OK, True)
    rows = read(cells)
    assert len(rows) == MOST_METHODS + 1
    assert rows["shop/cart", 80, OTHER] == {"OK": 10}


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"*",
        b"/shop.Cart",
        b"/shop.Cart/Add/More",
        b"/shop.Cart/Add?x=1",
        b"//Add",
        b"/shop.Cart/",
        b"/1.Cart/Add",
        b'/shop.Cart/"Add',
        b"/shop.Cart/Add\n",
        "/shop.Cärt/Add".encode(),
        b"/shop.Cart/" + b"x" * 62,
        b"/" + b"x" * 122 + b"/Add",
    ],
)
def test_what_is_no_path_of_a_method(path: bytes) -> None:
    cells = memory()
    shop(cells).count(path, OK, True)
    assert read(cells) == {("shop/cart", 80, OTHER): {"OK": 1}}


def test_the_longest_names_fit() -> None:
    cells = memory()
    method = "x" * 121 + "/" + "y" * 61
    service = "n" * 40 + "/" + "s" * 40
    MethodRows(cells).of_port(service, 65535).count(f"/{method}".encode(), OK, True)
    assert read(cells) == {(service, 65535, method): {"OK": 1}}


def test_a_name_that_does_not_fit_is_one_of_the_others() -> None:
    cells = memory()
    service = "n" * 63 + "/" + "s" * 100
    MethodRows(cells).of_port(service, 80).count(b"/" + b"x" * 121 + b"/" + b"y" * 61, OK, True)
    assert read(cells) == {(service, 80, OTHER): {"OK": 1}}


def test_rows_run_out() -> None:
    """What finds none is not counted by method, and nothing else happens."""
    cells = memory(3)
    table = MethodRows(cells)
    cart, stock = table.of_port("shop/cart", 80), table.of_port("shop/stock", 80)
    for number in range(3):
        cart.count(b"/shop.Cart/M%d" % number, OK, True)
    cart.count(b"/shop.Cart/M4", OK, True)
    stock.count(b"/shop.Stock/Get", OK, True)
    assert {method for _, _, method in read(cells)} == {"shop.Cart/M0", "shop.Cart/M1", "shop.Cart/M2"}
    cart.close()
    assert read(cells) == {}
    stock.count(b"/shop.Stock/Get", OK, True)
    assert read(cells) == {("shop/stock", 80, "shop.Stock/Get"): {"OK": 1}}, "nothing of who had it before"


def test_without_memory_nothing_is_counted() -> None:
    for cells in (memory(0), memoryview(b"").cast("q")):
        shop(cells).count(b"/shop.Cart/Add", OK, True)


def test_the_next_worker_goes_on() -> None:
    cells = memory()
    before = shop(cells)
    before.count(b"/shop.Cart/Add", OK, True)
    before.count(b"/", OK, True)
    after = shop(cells)
    after.count(b"/shop.Cart/Add", OK, False)
    after.count(b"/", OK, True)
    assert read(cells) == {
        ("shop/cart", 80, "shop.Cart/Add"): {"OK": 2},
        ("shop/cart", 80, OTHER): {"OK": 2},
    }


def test_rows_of_ports_that_left_without_a_worker_are_used_again() -> None:
    cells = memory(2)
    before = shop(cells)
    before.count(b"/shop.Cart/Add", OK, True)
    before.count(b"/shop.Cart/Get", OK, True)
    MethodRows(cells).of_port("shop/stock", 80).count(b"/shop.Stock/Get", OK, True)
    assert read(cells) == {("shop/stock", 80, "shop.Stock/Get"): {"OK": 1}}


class Changing:
    """Memory whose worker is faster than its reader: after the name has been read, the row is another's."""

    def __init__(self, cells: memoryview, change: Callable[[], None]) -> None:
        self.cells = cells
        self.change = change
        self.reads = 0

    def __getitem__(self, place: Any) -> Any:
        found = self.cells[place]
        self.reads += 1
        if self.reads == 4:  # how many, lengths, length and epoch, name
            self.change()
        return found


def test_a_row_that_changes_while_it_is_read_says_nothing() -> None:
    cells = memory(1)
    table = MethodRows(cells)
    cart = table.of_port("shop/cart", 80)
    cart.count(b"/shop.Cart/Add", OK, True)

    def change() -> None:
        cart.close()
        table.of_port("shop/cart", 80).count(b"/shop.Cart/Get", INTERNAL, True)

    assert list(read_rows(cast("memoryview", Changing(cells, change)))) == [None]
    assert read(cells) == {("shop/cart", 80, "shop.Cart/Get"): {"INTERNAL": 1}}


def test_what_was_never_used_is_not_looked_at() -> None:
    """Memory that is only read takes room, too."""
    cells = memory()
    cart = shop(cells)
    cart.count(b"/shop.Cart/Add", OK, True)
    cart.count(b"/shop.Cart/Get", OK, True)
    assert len(list(read_rows(cells))) == 2


@given(st.lists(st.tuples(st.binary(max_size=40), st.sampled_from(GrpcStatus), st.booleans()), max_size=60))
def test_any_path_is_counted_once(calls: list[tuple[bytes, GrpcStatus, bool]]) -> None:
    cells = memory(80)
    cart = shop(cells)
    for path, status, exists in calls:
        cart.count(path, status, exists)
    assert sum(sum(counts.values()) for counts in read(cells).values()) == len(calls)
