from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.outcomes import LONGEST, Outcomes, latency_class, middle_of


@given(st.floats(0, 10_000, allow_nan=False))
def test_a_class_of_latencies_is_narrow(latency: float) -> None:
    klass = latency_class(latency)
    assert 0 <= klass < 1000
    shown = middle_of(klass)
    assert abs(shown - min(latency, LONGEST)) <= max(1e-6, latency * 0.016)


@given(st.integers(0, 3_600_000_000))
def test_classes_are_in_the_order_of_latencies(microseconds: int) -> None:
    assert latency_class((microseconds + 1) / 1e6) - latency_class(microseconds / 1e6) in (0, 1)


@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=50), st.floats(0, 100))
def test_a_quantile_is_the_nearest_rank(latencies: list[float], quantile: float) -> None:
    outcomes = Outcomes(latencies=True)
    for latency in latencies:
        outcomes.record(1.0, latency, 200, False)
    exact = sorted(latencies)[max(1, ceil(quantile / 100 * len(latencies))) - 1]
    assert outcomes.latency_at_quantile(1.5, quantile) == pytest.approx(exact, rel=0.02, abs=1e-6)


def test_the_figures() -> None:
    outcomes = Outcomes(latencies=False)
    for status, network_error in [
        (200, False),
        (500, False),
        (502, False),
        (504, False),
        (503, True),
        (404, False),
    ]:
        outcomes.record(1.0, 0.0, status, network_error)
    assert outcomes.total(1.0) == 6
    assert outcomes.network_error_ratio(1.0) == 3 / 6
    assert outcomes.response_code_ratio(1.0, range(500, 600), range(600)) == 4 / 6
    assert outcomes.response_code_ratio(1.0, range(404, 405), range(200, 201)) == 1
    assert outcomes.response_code_ratio(1.0, range(500, 600), range(300, 400)) == 0


def test_nothing_is_no_ratio() -> None:
    outcomes = Outcomes(latencies=True)
    assert outcomes.total(1.0) == 0
    assert outcomes.network_error_ratio(1.0) == 0
    assert outcomes.response_code_ratio(1.0, range(600), range(600)) == 0
    assert outcomes.latency_at_quantile(1.0, 99) == 0


def test_outcomes_are_forgotten_after_ten_seconds() -> None:
    outcomes = Outcomes(latencies=False)
    outcomes.record(1.0, 0.0, 502, False)
    assert outcomes.network_error_ratio(10.9) == 1
    assert outcomes.total(11.0) == 0


def test_latencies_of_all_seconds_are_counted_and_forgotten() -> None:
    outcomes = Outcomes(latencies=True)
    for second in range(10):
        outcomes.record(1.0 + second, 1.0 + second, 200, False)
        assert outcomes.latency_at_quantile(1.0 + second, 100) == pytest.approx(1.0 + second, rel=0.02)
        assert outcomes.latency_at_quantile(1.0 + second, 0) == pytest.approx(1.0, rel=0.02)
    outcomes.record(10.5, 20.0, 200, False)
    assert outcomes.latency_at_quantile(10.5, 100) == pytest.approx(20.0, rel=0.02)
    assert outcomes.latency_at_quantile(12.5, 0) == pytest.approx(3.0, rel=0.02)
    outcomes.clear()
    assert outcomes.latency_at_quantile(12.6, 50) == 0
