"""What is flat and what grows."""

from __future__ import annotations

import random

import pytest

from hack.soak.series import BOUNDS, LEAST_SAMPLES, MIB, Bound, Samples, slope, trend

BOUND = Bound(10.0, 0.1, "", "")


def line(count: int, start: float, growth: float, noise: float = 0.0) -> list[tuple[float, float]]:
    """A sample every five seconds, growing by `growth` an hour."""
    draw = random.Random(1)
    return [(5.0 * n, start + growth * 5.0 * n / 3600 + draw.uniform(-noise, noise)) for n in range(count)]


def test_noise_and_spikes_are_no_growth() -> None:
    samples = line(200, 1000.0, 0.0, noise=60.0)
    samples[190:195] = [(time, 5000.0) for time, _ in samples[190:195]]
    judged = trend("agent", "memory", samples, 0.0, BOUND)
    assert judged is not None
    assert not judged.grows
    assert abs(judged.growth) < 50


def test_steady_growth_is_found_below_noise() -> None:
    judged = trend("agent", "memory", line(700, 1000.0, 400.0, noise=60.0), 0.0, BOUND)
    assert judged is not None
    assert judged.grows
    assert judged.per_hour == pytest.approx(400.0, rel=0.1)


def test_the_warm_up_is_left_out() -> None:
    samples = [(time, value if time > 60 else value / 2) for time, value in line(100, 1000.0, 0.0)]
    judged = trend("agent", "memory", samples, 61.0, BOUND)
    assert judged is not None
    assert (judged.first, judged.last, judged.grows) == (1000.0, 1000.0, False)


def test_of_few_samples_nothing_is_said() -> None:
    assert trend("agent", "memory", line(LEAST_SAMPLES - 1, 1.0, 0.0), 0.0, BOUND) is None
    assert trend("agent", "memory", line(LEAST_SAMPLES, 1.0, 0.0), 0.0, BOUND) is not None


def test_the_greater_of_the_two_bounds_counts() -> None:
    assert BOUND.allowance(50.0) == 10.0
    assert BOUND.allowance(1000.0) == 100.0


def test_the_slope_is_that_of_most_pairs() -> None:
    assert slope([(0.0, 0.0), (1.0, 2.0), (2.0, 4.0), (3.0, 100.0), (4.0, 8.0)]) == 2.0
    assert slope([(1.0, 5.0)]) == 0.0


def test_a_process_that_replaces_another_starts_anew() -> None:
    samples = Samples()
    for n in range(100):
        process = "worker 0 (10)" if n < 50 else "worker 0 (11)"
        samples.add(process, "memory", 5.0 * n, (20 if n < 50 else 60) * MIB)
    judged = samples.trends(warm_up=50.0)
    assert [(one.process, one.samples, one.grows) for one in judged] == [
        ("worker 0 (10)", 40, False),
        ("worker 0 (11)", 40, False),
    ]
    assert samples.latest("memory") == {"worker 0 (10)": 20 * MIB, "worker 0 (11)": 60 * MIB}


def test_a_leak_of_100_bytes_a_request_is_found_within_the_hour() -> None:
    """300 requests a second to each of two workers."""
    leak = 300 * 3600 * 100.0
    judged = trend("worker", "memory", line(700, 30.0 * MIB, leak, noise=MIB), 60.0, BOUNDS["memory"])
    assert judged is not None
    assert judged.grows
