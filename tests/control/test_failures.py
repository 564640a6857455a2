"""The memory of failures: bounded, newest first, of one Service or all; and that of several agents."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.stats.failures import (
    MOST,
    MOST_OF_SERVICE,
    MOST_SERVICES,
    FailureLine,
    FailureMemory,
    Failures,
    ServiceFailures,
    merge_failures,
)


def line(service: str, number: int) -> FailureLine:
    return FailureLine(
        service, json.dumps({"number": number, "time": f"2026-01-01T00:00:{number:02}Z"}).encode()
    )


def shown(page: Failures) -> Any:
    return json.loads(msgspec.json.encode(page))


def test_newest_first_and_of_one_service() -> None:
    memory = FailureMemory("node-1", 5.0)
    memory.heard([line("shop/cart", 1), line("shop/pay", 2), line("shop/cart", 3)], [("shop/cart", 4)])
    page = shown(memory.show())
    assert [one["number"] for one in page["failures"]] == [3, 2, 1]
    assert (page["node"], page["since"], page["seen"], page["left_out"], page["kept"]) == (
        "node-1",
        5,
        3,
        4,
        3,
    )
    assert page["services"] == [
        {"service": "shop/cart", "seen": 2, "left_out": 4},
        {"service": "shop/pay", "seen": 1, "left_out": 0},
    ]
    page = shown(memory.show("shop/cart", 1))
    assert [one["number"] for one in page["failures"]] == [3]
    assert (page["seen"], page["left_out"], page["kept"], page["services"]) == (2, 4, 2, [])
    assert shown(memory.show("shop/none"))["seen"] == 0


def test_one_service_in_trouble_does_not_hide_another() -> None:
    memory = FailureMemory("", 0.0)
    memory.heard([line("shop/quiet", 1)], [])
    memory.heard([line("shop/loud", number % 60) for number in range(MOST + 1)], [])
    assert [one["number"] for one in shown(memory.show("shop/quiet"))["failures"]] == [1]
    assert memory.show("shop/loud").kept == MOST_OF_SERVICE
    assert memory.show().kept == MOST
    assert memory.show().seen == MOST + 2


@given(st.lists(st.tuples(st.integers(0, MOST_SERVICES + 20), st.booleans()), max_size=400))
def test_what_is_remembered_is_bounded_and_the_sums_hold(events: list[tuple[int, bool]]) -> None:
    memory = FailureMemory("", 0.0)
    for number, whole in events:
        service = f"shop/s{number}"
        memory.heard([line(service, 0)] if whole else [], [] if whole else [(service, 2)])
    page = memory.show("", MOST)
    assert len(page.services) <= MOST_SERVICES
    assert page.seen == sum(whole for _, whole in events)
    assert page.left_out == 2 * sum(not whole for _, whole in events)
    if events:
        assert page.services[0].service == f"shop/s{events[-1][0]}"


def test_what_agents_say_together() -> None:
    one = Failures(
        "a",
        9.0,
        2,
        1,
        2,
        [{"time": "2026-01-01T00:00:02.5Z", "n": 1}, {"n": 4}],
        [ServiceFailures("s/x", 2, 1)],
    )
    two = Failures(
        "b", 3.0, 1, 0, 1, [{"time": "2026-01-01T00:00:02Z", "n": 2}], [ServiceFailures("s/x", 1, 0)]
    )
    both = merge_failures([one, two], 2)
    assert [failure["n"] for failure in both.failures] == [1, 2]
    assert (both.node, both.since, both.seen, both.left_out, both.kept) == ("", 3.0, 3, 1, 3)
    assert both.services == [ServiceFailures("s/x", 3, 1)]
    assert merge_failures([one]).node == "a"
    assert merge_failures([]).failures == []
