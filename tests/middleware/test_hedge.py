from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.contract import Handler, UpstreamReset
from middleware.hedge import CLASSES, FEWEST, SHORTEST, UsualTime, class_of, upper_bound
from middleware.retry import build
from middleware.retry_options import Options
from middleware.testing import FakeContext, FakeRequest, Scripted, run, status_of

times = st.floats(0.0, 800.0)


@given(times)
def test_a_class_is_a_fifth_wide(seconds: float) -> None:
    number = class_of(seconds)
    assert 0 <= number < CLASSES
    assert seconds <= upper_bound(number) * 1.000001
    assert upper_bound(number) <= max(SHORTEST, seconds * 1.2)


@given(st.lists(times, min_size=FEWEST, max_size=200), st.integers(5000, 9999))
def test_no_more_than_the_share_is_slower(took: list[float], share: int) -> None:
    usual = UsualTime(share)
    for one in took:
        usual.answered(100.0, one)
    wait = usual.wait(100.0)
    assert wait is not None
    assert sum(one > wait * 1.000001 for one in took) <= len(took) * (10_000 - share) / 10_000
    assert sum(one * 1.2 >= wait for one in took) > len(took) * (10_000 - share) / 10_000 or wait == SHORTEST


def test_too_little_is_known() -> None:
    usual = UsualTime(9500)
    for _ in range(FEWEST - 1):
        usual.answered(100.0, 0.05)
    assert usual.wait(100.0) is None
    usual.answered(100.5, 0.05)
    assert usual.wait(100.9) is None, "it is found out once a second"
    assert usual.wait(101.0) == pytest.approx(0.05, rel=0.2)
    assert usual.wait(120.0) is None, "that was long ago"


class Stage:
    """A port whose endpoints answer after `took` seconds; a hundred have answered already."""

    def __init__(self, options: Options, *outcomes: int | BaseException, known: int = 100) -> None:
        self.context = FakeContext()
        self.took = 0.05
        self.scripted = Scripted(outcomes, during=self.pass_time)
        self.handler: Handler = build(options, self.context)(self.scripted)
        for _ in range(known):
            run(self.handler(FakeRequest()))

    def pass_time(self) -> None:
        self.context.time += self.took

    def ask(self, request: FakeRequest) -> int | str:
        return status_of(self.handler(request))


HEDGED = Options(0, hedge_percent=95.0)


def test_a_second_try_after_the_usual_time() -> None:
    stage, request = Stage(HEDGED, 200), FakeRequest()
    assert stage.ask(request) == 200
    (race,) = request.races
    assert race.seconds == pytest.approx(0.05, rel=0.2)
    assert race.cancelled
    assert stage.context.metrics["svcmesh_hedges"] == 0
    assert race.permit()
    assert stage.context.metrics["svcmesh_hedges"] == 1


@pytest.mark.parametrize(
    "request_",
    [FakeRequest("POST"), FakeRequest(replayable=False), FakeRequest(completed=None)],
    ids=["method", "body", "incomplete"],
)
def test_what_may_not_be_sent_twice_is_not(request_: FakeRequest) -> None:
    stage = Stage(HEDGED, 200)
    assert stage.ask(request_) == 200
    assert request_.races == []


def test_further_methods_of_retries_are_not_hedged() -> None:
    stage, request = Stage(Options(1, methods=("any",), hedge_percent=95.0), 200), FakeRequest("POST")
    assert stage.ask(request) == 200
    assert request.races == []


def test_nobody_knows_what_is_usual() -> None:
    stage, request = Stage(HEDGED, 200, known=FEWEST - 1), FakeRequest()
    assert stage.ask(request) == 200
    assert request.races == []


def test_every_try_has_its_own_second_one() -> None:
    stage = Stage(Options(1, hedge_percent=95.0), *[200] * 100, UpstreamReset("cut"), 200)
    request = FakeRequest()
    assert stage.ask(request) == 200
    assert [race.cancelled for race in request.races] == [True, True]


def test_second_tries_stay_within_the_budget() -> None:
    stage = Stage(Options(0, budget_percent=5.0, budget_floor=0, hedge_percent=95.0), 200)
    granted = 0
    for _ in range(100):
        request = FakeRequest()
        stage.took = 0.01
        stage.ask(request)
        granted += request.races[0].permit()
    assert 5 <= granted <= 10
    assert stage.context.metrics["svcmesh_hedges"] == granted
    assert stage.context.metrics["svcmesh_retry_budget_exhausted"] == 100 - granted


def test_not_hedged_costs_nothing() -> None:
    stage, request = Stage(Options(1), 200), FakeRequest()
    assert stage.ask(request) == 200
    assert request.races == []
