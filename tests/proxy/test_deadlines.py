"""Deadlines: none passes early, all pass soon, none that was taken back passes, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.proxy.deadlines import FINEST, Deadline, Deadlines

TIMES = st.floats(0.0, 200.0)


class Handle:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """A clock that stands still, and a loop's timers on it."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.timers: list[Handle] = []

    def now(self) -> float:
        return self.time

    def call_later(self, delay: float, call: Callable[[], None]) -> Handle:
        handle = Handle(self.time + delay, call)
        self.timers.append(handle)
        return handle

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.time + seconds
        while due := [timer for timer in self.timers if not timer.cancelled and timer.when <= end]:
            timer = min(due, key=lambda one: one.when)
            self.timers.remove(timer)
            self.time = max(self.time, timer.when)
            timer.call()
        self.timers = [timer for timer in self.timers if not timer.cancelled]
        self.time = end


def make() -> tuple[Clock, Deadlines]:
    clock = Clock()
    return clock, Deadlines(cast("asyncio.AbstractEventLoop", clock), clock.now)


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 200.0), st.floats(0.001, 200.0), st.one_of(st.none(), st.floats(0.0, 200.0))
        ),
        max_size=12,
    )
)
def test_each_passes_once_in_its_time_unless_it_was_taken_back(
    plans: list[tuple[float, float, float | None]],
) -> None:
    clock, deadlines = make()
    passed: dict[int, float] = {}
    running: dict[int, Any] = {}
    events: list[tuple[float, int, str]] = []
    for number, (start, _, cancel) in enumerate(plans):
        events.append((start, number, "set"))
        if cancel is not None:
            events.append((start + cancel, number, "cancel"))
    for moment, number, event in sorted(events, key=lambda one: (one[0], one[2] == "cancel")):
        clock.advance(max(0.0, 1000.0 + moment - clock.time))
        if event == "set":

            def call(number: int = number) -> None:
                assert number not in passed
                passed[number] = clock.time

            running[number] = deadlines.set(plans[number][1], call)
        else:
            running[number].cancel()
            assert not running[number].runs
    clock.advance(1000.0)
    for number, (start, seconds, cancel) in enumerate(plans):
        begun, latest = 1000.0 + start, seconds / 64 + 3 * FINEST / 1000
        if number in passed:
            assert -0.002 <= passed[number] - begun - seconds <= latest
            assert cancel is None or cancel >= seconds - 0.002
        else:
            assert cancel is not None
            assert cancel <= seconds + latest
    assert not clock.timers
    assert not any(deadline.runs for deadline in running.values())


def test_one_may_take_back_others_that_pass_with_it() -> None:
    clock, deadlines = make()
    passed = []
    others: list[Deadline] = []

    def first() -> None:
        passed.append(True)
        for other in others:
            other.cancel()

    others += [deadlines.set(1.0, first) for _ in range(5)]
    clock.advance(2.0)
    assert len(passed) == 1


def test_one_that_passes_may_set_another() -> None:
    clock, deadlines = make()
    passed: list[float] = []

    def again() -> None:
        deadlines.set(1.0, lambda: passed.append(clock.time))

    deadlines.set(1.0, again)
    clock.advance(1.5)
    assert not passed
    clock.advance(1.0)
    assert len(passed) == 1


def test_many_of_one_length_share_few_buckets() -> None:
    clock, deadlines = make()
    for _ in range(10_000):
        deadlines.set(30.0, lambda: None).cancel()
        clock.advance(0.001)
    assert len(deadlines._buckets) < 100
    assert len(clock.timers) <= 1


def test_nothing_passes_after_the_end() -> None:
    clock, deadlines = make()
    deadlines.set(1.0, lambda: (_ for _ in ()).throw(AssertionError))
    deadlines.close()
    clock.advance(10.0)


class Owner:
    """Has a deadline that calls one of its methods, as a request has."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.limit = deadlines.set(1.0, self.passed)

    def passed(self) -> None:
        """Its time is over."""


def test_one_that_is_over_keeps_nothing_alive() -> None:
    """Else every request with a time limit would be garbage that only the collector finds."""
    clock, deadlines = make()
    cancelled, expired = Owner(deadlines), Owner(deadlines)
    cancelled.limit.cancel()
    gone = [weakref.ref(cancelled), weakref.ref(expired)]
    clock.advance(2.0)
    enabled = gc.isenabled()
    gc.disable()
    try:
        del cancelled, expired
        assert [one() for one in gone] == [None, None]
    finally:
        if enabled:
            gc.enable()
