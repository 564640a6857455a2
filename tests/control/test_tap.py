"""Watches of live requests: what a filter takes, how many watch at once, and lines without room."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.values import InvalidValue
from nodeagent.control.tap import (
    MOST_WAITING,
    MOST_WATCHES,
    TapFilter,
    TappedLine,
    TooManyWatches,
    Watch,
    Watchers,
    read_filter,
)

CART = TapFilter("shop/cart")


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        ({}, True),
        ({"workload": "shop/deployment/web"}, True),
        ({"workload": "deployment/web"}, True),
        ({"workload": "web"}, True),
        ({"workload": "eb"}, False),
        ({"status": "503"}, True),
        ({"status": "5xx"}, True),
        ({"status": "4xx"}, False),
        ({"path": "/it"}, True),
        ({"path": "/other"}, False),
        ({"method": "GET"}, True),
        ({"method": "POST"}, False),
        ({"method": "GET", "status": "200"}, False),
    ],
)
def test_what_a_filter_takes(wanted: dict[str, str], taken: bool) -> None:
    assert TapFilter("shop/cart", **wanted).takes("shop/deployment/web", 503, "/items", "GET") is taken


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "names no Service"),
        ({"service": "cart"}, "namespace/name"),
        ({"service": "shop/cart", "status": "9xx"}, "status"),
        ({"service": "shop/cart", "method": "get"}, "method"),
        ({"service": "shop/cart", "path": "/" * 300}, "path is too long"),
    ],
)
def test_filters_that_mean_nothing(values: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        read_filter(values)


@given(st.dictionaries(st.sampled_from(["service", "from", "status", "path", "method"]), st.text()))
def test_any_text_is_a_filter_or_refused(values: dict[str, str]) -> None:
    try:
        wanted = read_filter(values)
    except InvalidValue:
        return
    assert wanted.takes("", 200, wanted.path, wanted.method or "GET") in (True, False)


async def test_ten_watch_at_once_and_a_place_is_free_again() -> None:
    told: list[tuple[Watch, ...]] = []
    watchers = Watchers(told.append)
    watching = [watchers.open(CART) for _ in range(MOST_WATCHES)]
    with pytest.raises(TooManyWatches, match="10 others watch"):
        watchers.open(CART)
    watching[0].close()
    watching[0].close()
    assert len(told) == MOST_WATCHES + 1, "closing twice tells once"
    assert len(watchers.watches) == MOST_WATCHES - 1
    watchers.open(CART)


async def test_lines_reach_whom_they_are_for() -> None:
    watchers = Watchers(lambda _: None)
    first, second, gone = (watchers.open(CART) for _ in range(3))
    gone.close()
    numbers = [one.watch.number for one in (first, second, gone)]
    watchers.heard([TappedLine((numbers[0], numbers[2]), b"a"), TappedLine((numbers[1],), b"b")], [])
    watchers.heard([], [(numbers[1], 7), (numbers[2], 1)])
    assert await first.next(10) == ([b"a"], 0)
    assert await second.next(10) == ([b"b"], 7)
    assert await second.next(0.001) == ([], 0)


async def test_who_does_not_read_misses_lines_and_learns_how_many() -> None:
    watchers = Watchers(lambda _: None)
    slow: Any = watchers.open(CART)
    watchers.heard([TappedLine((slow.watch.number,), b"x")] * (MOST_WAITING + 5), [])
    lines, dropped = await slow.next(10)
    assert (len(lines), dropped) == (MOST_WAITING, 5)
