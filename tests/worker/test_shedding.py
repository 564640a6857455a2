"""When a worker refuses new requests, and when it takes them again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.worker.shedding import (
    CAUSE,
    FASTEST,
    LONGEST,
    LOWER,
    RELIEF,
    SHORTEST,
    UPPER,
    Shedding,
)

BUDGET = 320 * 1024 * 1024


def part(share: float) -> int:
    return int(BUDGET * share)


def test_it_begins_at_the_upper_mark_and_ends_at_the_lower_one() -> None:
    shedding = Shedding(BUDGET)
    seen = [shedding.look(part(share), lambda: part(0.5)) for share in (0.8, 0.86, 0.84, 0.76, 0.74, 0.84)]
    assert seen == [False, True, True, True, False, False]


def test_it_does_not_begin_if_requests_are_not_what_fills_the_process() -> None:
    shedding = Shedding(BUDGET)
    assert not shedding.look(part(2.0), lambda: part(CAUSE))
    assert shedding.look(part(2.0), lambda: part(CAUSE) + 1)


def test_it_ends_with_the_requests_though_the_process_stays_large() -> None:
    shedding = Shedding(BUDGET)
    assert shedding.look(part(1.0), lambda: part(0.5))
    assert shedding.look(part(1.0), lambda: part(RELIEF) + 1)
    assert not shedding.look(part(1.0), lambda: part(RELIEF))


def test_below_the_mark_nobody_counts() -> None:
    def counted() -> int:
        raise AssertionError("counting costs time")

    assert not Shedding(BUDGET).look(part(UPPER), counted)


@given(st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 2.0))))
def test_its_marks_hold_for_every_course(course: list[tuple[float, float]]) -> None:
    """It changes only at the marks: on above both upper ones, off below either lower one."""
    shedding = Shedding(BUDGET)
    before = False
    for used, held in course:
        on = shedding.look(part(used), lambda held=held: part(held))  # type: ignore[misc]
        if on and not before:
            assert part(used) > part(UPPER)
            assert part(held) > part(CAUSE)
        if before and not on:
            assert part(used) <= BUDGET * LOWER or part(held) <= BUDGET * RELIEF
        before = on


@pytest.mark.parametrize(
    ("used", "connections", "seconds"),
    [
        (0.1, 0, min(LONGEST, part(UPPER - 0.1) / FASTEST)),
        (UPPER, 0, SHORTEST),
        (2.0, 10_000, 0.1),
        (2.0, 50_000, 0.5),
    ],
)
def test_the_next_look(used: float, connections: int, seconds: float) -> None:
    assert Shedding(BUDGET).next_look(part(used), connections) == pytest.approx(seconds, abs=1e-6)


@given(st.floats(0.0, UPPER))
def test_it_looks_before_the_process_can_have_filled_its_budget(share: float) -> None:
    wait = Shedding(BUDGET).next_look(part(share), 0)
    assert part(share) + wait * FASTEST <= BUDGET * UPPER + SHORTEST * FASTEST
