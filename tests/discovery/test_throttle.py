"""Token buckets by key, against a clock that is an argument."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from discovery.throttle import Throttle, Throttles


def admitted(throttles: Throttles, now: float, *keys: str, tries: int = 1000) -> int:
    return sum(throttles.admit(now, *keys) for _ in range(tries))


def test_a_burst_then_the_rate() -> None:
    throttles = Throttles(Throttle(5, 0.5))
    assert admitted(throttles, 0, "a") == 5
    assert admitted(throttles, 1, "a") == 0
    assert admitted(throttles, 2, "a") == 1
    assert admitted(throttles, 12, "a") == 5
    assert admitted(throttles, 1e9, "a") == 5


def test_keys_do_not_share() -> None:
    throttles = Throttles(Throttle(5, 0.5))
    assert admitted(throttles, 0, "a") == 5
    assert admitted(throttles, 0, "b") == 5


def test_all_must_have_a_token_and_who_is_refused_takes_none() -> None:
    throttles = Throttles(Throttle(2, 0), Throttle(3, 0))
    assert admitted(throttles, 0, "object-1", "shop") == 2
    assert admitted(throttles, 0, "object-2", "shop") == 1
    assert admitted(throttles, 0, "object-2", "other") == 1


def test_memory_is_bounded_and_who_is_forgotten_has_a_full_bucket() -> None:
    throttle = Throttle(1, 0, remembered=3)
    throttles = Throttles(throttle)
    for number in range(10):
        assert throttles.admit(0, number)
    assert len(throttle._buckets) == 3
    assert not throttles.admit(0, 9)
    assert throttles.admit(0, 0)


@given(st.lists(st.floats(0, 0.5), max_size=200), st.integers(1, 9), st.floats(0.1, 10))
def test_never_more_than_burst_and_rate(steps: list[float], burst: int, rate: float) -> None:
    throttles = Throttles(Throttle(burst, rate))
    now, count = 0.0, 0
    for step in steps:
        now += step
        count += throttles.admit(now, "x")
    assert count <= burst + rate * now + 1e-6


def test_a_clock_that_goes_back_gives_nothing() -> None:
    throttles = Throttles(Throttle(1, 1))
    assert throttles.admit(10, "x")
    assert not throttles.admit(5, "x")
