"""The breakers of several workers of one node against a model that keeps a list of what happened.

The windows are the real ones, in memory that the workers share. Time is a number of milliseconds, always a
multiple of 7: no limit of the breaker is one, so nothing depends on how a time is rounded.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from middleware.circuit_breaker_options import FEWEST_OUTCOMES, Options
from middleware.circuit_breaker_states import CircuitBreaker, State
from middleware.condition import Condition
from middleware.expression_parser import parse_expression
from nodeagent.stats import windows
from nodeagent.stats.windows import SharedWindows

WORKERS = 3
CONDITION = Condition(parse_expression("NetworkErrorRatio() > 0.5 || LatencyAtQuantileMS(50.0) >= 1000"))
FIRST = 1_000_006


class Waiting(NamedTuple):
    """A request that has passed and is not answered yet."""

    worker: int
    opened: int
    """What the breaker goes by."""
    openings: int
    """How often the breaker had opened, by the model."""


class Answer(NamedTuple):
    """An outcome, as the model keeps it."""

    second: int
    failed: bool
    slow: bool


class Node(RuleBasedStateMachine):
    """The real breakers, and beside them the model."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = SharedWindows.create(WORKERS)
        self.breakers = [self.start(index) for index in range(WORKERS)]
        self.now = FIRST
        self.waiting: list[Waiting] = []
        self.told: list[State] = []
        # The model:
        self.openings: list[int] = []
        self.answers: list[Answer] = []
        """Since the last opening, of requests that came after it."""
        self.asked = [0] * WORKERS
        """When a worker last asked the condition."""
        self.shares = [0.0] * WORKERS
        """What a worker may let through in this recovery."""
        self.passed = [0] * WORKERS
        self.expected: list[State] = []
        """What people should have been told."""

    def start(self, index: int) -> CircuitBreaker:
        node = SharedWindows(self.memory.fd, WORKERS, index, now=lambda: self.now / 1000)
        return CircuitBreaker(CONDITION, node.window(b"breaker", CONDITION.counters))

    def teardown(self) -> None:
        os.close(self.memory.fd)

    @property
    def since(self) -> int:
        """Milliseconds since the last opening."""
        return self.now - self.openings[-1] if self.openings else 10**9

    @property
    def state(self) -> State:
        if self.since < 10_000:
            return State.OPEN
        return State.RECOVERING if self.since < 20_000 else State.CLOSED

    @rule(milliseconds=st.sampled_from([7, 35, 105, 1_001, 2_506, 7_007, 12_005, 61_005]))
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds

    @rule(worker=st.integers(0, WORKERS - 1))
    def request(self, worker: int) -> None:
        breaker, now = self.breakers[worker], self.now / 1000
        opened = breaker._window.moment()
        passes = True
        if opened != breaker.settled:
            self.told += [change.state for change in breaker.advance(now, opened) if change.first]
            passes = breaker.admit(now)
        assert breaker.state is self.state
        if self.state is State.RECOVERING:
            self.shares[worker] += (self.since - 10_000) / 10_000
            self.passed[worker] += passes
            assert -1e-6 < self.shares[worker] - self.passed[worker] < 1 + 1e-6
        else:
            assert passes == (self.state is State.CLOSED)
        self.tell()
        if passes:
            self.waiting.append(Waiting(worker, opened, len(self.openings)))

    @precondition(lambda self: self.waiting)
    @rule(
        which=st.integers(0, 1000),
        failed=st.booleans() | st.just(True),
        slow=st.sampled_from([False, False, False, True]),
    )
    def answer(self, which: int, failed: bool, slow: bool) -> None:
        waiting = self.waiting.pop(which % len(self.waiting))
        opens = self.model_answer(waiting, failed, slow)
        change = self.breakers[waiting.worker].record(
            self.now / 1000, waiting.opened, 1.0 if slow else 0.999, 502 if failed else 200
        )
        assert (change is not None) == opens
        if change is not None:
            assert (change.state, change.first) == (State.OPEN, True)
            self.told.append(change.state)
        assert self.told == self.expected

    @rule(worker=st.integers(0, WORKERS - 1), times=st.integers(3, 9), failed=st.booleans())
    def requests_one_after_another(self, worker: int, times: int, failed: bool) -> None:
        for _ in range(times):
            waiting = len(self.waiting)
            self.request(worker)
            if len(self.waiting) > waiting:
                self.answer(waiting, failed, False)
            self.now += 105

    @rule(worker=st.integers(0, WORKERS - 1), times=st.integers(3, 9))
    def requests_at_once(self, worker: int, times: int) -> None:
        for _ in range(times):
            self.request(worker)

    @precondition(lambda self: self.openings and any(one.openings == 0 for one in self.waiting))
    @rule()
    def what_waited_from_the_beginning_fails(self) -> None:
        for which in reversed(range(len(self.waiting))):
            if self.waiting[which].openings == 0:
                self.answer(which, True, True)

    @rule(worker=st.integers(0, WORKERS - 1))
    def a_worker_dies_and_another_takes_its_place(self, worker: int) -> None:
        self.breakers[worker] = self.start(worker)
        self.waiting = [waiting for waiting in self.waiting if waiting.worker != worker]
        self.asked[worker] = 0
        self.shares[worker], self.passed[worker] = 0.0, 0

    def model_answer(self, waiting: Waiting, failed: bool, slow: bool) -> bool:
        """Return whether the breaker opens."""
        if waiting.openings < len(self.openings):
            return False
        second = self.now // 1000
        self.answers.append(Answer(second, failed, slow))
        if self.now - self.asked[waiting.worker] < 100:
            return False
        self.asked[waiting.worker] = self.now
        window = [one for one in self.answers if one.second > second - 10]
        ratio = sum(one.failed for one in window) / len(window)
        slow_median = sorted(one.slow for one in window)[(len(window) - 1) // 2]
        fewest = 1 if self.state is State.RECOVERING else FEWEST_OUTCOMES
        if len(window) < fewest or not (ratio > 0.5 or slow_median):
            return False
        self.openings.append(self.now)
        self.answers = []
        self.shares, self.passed = [0.0] * WORKERS, [0] * WORKERS
        self.expected.append(State.OPEN)
        return True

    def tell(self) -> None:
        """The first worker after a state has ended has to log it, once for the node."""
        if self.openings:
            behind = {State.OPEN: 0, State.RECOVERING: 1, State.CLOSED: 2}
            done = behind[self.expected[-1]]
            self.expected += [State.RECOVERING, State.CLOSED][done : behind[self.state]]
        assert self.told == self.expected


TestNode = Node.TestCase
TestNode.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_an_open_breaker_that_is_asked_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another window wants its place meanwhile, and there is no other."""
    monkeypatch.setattr(windows, "PLACES", 1)
    monkeypatch.setattr(windows, "PROBES", 1)
    clock = [1000.0]
    memory = SharedWindows.create(1)
    try:
        node = SharedWindows(memory.fd, 1, now=lambda: clock[0])
        window = node.window(b"breaker", CONDITION.counters)
        breaker = CircuitBreaker(CONDITION, window, Options(open_for=600.0, samples=1))
        assert breaker.record(1000.0, window.moment(), 0.0, 502) is not None
        for clock[0] in (1030.0, 1060.0, 1090.0):
            assert list(breaker.advance(clock[0], window.moment())) == []
            assert not breaker.admit(clock[0])
        node.window(b"another", 1).add(1091.0, (0,), 0)
        assert window.moment() != 0
        clock[0] = 1151.0
        node.window(b"a third", 1).add(1151.0, (0,), 0)
        assert window.moment() == 0, "nobody has asked for a minute"
    finally:
        os.close(memory.fd)
