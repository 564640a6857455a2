"""`svc.mesh/access-log`: what its values mean, and which of them mean nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.contract import Problem
from middleware.values import InvalidValue
from nodeagent.plan.access_log import ACCESS_LOG, parse_access_log, parse_choice_of_lines
from nodeagent.plan.model import LineChoice
from nodeagent.plan.of_port import OfPort

chances = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("all", LineChoice(all=True)),
        ("off", LineChoice()),
        ("errors", LineChoice(errors=True)),
        ("slow=500ms", LineChoice(slow=0.5)),
        ("1%", LineChoice(share=100)),
        ("0.5%", LineChoice(share=50)),
        ("  errors   slow=1m 1% ", LineChoice(errors=True, slow=60.0, share=100)),
        ("1% errors", LineChoice(errors=True, share=100)),
    ],
)
def test_values(value: str, meaning: LineChoice) -> None:
    assert parse_choice_of_lines(value) == meaning


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "it is empty"),
        ("all errors", "all goes with nothing else"),
        ("errors off", "off goes with nothing else"),
        ("1% 2%", '"2%" says again'),
        ("errors errors", '"errors" says again'),
        ("slow=1s slow=2s", '"slow=2s" says again'),
        ("error", "did you mean errors"),
        ("slow=500", "the unit is missing"),
        ("slow=0s", "is out of range"),
        ("slow", "did you mean slow="),
        ("101%", "is not a percentage"),
        ("0%", "is not a percentage"),
        ("all=1", '"all=1" is not known'),
        ("x" * 10_000, "is not known"),
    ],
)
def test_bad_values(value: str, said: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        parse_choice_of_lines(value)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_port_may_have_its_own() -> None:
    found = parse_access_log({ACCESS_LOG: "errors", f"{ACCESS_LOG}.admin": "off"})
    assert found == OfPort(LineChoice(errors=True), {"admin": LineChoice()})
    assert parse_access_log({}) is None
    bad = parse_access_log({f"{ACCESS_LOG}.admin": "none"})
    assert isinstance(bad, Problem)
    assert bad.annotation == f"{ACCESS_LOG}.admin"


@given(st.booleans(), st.floats(0, 100), chances)
def test_all_takes_everything_and_off_nothing(failed: bool, took: float, chance: float) -> None:
    assert LineChoice(all=True).takes(failed, took, chance)
    assert not LineChoice().takes(failed, took, chance)


@given(st.booleans(), st.floats(0, 100), chances)
def test_more_words_never_take_less(failed: bool, took: float, chance: float) -> None:
    words = [LineChoice(errors=True), LineChoice(slow=2.0), LineChoice(share=500)]
    together = LineChoice(errors=True, slow=2.0, share=500)
    assert together.takes(failed, took, chance) == any(one.takes(failed, took, chance) for one in words)


@given(st.integers(1, 10_000))
def test_a_share_is_that_part_of_all(share: int) -> None:
    taken = sum(LineChoice(share=share).takes(False, 0.0, number / 10_000) for number in range(10_000))
    assert abs(taken - share) <= 1
