"""The fair queue: what must hold after any sequence of operations, and what it does for a neighbour."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.fair_queue import FairQueue, Waiter


class Checked:
    """A queue, and what it ought to know, kept in the plainest way."""

    def __init__(self, limit: int, places: int) -> None:
        self.queue = FairQueue(limit, places)
        self.running: Counter[str] = Counter()
        self.waiting: list[tuple[str, Waiter]] = []
        """In the order in which they came."""
        self.dropped: list[str] = []
        self.order: dict[Waiter, int] = {}

    def ask(self, source: str) -> bool | None:
        """Ask for a source; return True if it began, False if it waits, None if it was refused."""
        demand = self.demand()
        if self.queue.take(source):
            self.running[source] += 1
            return True
        told: list[tuple[str, Waiter]] = []

        def tell(admitted: bool) -> None:
            self.waiting.remove(told[0])
            if admitted:
                self.admitted(source, told[0][1])
            else:
                self.dropped.append(source)

        waiter = self.queue.wait(source, tell)
        if waiter is None:
            others = [demand[other] for other, _ in self.waiting]
            assert max(others, default=0) <= demand[source] + 1, "somebody who has more should give way"
            return None
        told.append((source, waiter))
        self.waiting.append(told[0])
        return False

    def admitted(self, source: str, waiter: Waiter) -> None:
        for other, earlier in self.waiting:
            assert self.running[source] <= self.running[other], "somebody who has less was passed over"
            if other == source:
                assert self.order[earlier] > self.order[waiter], "within a source, first come, first served"
        self.running[source] += 1

    def demand(self) -> Counter[str]:
        return self.running + Counter(source for source, _ in self.waiting)

    def check(self) -> None:
        queue = self.queue
        assert queue.in_progress == self.running.total()
        assert queue.waiting == len(self.waiting) <= queue.places
        assert not self.waiting or queue.in_progress >= queue.limit, "a place stays empty"
        assert set(queue._sources) == set(self.demand()), "who has nothing is forgotten"


operations = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 4)),
        st.tuples(st.just("end"), st.integers(0, 30)),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("limit"), st.integers(1, 6)),
    ),
    max_size=150,
)


@given(st.integers(1, 5), st.integers(0, 8), operations)
def test_any_sequence(limit: int, places: int, steps: list[tuple[str, int]]) -> None:
    checked = Checked(limit, places)
    for number, (what, value) in enumerate(steps):
        if what == "ask":
            if checked.ask("abcde"[value]) is False:
                checked.order[checked.waiting[-1][1]] = number
        elif what == "end" and checked.running:
            source = sorted(checked.running.elements())[value % checked.running.total()]
            checked.running[source] -= 1
            checked.running += Counter()  # without zeros
            checked.queue.end(source)
        elif what == "leave" and checked.waiting:
            _, waiter = checked.waiting.pop(value % len(checked.waiting))
            checked.queue.leave(waiter)
            checked.queue.leave(waiter)  # once more changes nothing
        elif what == "limit":
            checked.queue.set_limit(value)
        checked.check()


def test_one_that_leaves_after_its_turn_came_gives_its_place_back() -> None:
    queue = FairQueue(1, 2)
    told: list[str] = []
    assert queue.take("a")
    first = queue.wait("b", lambda admitted: told.append(f"first {admitted}"))
    second = queue.wait("b", lambda admitted: told.append(f"second {admitted}"))
    assert first
    assert second
    queue.end("a")
    queue.leave(first)  # its client left before it could begin
    assert told == ["first True", "second True"]
    queue.end("b")
    assert (queue.in_progress, queue.waiting) == (0, 0)


def test_a_full_queue_makes_room_for_who_has_least_and_not_back_again() -> None:
    queue = FairQueue(2, 2)
    told: list[str] = []

    def teller(name: str) -> Callable[[bool], None]:
        return lambda admitted: told.append(f"{name} {admitted}")

    assert queue.take("greedy")
    assert queue.take("greedy")
    assert queue.wait("greedy", teller("g1"))
    assert queue.wait("greedy", teller("g2"))
    assert queue.wait("modest", teller("m1"))
    assert told == ["g2 False"]
    assert queue.wait("greedy", teller("g3")) is None
    queue.end("greedy")
    assert told == ["g2 False", "m1 True"]


def simulate(
    enter: Callable[[FairQueue, str, Callable[[bool], None]], bool | None],
    *,
    greedy: int,
    seconds: float = 60.0,
    seed: int = 1,
    work: Callable[[random.Random], float] = lambda draw: draw.expovariate(100),
) -> tuple[list[float], int]:
    """Play a Service of ten places and 10 ms a request; return the neighbour's times, and its refusals.

    `work` says how long a request takes: by default a random time, exponentially distributed.

    The neighbour asks 200 times a second, a fifth of what the Service can do. The greedy pod keeps `greedy`
    requests under way: a refused one asks again after 10 ms.
    """
    draw = random.Random(seed)
    queue = FairQueue(10, 50)
    events: list[tuple[float, int, Callable[[float], None]]] = []
    number = itertools.count()
    times: list[float] = []
    refused = 0

    def at(when: float, call: Callable[[float], None]) -> None:
        heapq.heappush(events, (when, next(number), call))

    def ask(now: float, source: str) -> None:
        nonlocal refused

        def tell(admitted: bool) -> None:
            if admitted:
                at(clock + work(draw), finish)
            elif source == "greedy":
                at(clock + 0.01, lambda then: ask(then, source))
            else:
                nonlocal refused
                refused += 1

        def finish(then: float) -> None:
            if source == "greedy":
                at(then, lambda after: ask(after, source))
            else:
                times.append(then - now)
            queue.end(source)

        outcome = enter(queue, source, tell)
        if outcome is not False:
            tell(bool(outcome))

    def arrive(now: float) -> None:
        ask(now, "neighbour")
        at(now + draw.expovariate(200), arrive)

    clock = 0.0
    at(0.0, arrive)
    for _ in range(greedy):
        at(0.0, lambda now: ask(now, "greedy"))
    while clock < seconds:
        clock, _, call = heapq.heappop(events)
        call(clock)
    return sorted(times), refused


def fair(queue: FairQueue, source: str, tell: Callable[[bool], None]) -> bool | None:
    """Enter as requests do: True if at once, False if later, None if not at all."""
    if queue.take(source):
        return True
    return None if queue.wait(source, tell) is None else False


def test_a_pod_at_ten_times_saturation_does_not_double_a_neighbours_p99() -> None:
    alone, _ = simulate(fair, greedy=0)
    beside, refused = simulate(fair, greedy=100)
    assert refused == 0
    assert beside[len(beside) * 99 // 100] < 1.2 * alone[len(alone) * 99 // 100]


def test_where_all_requests_take_equally_long_a_neighbour_waits_for_one_at_most() -> None:
    """The greedy pod's requests begin and end together, so no place becomes free in between."""
    alone, _ = simulate(fair, greedy=0, work=lambda _draw: 0.01)
    beside, refused = simulate(fair, greedy=100, work=lambda _draw: 0.01)
    assert refused == 0
    assert alone[len(alone) * 99 // 100] < 0.0101
    assert beside[len(beside) // 2] < 1.6 * 0.01
    assert 1.8 * 0.01 < beside[len(beside) * 99 // 100] < 2.2 * 0.01


def test_where_requests_take_from_half_to_half_more_a_neighbour_hardly_waits() -> None:
    def work(draw: random.Random) -> float:
        return 0.01 * draw.uniform(0.5, 1.5)

    alone, _ = simulate(fair, greedy=0, work=work)
    beside, refused = simulate(fair, greedy=100, work=work)
    assert refused == 0
    assert beside[len(beside) * 99 // 100] < 1.35 * alone[len(alone) * 99 // 100]


def test_without_fairness_it_does_worse() -> None:
    """Who is in one queue with everybody else: what the test above would see if the queue were not fair."""

    def first_come(queue: FairQueue, source: str, tell: Callable[[bool], None]) -> bool | None:
        return fair(_AsOne(queue), source, tell)  # type: ignore[arg-type]

    alone, _ = simulate(fair, greedy=0)
    with pytest.MonkeyPatch.context() as patch:
        end = FairQueue.end
        patch.setattr(FairQueue, "end", lambda queue, _source: end(queue, "all"))
        beside, refused = simulate(first_come, greedy=100)
    assert refused > len(beside) / 10
    assert beside[len(beside) // 2] > 4 * alone[len(alone) // 2]


class _AsOne:
    """A queue that takes all sources for one."""

    def __init__(self, queue: FairQueue) -> None:
        self._queue = queue

    def take(self, _source: str) -> bool:
        return self._queue.take("all")

    def wait(self, _source: str, tell: Callable[[bool], None]) -> Waiter | None:
        return self._queue.wait("all", tell)
