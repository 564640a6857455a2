from __future__ import annotations

from math import ceil
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.condition import TOTAL, Condition, TooManyCounters, comparisons
from middleware.contract import MOST_COUNTERS
from middleware.expression import (
    OPERATORS,
    Comparison,
    Every,
    Expression,
    Figure,
    LatencyAtQuantile,
    NetworkErrorRatio,
    Not,
    RequestThreshold,
    ResponseCodeRatio,
    Some,
)
from middleware.expression_parser import parse_expression
from tests.middleware.test_expression import trees


class Outcome(NamedTuple):
    status: int
    latency: float = 0.1
    network_error: bool = False


def sums_of(condition: Condition, outcomes: list[Outcome]) -> list[int]:
    sums = [0] * condition.counters
    for outcome in outcomes:
        indices = condition.indices(*outcome)
        assert len(set(indices)) == len(indices)
        for index in indices:
            sums[index] += 1
    return sums


def holds(text: str, outcomes: list[Outcome]) -> bool:
    condition = Condition(parse_expression(text))
    return condition.holds(sums_of(condition, outcomes))


FOUR = [Outcome(200), Outcome(200), Outcome(500), Outcome(502)]


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("NetworkErrorRatio() > 0.25", False),
        ("NetworkErrorRatio() >= 0.25", True),
        ("NetworkErrorRatio() == 0.25", True),
        ("NetworkErrorRatio() != 0.25", False),
        ("NetworkErrorRatio() < 0.25", False),
        ("NetworkErrorRatio() <= 0.25", True),
        ("!NetworkErrorRatio() == 0.25", False),
        ("ResponseCodeRatio(500, 600, 0, 600) > 0.4 && LatencyAtQuantileMS(50) > 90", True),
        ("LatencyAtQuantileMS(50) > 110 || LatencyAtQuantileMS(99.9) < 90", False),
        ("ResponseCodeRatio(500, 600, 300, 400) > 0", False),
        ("ResponseCodeRatio(500, 501, 502, 503) == 1", True),
        ("RequestThreshold() >= 4", True),
        ("RequestThreshold() > 4 || RequestThreshold() < 4", False),
        ("NetworkErrorRatio() > 0.2 && RequestThreshold() >= 5", False),
    ],
)
def test_expressions_hold_or_not(text: str, truth: bool) -> None:
    assert holds(text, FOUR) is truth


def test_network_errors_are_gateway_statuses_and_what_brought_no_response() -> None:
    outcomes = [Outcome(200), Outcome(500), Outcome(502), Outcome(504), Outcome(503, network_error=True)]
    assert holds("NetworkErrorRatio() == 0.6", outcomes)
    assert holds("ResponseCodeRatio(503, 504, 0, 600) == 0.2", outcomes)


@pytest.mark.parametrize("sign", sorted(OPERATORS))
@pytest.mark.parametrize("milliseconds", [0.0, 99.0, 100.0, 101.0])
def test_latencies_are_exact(sign: str, milliseconds: float) -> None:
    outcomes = [Outcome(200, ms / 1000) for ms in (1, 100.0, 5000)]
    condition = Condition(Comparison(LatencyAtQuantile(50.0), sign, milliseconds))
    assert condition.holds(sums_of(condition, outcomes)) == OPERATORS[sign](100.0, milliseconds)


@pytest.mark.parametrize("sign", sorted(OPERATORS))
@pytest.mark.parametrize("bound", [0.0, 0.5])
@pytest.mark.parametrize(
    "figure",
    [NetworkErrorRatio(), ResponseCodeRatio(500, 600, 0, 600), LatencyAtQuantile(99.0), RequestThreshold()],
)
def test_figures_of_nothing_are_0(figure: Figure, sign: str, bound: float) -> None:
    condition = Condition(Comparison(figure, sign, bound))
    assert condition.holds([0] * condition.counters) == OPERATORS[sign](0.0, bound)


def figure_of(outcomes: list[Outcome], comparison: Comparison) -> float:
    """Return a figure as its definition says."""
    match comparison.figure:
        case NetworkErrorRatio():
            failed = [one for one in outcomes if one.network_error or one.status in (502, 504)]
            return len(failed) / len(outcomes) if outcomes else 0.0
        case RequestThreshold():
            return len(outcomes)
        case ResponseCodeRatio(start=start, to=to, divided_from=divided_from, divided_to=divided_to):
            part = [one for one in outcomes if start <= one.status < to]
            whole = [one for one in outcomes if divided_from <= one.status < divided_to]
            return len(part) / len(whole) if whole else 0.0
        case LatencyAtQuantile(quantile=quantile):
            latencies = sorted(one.latency * 1000 for one in outcomes)
            return latencies[max(1, ceil(quantile / 100 * len(latencies))) - 1] if latencies else 0.0


def truth_of(expression: Expression, outcomes: list[Outcome]) -> bool:
    match expression:
        case Comparison(operator=sign, bound=bound):
            return OPERATORS[sign](figure_of(outcomes, expression), bound)
        case Not(term=term):
            return not truth_of(term, outcomes)
        case Every(terms=terms):
            return all(truth_of(one, outcomes) for one in terms)
        case Some(terms=terms):
            return any(truth_of(one, outcomes) for one in terms)


outcomes_ = st.lists(
    st.builds(
        Outcome,
        st.one_of(st.sampled_from([200, 404, 499, 500, 502, 504]), st.integers(100, 999)),
        st.one_of(st.integers(0, 1000).map(lambda n: n / 1e6), st.floats(0, 2)),
        st.booleans(),
    ),
    max_size=30,
)


@given(trees, outcomes_)
def test_counting_says_what_the_figures_say(expression: Expression, outcomes: list[Outcome]) -> None:
    condition = Condition(expression)
    sums = sums_of(condition, outcomes)
    assert sums[TOTAL] == len(outcomes)
    assert condition.holds(sums) == truth_of(expression, outcomes)
    assert condition.timed == any(
        isinstance(one.figure, LatencyAtQuantile) for one in comparisons(expression)
    )


def test_what_is_shown_of_the_figures() -> None:
    text = (
        "NetworkErrorRatio() > 0.5 || NetworkErrorRatio() > 0.1 && LatencyAtQuantileMS(50.0) > 90"
        " || LatencyAtQuantileMS(50.0) >= 200 || LatencyAtQuantileMS(99.0) != 100"
        " || RequestThreshold() > 12345"
    )
    condition = Condition(parse_expression(text))
    assert condition.figures(sums_of(condition, FOUR)) == (
        "NetworkErrorRatio()=0.25, LatencyAtQuantileMS(50.0)>90, LatencyAtQuantileMS(50.0)<200,"
        " LatencyAtQuantileMS(99.0)==100, RequestThreshold()=4"
    )
    assert "RequestThreshold()=12345" in condition.figures([12345] + [0] * (condition.counters - 1))


def test_counters_are_shared_and_bounded() -> None:
    one = parse_expression("LatencyAtQuantileMS(50) > 100 || LatencyAtQuantileMS(90) <= 100")
    assert Condition(one).counters == 2
    codes = [Comparison(ResponseCodeRatio(n, 600, 0, 600), ">", 0.5) for n in range(1, MOST_COUNTERS - 1)]
    assert Condition(Some(tuple(codes))).counters == MOST_COUNTERS
    codes.append(Comparison(ResponseCodeRatio(500, 600, 0, 600), ">", 0.5))
    with pytest.raises(TooManyCounters) as error:
        Condition(Every(tuple(codes)))
    assert error.value.needed == MOST_COUNTERS + 1
