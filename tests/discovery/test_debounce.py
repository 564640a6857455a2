"""A lone change is applied at once, a burst costs a few applications, and no change waits for ever."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.debounce import Debounce


def ready() -> Debounce:
    debounce = Debounce()
    debounce.synced(0.0)
    debounce.applied(0.0, 0.0)
    return debounce


def test_nothing_is_applied_before_everything_was_told_once() -> None:
    debounce = Debounce()
    assert debounce.changed(1.0) == math.inf
    assert debounce.due == math.inf
    assert debounce.synced(2.0) == 2.0


def test_the_first_sync_is_applied_even_if_nothing_exists() -> None:
    assert Debounce().synced(5.0) == 5.0


def test_a_later_sync_alone_is_no_change() -> None:
    assert ready().synced(9.0) == math.inf


def test_a_lone_change_is_applied_at_once() -> None:
    debounce = ready()
    assert debounce.changed(10.0) == 10.0
    assert debounce.applied(10.001, 0.001) == math.inf


@pytest.mark.parametrize(("took", "wait"), [(0.0, 0.010), (0.001, 0.010), (0.02, 0.08), (7.0, 1.0)])
def test_the_next_waits_as_long_as_the_last_was_dear(took: float, wait: float) -> None:
    debounce = ready()
    debounce.changed(10.0)
    debounce.applied(10.0 + took, took)
    after = 10.0 + took
    assert debounce.changed(after) == pytest.approx(after + wait)
    assert debounce.changed(after + wait / 2) == pytest.approx(after + wait)


def test_the_application_of_everything_does_not_delay_the_first_change() -> None:
    debounce = Debounce()
    debounce.synced(0.0)
    debounce.applied(3.0, 3.0)
    assert debounce.changed(3.1) == 3.1
    debounce.applied(3.2, 0.1)
    assert debounce.changed(3.3) == pytest.approx(3.6)


def test_a_change_during_an_application_is_not_lost() -> None:
    debounce = ready()
    debounce.changed(10.0)
    debounce.changed(10.015)
    assert debounce.applied(10.02, 0.02) == pytest.approx(10.1)


def run(changes: list[float], took: float) -> list[tuple[float, float]]:
    """Play changes against a clock and return when each application began and ended."""
    debounce = ready()
    applications: list[tuple[float, float]] = []
    waiting = sorted(changes)
    now = 0.0
    while waiting or debounce.due < math.inf:
        if waiting and waiting[0] <= max(debounce.due, now):
            debounce.changed(waiting.pop(0))
            continue
        now = max(now, debounce.due)
        applications.append((now, now + took))
        while waiting and waiting[0] <= now + took:  # while it is being applied
            debounce.changed(waiting.pop(0))
        now += took
        debounce.applied(now, took)
    return applications


def test_a_burst_of_a_thousand_costs_a_few() -> None:
    assert len(run([10.0 + i * 1e-5 for i in range(1000)], took=0.005)) <= 3


@given(
    st.lists(st.floats(1, 20), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.001, 0.03, 0.5]),
)
def test_every_change_is_applied_soon_and_applications_keep_their_distance(
    changes: list[float], took: float
) -> None:
    applications = run(changes, took)
    for change in changes:
        assert any(change <= begin <= change + took + 1.0 + 1e-6 for begin, _ in applications)
    pairs = pairwise(applications)
    assert all(begin - end >= min(max(0.010, 4 * took), 1.0) - 1e-6 for (_, end), (begin, _) in pairs)


def test_waiting_is_not_held_against_the_next_change() -> None:
    debounce = Debounce(shortest=0.01, factor=4.0, longest=1.0)
    debounce.synced(0.0)
    debounce.applied(0.0, 0.0)
    debounce.changed(0.0)
    debounce.applied(0.2, 0.2, cost=0.001)
    assert debounce.changed(0.3) == 0.3
    assert debounce.applied(0.301, 0.001, cost=0.1) == math.inf
    assert debounce.changed(0.302) == pytest.approx(0.701)
