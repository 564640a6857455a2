"""Round robin: everybody in turn, those that refuse last, and never nobody while there is somebody."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.plan.model import Upstream
from nodeagent.proxy.balancer import FIRST_PAUSE, LONGEST_PAUSE, RoundRobin

A, B, C, D = (Upstream(f"10.0.0.{n}", 80) for n in range(1, 5))


def picks(balancer: RoundRobin, count: int, now: float = 0.0) -> list[Upstream | None]:
    return [balancer.pick((), now) for _ in range(count)]


def test_everybody_in_turn() -> None:
    assert picks(RoundRobin((A, B, C)), 6) == [A, B, C, A, B, C]


def test_workers_may_begin_at_different_places() -> None:
    assert picks(RoundRobin((A, B, C), first=5), 3) == [C, A, B]


def test_nobody() -> None:
    balancer = RoundRobin(())
    assert picks(balancer, 2) == [None, None]
    balancer.replace((A,))
    assert picks(balancer, 2) == [A, A]


def test_the_avoided_are_not_picked_even_if_there_is_no_other() -> None:
    balancer = RoundRobin((A, B, C))
    assert balancer.pick((A,), 0.0) == B
    assert balancer.pick((A, C), 0.0) == B
    assert balancer.pick((A, B, C), 0.0) is None
    assert balancer.pick((D,), 0.0) is not None


def test_one_that_refuses_is_passed_over_for_a_while() -> None:
    balancer = RoundRobin((A, B, C))
    balancer.connect_failed(B, 0.0)
    assert B not in picks(balancer, 6, now=FIRST_PAUSE / 2)
    assert B in picks(balancer, 3, now=FIRST_PAUSE)


def test_the_others_share_its_part_evenly() -> None:
    balancer = RoundRobin((A, B, C, D))
    balancer.connect_failed(A, 0.0)
    assert Counter(picks(balancer, 30)) == {B: 10, C: 10, D: 10}


def test_if_all_refuse_all_are_still_tried() -> None:
    balancer = RoundRobin((A, B))
    for upstream in (A, B):
        balancer.connect_failed(upstream, 0.0)
    assert {*picks(balancer, 4)} == {A, B}
    assert balancer.pick((A,), 0.0) == B


def test_the_pause_doubles_up_to_a_limit_and_ends_with_success() -> None:
    balancer = RoundRobin((A, B))
    pause = FIRST_PAUSE
    for _ in range(10):
        balancer.connect_failed(A, 0.0)
        assert A not in picks(balancer, 4, now=pause - 0.01)
        assert A in picks(balancer, 2, now=pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    balancer.connected(A)
    assert A in picks(balancer, 2)
    balancer.connect_failed(A, 0.0)
    assert A in picks(balancer, 2, now=FIRST_PAUSE)


def test_what_is_known_of_those_that_stay_is_kept() -> None:
    balancer = RoundRobin((A, B, C))
    balancer.connect_failed(A, 0.0)
    balancer.connect_failed(B, 0.0)
    balancer.replace((A, C, D))
    assert A not in picks(balancer, 6)
    balancer.replace((A, B, C))
    assert B in picks(balancer, 3)


def test_one_that_has_left_is_not_remembered() -> None:
    balancer = RoundRobin((A, B))
    balancer.connect_failed(D, 0.0)
    balancer.replace((A, B, D))
    assert D in picks(balancer, 3)


@given(
    upstreams=st.sets(st.sampled_from((A, B, C, D))),
    failed=st.lists(st.sampled_from((A, B, C, D))),
    avoid=st.sets(st.sampled_from((A, B, C, D))),
    first=st.integers(0, 100),
)
def test_somebody_is_picked_whenever_there_is_somebody(
    upstreams: set[Upstream], failed: list[Upstream], avoid: set[Upstream], first: int
) -> None:
    balancer = RoundRobin(tuple(sorted(upstreams, key=str)), first)
    for upstream in failed:
        balancer.connect_failed(upstream, 0.0)
    picked = balancer.pick(avoid, 0.5)
    usable = upstreams - avoid
    assert (picked in usable) if usable else picked is None
    if usable - set(failed):
        assert picked not in failed
