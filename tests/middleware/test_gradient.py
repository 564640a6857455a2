"""The adaptive limit, against simulated Services."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.gradient import MEASURE_SAMPLES, Gradient


class Simulated:
    """A Service that works on `parallel` requests at once, `takes` seconds each; the others wait in it.

    As many requests are under way as the limit allows, at most `demand`.
    """

    def __init__(self, *, parallel: int, takes: float, demand: int, least: int = 3, most: int = 1000) -> None:
        self.takes = takes
        self.parallel = parallel
        self.demand = demand
        self.draw = random.Random(7)
        self.gradient = Gradient(least, most, 0.0, self.draw.random)
        self.now = 0.0
        self.limits: list[tuple[float, int]] = []
        self.latencies: list[float] = []
        self._servers = [0.0] * parallel
        self._running: list[tuple[float, float]] = []

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            while len(self._running) < min(self.gradient.limit, self.demand):
                self._send()
            done, began = heapq.heappop(self._running)
            self.now = max(self.now, done)
            self.latencies.append(self.now - began)
            if self.gradient.sample(began, self.now, len(self._running) + 1):
                self.limits.append((self.now, self.gradient.limit))

    def settled(self, since: float) -> list[int]:
        """The limits that were in force, without measurements."""
        return [limit for when, limit in self.limits if when >= since and limit > self.gradient._least]

    def _send(self) -> None:
        free = heapq.heappop(self._servers)
        done = max(free, self.now) + self.takes * self.draw.uniform(0.8, 1.2)
        heapq.heappush(self._servers, done)
        heapq.heappush(self._running, (done, self.now))


@pytest.mark.parametrize(("parallel", "takes"), [(8, 0.01), (20, 0.01), (100, 0.05), (20, 0.3)])
def test_it_finds_what_a_service_can_do_and_stays_there(parallel: int, takes: float) -> None:
    service = Simulated(parallel=parallel, takes=takes, demand=10 * parallel)
    service.run(600)
    limits = service.settled(120)
    assert parallel <= min(limits), "it could do more"
    assert max(limits) <= 2.25 * parallel, "an overload that lasts does not raise the limit"
    late = sorted(service.latencies[len(service.latencies) // 2 :])
    assert late[len(late) * 99 // 100] < 2.2 * takes  # without a limit: ten times


def test_a_service_that_gets_slower_for_good_is_measured_anew() -> None:
    service = Simulated(parallel=20, takes=0.01, demand=200)
    service.run(120)
    service.takes = 0.03
    service.run(180)
    assert service.gradient.base == pytest.approx(0.03, rel=0.3)
    assert 20 <= min(service.settled(240)) <= max(service.settled(240)) <= 40


def test_a_service_that_is_hardly_used_is_not_held_back() -> None:
    service = Simulated(parallel=20, takes=0.01, demand=5)
    service.run(300)
    assert [limit for _, limit in service.limits] == [20]
    service.takes = 0.02
    service.run(60)
    assert service.gradient.base == pytest.approx(0.02, rel=0.3)


def test_what_was_slow_before_a_measurement_is_not_part_of_it() -> None:
    gradient = Gradient(3, 100, 10.0, lambda: 0.0)
    for _ in range(50):
        gradient.sample(9.0, 11.0, 3)
    assert gradient.base is None
    for _ in range(MEASURE_SAMPLES):
        gradient.sample(11.0, 11.01, 3)
    assert gradient.base == pytest.approx(0.01)
    assert gradient.limit == 20


@given(
    st.tuples(st.integers(1, 50), st.integers(0, 500)),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10), st.integers(1, 1000)), max_size=200),
)
def test_the_limit_stays_within_its_bounds(
    bounds: tuple[int, int], samples: list[tuple[float, float, int]]
) -> None:
    least, most = bounds[0], bounds[0] + bounds[1]
    gradient = Gradient(least, most, 0.0, lambda: 0.5)
    now = 0.0
    limit: Callable[[], int] = lambda: gradient.limit  # noqa: E731
    for gap, latency, in_progress in samples:
        now += gap
        before = limit()
        assert gradient.sample(now - latency, now, in_progress) == (limit() != before)
        assert least <= limit() <= most
