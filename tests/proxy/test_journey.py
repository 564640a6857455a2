"""The journey of an exchange: what is noted, in which order, and that it is whole and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.proxy.journey import LEAST_GAP, MOST_STAGES, Journey, Recorder, Stage

HERE, THERE = "10.1.0.1:8080", "10.1.0.2:8080"


def test_a_request_that_takes_the_connection_that_is_there() -> None:
    recorder = Recorder(10.0)
    number = recorder.began(HERE, 10.0, False)
    recorder.answered(number, 10.2, "200")
    recorder.over(number, 10.3)

    journey = recorder.end(10.3)

    assert journey == Journey(10.0, 10.3, (Stage("try", 10.0, 10.3, HERE, 1, "200", 10.2),))
    assert journey.tries == 1


def test_a_retry_after_a_pause() -> None:
    recorder = Recorder(10.0)
    first = recorder.began(HERE, 10.0, True)
    recorder.over(first, 11.0, "connect_failed")
    recorder.waited("backoff", 11.0, 11.5)
    second = recorder.began(THERE, 11.5, True)
    recorder.connected(second, 12.0, False)
    recorder.answered(second, 13.0, "503")
    recorder.over(second, 13.5)

    assert recorder.end(13.5).stages == (
        Stage("connect", 10.0, 11.0, HERE, 1, "connect_failed"),
        Stage("backoff", 11.0, 11.5),
        Stage("connect", 11.5, 12.0, THERE, 2, ""),
        Stage("try", 12.0, 13.5, THERE, 2, "503", 13.0),
    )


def test_a_connection_that_others_have_used_was_waited_for() -> None:
    recorder = Recorder(10.0)
    number = recorder.began(HERE, 10.0, True)
    recorder.connected(number, 10.5, True)
    recorder.over(number, 11.0, "upstream_reset")

    kinds = [(stage.kind, stage.outcome) for stage in recorder.end(11.0).stages]
    assert kinds == [("queue", ""), ("try", "upstream_reset")]


def test_what_no_stage_accounts_for_is_middleware() -> None:
    recorder = Recorder(10.0)
    recorder.waited("queue", 10.25, 10.5)
    number = recorder.began(HERE, 10.5 + LEAST_GAP / 2, False)
    recorder.over(number, 11.0)

    journey = recorder.end(12.0)

    assert [stage.kind for stage in journey.stages] == ["middleware", "queue", "try", "middleware"]
    assert journey.spent("middleware") == pytest.approx(1.25)


def test_what_is_under_way_at_the_end_ends_then() -> None:
    recorder = Recorder(10.0)
    recorder.began(HERE, 10.0, False)
    recorder.began(THERE, 10.5, True)

    journey = recorder.end(11.0, "gateway_timeout")

    assert [(stage.kind, stage.end, stage.outcome) for stage in journey.stages] == [
        ("try", 11.0, "gateway_timeout"),
        ("connect", 11.0, "gateway_timeout"),
    ]
    assert journey.spent("try") == 1.0


def test_tries_beside_each_other_count_their_common_time_once() -> None:
    stages = (Stage("try", 1.0, 3.0, HERE, 1), Stage("try", 2.0, 4.0, THERE, 2), Stage("try", 2.5, 3.5))
    assert Journey(0.0, 5.0, stages).spent("try") == 3.0


def test_a_try_ends_once() -> None:
    recorder = Recorder(10.0)
    number = recorder.began(HERE, 10.0, False)
    recorder.over(number, 11.0, "upstream_reset")
    recorder.over(number, 12.0, "gateway_timeout")
    recorder.answered(number, 12.0, "200")
    recorder.connected(number, 12.0, False)

    assert recorder.end(11.0).stages == (Stage("try", 10.0, 11.0, HERE, 1, "upstream_reset"),)


def test_the_journey_so_far_has_what_is_under_way() -> None:
    recorder = Recorder(10.0)
    recorder.next_try(HERE, 10.0, True)
    assert recorder.so_far(10.5).stages == (Stage("connect", 10.0, 10.5, HERE, 1),)
    recorder.connected(1, 11.0, False)
    recorder.answered(1, 12.0, "200")
    assert recorder.so_far(12.5) == Journey(
        10.0,
        12.5,
        (Stage("connect", 10.0, 11.0, HERE, 1), Stage("try", 11.0, 12.5, HERE, 1, "200", 12.0)),
    )
    assert recorder.end(13.0).stages[1].end == 13.0


def stage_times(stage: Stage) -> tuple[str, float, float, int]:
    """Return what of a stage does not depend on whether it has ended."""
    return (stage.kind, stage.start, stage.end, stage.number)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["began", "connecting", "connected", "answered", "over", "waited"]),
        st.integers(0, 5),
        st.floats(0.0, 2.0),
    ),
    max_size=150,
)


@given(STEPS)
def test_whatever_happens_the_stages_are_in_order_and_account_for_all_time(
    steps: list[tuple[str, int, float]],
) -> None:
    now = 100.0
    recorder = Recorder(now)
    for step, number, pause in steps:
        before, now = now, now + pause
        match step:
            case "began" | "connecting":
                recorder.began(HERE, now, step == "connecting")
            case "connected":
                recorder.connected(number, now, False)
            case "answered":
                recorder.answered(number, now, "200")
            case "over":
                recorder.over(number, now)
            case _:
                recorder.waited("backoff", before, now)

    before_the_end, left_out = recorder.so_far(now), recorder.left_out
    assert recorder.so_far(now) == before_the_end, "to look at it changes nothing"
    journey = recorder.end(now)
    if not journey.left_out:
        assert [stage_times(stage) for stage in before_the_end.stages] == [
            stage_times(stage) for stage in journey.stages
        ]
    assert left_out <= journey.left_out

    kept = [stage for stage in journey.stages if stage.kind != "middleware"]
    assert len(kept) <= MOST_STAGES
    assert not journey.left_out or len(kept) == MOST_STAGES
    reached = journey.start
    for stage in journey.stages:
        assert journey.start <= stage.start <= stage.end <= journey.end
        assert stage.start - reached < LEAST_GAP
        reached = max(reached, stage.end)
    assert journey.end - reached < LEAST_GAP
