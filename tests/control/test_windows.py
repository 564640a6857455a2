from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from middleware.contract import MOST_COUNTERS
from middleware.testing import FakeWindow
from nodeagent.stats import windows as module
from nodeagent.stats.region import RegionError
from nodeagent.stats.windows import IDLE, PLACES, RETRY, SharedWindow, SharedWindows, owner_of

WORKERS = 3


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node(clock: Clock) -> Iterator[list[SharedWindows]]:
    """The windows of a node as each of its workers has them."""
    made = SharedWindows.create(WORKERS)
    yield [SharedWindows(os.dup(made.fd), WORKERS, index, now=clock) for index in range(WORKERS)]
    made.close()


def count(window: SharedWindow, now: float, *indices: int) -> bool:
    return window.add(now, indices, window.moment())


def test_counts_of_all_workers_are_summed(node: list[SharedWindows]) -> None:
    shared = [worker.window(b"a", 3) for worker in node]
    for number, window in enumerate(shared):
        assert count(window, 1000.0 + number, 0, number)
    for window in shared:
        assert list(window.sums(1002.5)) == [4, 1, 1]
    assert list(shared[0].sums(1009.9)) == [4, 1, 1]
    assert list(shared[0].sums(1010.0)) == [2, 1, 1], "the first second is forgotten"
    other = node[0].window(b"b", 3)
    assert list(other.sums(1002.5)) == [0, 0, 0]
    assert list(node[0].window(b"a", 2).sums(1002.5)) == [0, 0], "of as many counters, too"


def test_the_moment_forgets_what_was_counted_and_what_began_before(node: list[SharedWindows]) -> None:
    first, second = node[0].window(b"a", 1), node[1].window(b"a", 1)
    assert count(first, 1000.0, 0)
    assert second.begin(1000.5, 0)
    assert first.moment() == 1_000_500_000_000
    assert not first.begin(1000.5, 0)
    assert not first.add(1003.0, (0,), 0)
    assert list(first.sums(1003.0)) == [0]
    assert count(first, 1003.0, 0)
    assert list(second.sums(1003.0)) == [1]


def test_a_stage_is_reached_once(node: list[SharedWindows]) -> None:
    first, second = node[0].window(b"a", 1), node[1].window(b"a", 1)
    assert first.begin(1000.0, 0)
    moment = first.moment()
    assert [second.reach(moment, 1), first.reach(moment, 1)] == [True, False]
    assert [first.reach(moment, 2), second.reach(moment, 1), second.reach(moment, 2)] == [True, False, False]
    assert second.begin(1001.0, moment)
    assert not first.reach(moment, 3)
    assert first.reach(second.moment(), 1)


@pytest.mark.parametrize("counters", [0, MOST_COUNTERS + 1])
def test_counters_are_bounded(node: list[SharedWindows], counters: int) -> None:
    with pytest.raises(ValueError, match="1 to 31 counters"):
        node[0].window(b"a", counters)


steps = st.lists(
    st.tuples(
        st.integers(0, WORKERS - 1),
        st.sampled_from([0.0, 0.25, 1.0, 3.5, 9.0, 40.0]),
        st.sampled_from(["add", "add", "add", "add late", "begin", "begin late", "reach"]),
        st.sets(st.integers(0, 2)),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(steps)
def test_it_is_what_the_fake_is(steps: list[tuple[int, float, str, set[int]]]) -> None:
    """So what is tested with `middleware.testing.FakeWindow` is tested of this."""
    clock, fake = Clock(), FakeWindow(3)
    made = SharedWindows.create(WORKERS)
    try:
        shared = [
            SharedWindows(made.fd, WORKERS, index, now=clock).window(b"a", 3) for index in range(WORKERS)
        ]
        early = 0
        for worker, gap, action, indices in steps:
            clock.time += gap
            now, window = clock.time, shared[worker]
            moment = early if action.endswith("late") else fake.moment()
            early = fake.moment()
            assert window.moment() == fake.moment()
            if action.startswith("add"):
                assert window.add(now, indices, moment) == fake.add(now, indices, moment)
            elif action.startswith("begin"):
                assert window.begin(now, moment) == fake.begin(now, moment)
            else:
                assert window.reach(moment, len(indices)) == fake.reach(moment, len(indices))
            assert [list(one.sums(now)) for one in shared] == [fake.sums(now)] * WORKERS
    finally:
        os.close(made.fd)


def rivals() -> Iterator[bytes]:
    """Yield keys whose windows can only be in one and the same place, if there is but one probe."""
    keys = (b"rival %d" % number for number in itertools.count())
    first = next(keys)
    yield first
    yield from (key for key in keys if (owner_of(key, 1) - owner_of(first, 1)) % PLACES == 0)


@pytest.fixture
def one_place(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    monkeypatch.setattr(module, "PROBES", 1)
    return list(itertools.islice(rivals(), 2))


def test_without_a_place_a_worker_counts_for_itself(
    node: list[SharedWindows], clock: Clock, one_place: list[bytes]
) -> None:
    taken = node[0].window(one_place[0], 1)
    assert count(taken, clock.time, 0)
    with structlog.testing.capture_logs() as logs:
        without = [worker.window(one_place[1], 1) for worker in node[:2]]
        assert [count(window, clock.time, 0) for window in without] == [True, True]
        assert without[0].begin(clock.time, 0)
        assert [window.moment() > 0 for window in without] == [True, False]
        clock.time += 2
        assert [count(window, clock.time, 0) for window in without] == [True, True]
        assert [list(window.sums(clock.time)) for window in without] == [[1], [2]]
    assert [line["event"] for line in logs] == ["node_windows_exhausted"] * 2, "once by each worker"
    assert list(taken.sums(clock.time)) == [1]


def test_it_gets_a_place_that_nobody_has_used_for_a_minute(
    node: list[SharedWindows], clock: Clock, one_place: list[bytes]
) -> None:
    idle, waiting = node[0].window(one_place[0], 1), [worker.window(one_place[1], 1) for worker in node[:2]]
    count(idle, clock.time, 0)
    assert idle.begin(clock.time, 0)
    clock.time += IDLE + 1 - RETRY
    assert [count(window, clock.time, 0) for window in waiting] == [True, True]
    clock.time += RETRY
    assert [count(window, clock.time, 0) for window in waiting] == [True, True]
    assert [list(window.sums(clock.time)) for window in waiting] == [[2], [2]]
    assert idle.moment() == 0, "it has no place now"
    assert list(idle.sums(clock.time)) == [0]
    assert [window.moment() for window in waiting] == [0, 0], "nor is another's moment theirs"


def test_a_place_in_use_is_kept(node: list[SharedWindows], clock: Clock, one_place: list[bytes]) -> None:
    used, waiting = node[0].window(one_place[0], 1), node[1].window(one_place[1], 1)
    for _ in range(10):
        clock.time += RETRY
        assert count(used, clock.time, 0)
        assert count(waiting, clock.time, 0)
    assert list(node[2].window(one_place[0], 1).sums(clock.time)) == [1]


def test_what_an_earlier_owner_still_writes_does_not_count(
    node: list[SharedWindows], clock: Clock, one_place: list[bytes]
) -> None:
    before, after = node[0].window(one_place[0], 1), node[1].window(one_place[1], 1)
    count(before, clock.time, 0)
    clock.time += IDLE + 1
    before._turn(clock.time)
    node[0].cells[before._at + 1] -= (
        IDLE + 1
    )  # as if it had looked at its head just before the place is taken
    assert count(after, clock.time, 0)
    node[0].cells[before._bucket] += 1
    assert list(after.sums(clock.time)) == [1]


def test_windows_of_another_number_of_workers_are_refused(node: list[SharedWindows]) -> None:
    with pytest.raises(RegionError, match="bytes instead of"):
        SharedWindows(node[0].fd, WORKERS + 1)


def test_only_what_is_used_costs_memory() -> None:
    made = SharedWindows.create(8)
    try:
        for number in range(10):
            count(made.window(b"%d" % number, 5), 1000.0, 0)
        assert os.fstat(made.fd).st_blocks * 512 <= 10 * 2 * 4096
    finally:
        made.close()


PRELUDE = (
    "import os, sys; from nodeagent.stats.windows import SharedWindows\n"
    f"windows = SharedWindows(int(sys.argv[1]), {WORKERS}, index=1, now=lambda: 1000.0)\n"
    "window = windows.window(b'a', 2)\n"
)


@pytest.fixture
def spawn(node: list[SharedWindows]) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    children = []

    def start(script: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", PRELUDE + script, str(node[0].fd)]
        child = subprocess.Popen(
            command, pass_fds=[node[0].fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


Spawn = Callable[[str], "subprocess.Popen[bytes]"]


def test_what_one_process_counts_another_sums(node: list[SharedWindows], spawn: Spawn) -> None:
    window = node[0].window(b"a", 2)
    count(window, 1000.0, 1)
    for expected in ([1, 2], [2, 3]):  # a second worker in the same place goes on counting
        assert spawn("window.add(1000.0, (0, 1), window.moment())").wait() == 0
        assert list(window.sums(1000.0)) == expected


def test_a_worker_killed_while_it_makes_a_bucket_leaves_nothing_that_counts(
    node: list[SharedWindows], spawn: Spawn
) -> None:
    window = node[0].window(b"a", 2)
    count(window, 1000.0, 0)
    child = spawn(
        "window.add(1000.0, (0, 1), window.moment())\n"
        "cells = windows.cells; cells[window._bucket - 1] = 0\n"
        "os.kill(os.getpid(), 9)"
    )
    assert child.wait() == -signal.SIGKILL
    assert list(window.sums(1000.0)) == [1, 0]
    assert spawn("window.add(1000.0, (1,), window.moment())").wait() == 0
    assert list(window.sums(1000.0)) == [1, 1]


def test_only_one_of_many_begins(node: list[SharedWindows], spawn: Spawn) -> None:
    script = (
        "sys.stdin.readline()\n"
        "print(sum(window.begin(1000 + n, n and 10**9 * (999 + n)) for n in range(500)))"
    )
    children = [spawn(script) for _ in range(4)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
    begun = [int(child.communicate()[0]) for child in children]
    assert sum(begun) == 500
    assert node[0].window(b"a", 2).moment() == 1499 * 10**9


def test_a_stopped_worker_that_holds_the_lock_stops_nobody(
    node: list[SharedWindows], clock: Clock, spawn: Spawn
) -> None:
    window = node[0].window(b"a", 2)
    count(window, 1000.0, 0)
    child = spawn("windows.lock(); print('in', flush=True); sys.stdin.readline(); windows.unlock()")
    assert child.stdout is not None
    assert child.stdout.readline() == b"in\n"
    child.send_signal(signal.SIGSTOP)
    forgone: list[None] = []
    worker = SharedWindows(node[0].fd, WORKERS, 2, lambda: forgone.append(None), clock)
    other, unknown = worker.window(b"a", 2), worker.window(b"b", 2)
    assert count(other, 1000.0, 0), "no lock is needed to count, nor to find a place"
    assert list(window.sums(1000.0)) == [2, 0]
    assert forgone == []
    assert count(unknown, 1000.0, 0), "it counts for itself until it can take a place"
    assert len(forgone) == 1
    assert other.begin(1000.5, 0)
    assert other.reach(window.moment(), 1)
    assert len(forgone) == 3
    child.send_signal(signal.SIGCONT)
    child.communicate(b"\n")
    clock.time += RETRY
    assert count(unknown, clock.time, 0)
    assert list(node[0].window(b"b", 2).sums(clock.time)) == [1, 0]
