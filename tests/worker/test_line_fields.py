"""The stages in a line: the same times as the journey has, for any journey."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from middleware.journey import Journey, Stage, StageKind
from nodeagent.worker.line_fields import stage_times

KINDS: tuple[StageKind, ...] = ("queue", "connect", "try", "middleware", "backoff")


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    start = draw(st.integers(0, 100))
    kind: StageKind = draw(st.sampled_from(get_args(StageKind)))
    number = draw(st.integers(0, 3))
    return Stage(kind, float(start), float(start + draw(st.integers(0, 50))), number=number)


@given(st.lists(stages(), max_size=8))
def test_times_and_tries_are_those_of_the_journey(some: list[Stage]) -> None:
    journey = Journey(0.0, 200.0, tuple(sorted(some, key=lambda one: (one.start, one.end))))
    times = stage_times(journey)
    assert tuple(time or 0.0 for time in times[:5]) == tuple(
        round(journey.spent(kind) * 1000, 2) for kind in KINDS
    )
    assert times[5] == journey.tries
