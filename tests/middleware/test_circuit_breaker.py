from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, cast

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from middleware.circuit_breaker import (
    TRANSITIONS,
    Change,
    CircuitBreaker,
    CircuitOpen,
    Event,
    Options,
    State,
    build,
    latency,
    parse,
)
from middleware.contract import (
    ConnectFailed,
    ExchangeError,
    Handler,
    NoEndpoint,
    Problem,
    Rejected,
    Request,
    Response,
)
from middleware.expression_parser import parse_expression
from middleware.testing import FakeContext, FakeRequest, FakeResponse, Scripted, run, sent_over, status_of

NAME = "svc.mesh/circuit-breaker"
HALF = "NetworkErrorRatio() > 0.5"


def test_values() -> None:
    assert parse({NAME: f"  {HALF}\n"}) == Options(HALF)
    assert sent_over(Options(HALF)) == Options(HALF)
    assert parse({"svc.mesh/enabled": "true"}) is None


def test_a_bad_expression_is_a_problem() -> None:
    problem = parse({NAME: "NetworkErrors() > 0.5"})
    assert isinstance(problem, Problem)
    assert problem.annotation == NAME
    assert problem.reason == 'at column 1: "NetworkErrors" is not known'
    assert "NetworkErrorRatio()" in problem.expected


def breaker_of(text: str = HALF) -> CircuitBreaker:
    return CircuitBreaker(parse_expression(text))


def fail(breaker: CircuitBreaker, now: float, count: int = 10, status: int = 502) -> list[Change]:
    """Record failures a tenth of a second apart, ending at `now`."""
    times = [now - (count - 1 - index) * 0.1001 for index in range(count)]
    return [change for time in times if (change := breaker.record(time, time, 0.0, status))]


def test_it_opens_once_the_condition_holds_of_enough_outcomes() -> None:
    breaker = breaker_of()
    assert fail(breaker, 100.0, count=9) == []
    assert fail(breaker, 100.2, count=1) == [Change(State.OPEN, 10, "NetworkErrorRatio()=1")]
    assert breaker.state is State.OPEN
    assert not breaker.admit(100.3)


def test_the_condition_is_asked_every_tenth_of_a_second() -> None:
    breaker = breaker_of()
    assert breaker.record(100.0, 100.0, 0.0, 200) is None
    for _ in range(50):
        assert breaker.record(100.05, 100.05, 0.0, 502) is None
    assert breaker.record(100.11, 100.11, 0.0, 502) is not None


def test_it_stays_closed_while_the_condition_does_not_hold() -> None:
    breaker = breaker_of()
    for tick in range(1000):
        now = 100 + tick * 0.1001
        assert breaker.record(now, now, 0.0, 502 if tick % 2 else 200) is None


def test_open_then_recovering_then_closed() -> None:
    breaker = breaker_of()
    fail(breaker, 100.0)
    assert list(breaker.advance(109.9)) == []
    assert breaker.retry_after(104.0) == pytest.approx(6.0)
    assert [change.state for change in breaker.advance(110.0)] == [State.RECOVERING]
    assert list(breaker.advance(119.9)) == []
    assert [change.state for change in breaker.advance(120.0)] == [State.CLOSED]
    assert breaker.admit(120.0)


def test_time_passes_without_requests() -> None:
    breaker = breaker_of()
    fail(breaker, 100.0)
    assert [change.state for change in breaker.advance(500.0)] == [State.RECOVERING, State.CLOSED]


def test_the_share_that_passes_grows_evenly() -> None:
    breaker = breaker_of()
    fail(breaker, 100.0)
    list(breaker.advance(110.0))
    passed = [sum(breaker.admit(110 + second + tick / 1000) for tick in range(1000)) for second in range(10)]
    assert passed == pytest.approx([50, 150, 250, 350, 450, 550, 650, 750, 850, 950], abs=2)


def test_it_opens_again_if_recovery_fails() -> None:
    breaker = breaker_of()
    fail(breaker, 100.0)
    list(breaker.advance(110.0))
    changes = fail(breaker, 112.0)
    assert [change.state for change in changes] == [State.OPEN]
    assert breaker.retry_after(112.0) == pytest.approx(10.0)


def test_answers_to_requests_from_before_do_not_count() -> None:
    breaker = breaker_of()
    fail(breaker, 100.0)
    list(breaker.advance(110.0))
    for tick in range(100):
        assert breaker.record(111 + tick / 10, 99.0, 12.0, 502) is None
    assert breaker.state is State.RECOVERING


def test_latency_and_status_codes_open_it() -> None:
    slow = breaker_of("LatencyAtQuantileMS(50.0) > 100")
    changes = [slow.record(100 + tick / 5, 99.8 + tick / 5, 0.2, 200) for tick in range(10)]
    assert changes[-1] == Change(State.OPEN, 10, "LatencyAtQuantileMS(50.0)=199")
    coded = breaker_of("ResponseCodeRatio(500, 600, 0, 600) > 0.25")
    assert [change.state for change in fail(coded, 100.0, status=500)] == [State.OPEN]


events = st.tuples(st.sampled_from([0.0, 0.05, 0.2, 1.0, 7.0]), st.sampled_from([200, 502]))


@given(st.lists(events, max_size=200))
def test_states_change_only_as_the_table_says(steps: list[tuple[float, int]]) -> None:
    breaker, now = breaker_of(), 100.0
    state = State.CLOSED
    allowed = {(before, after) for (before, _), after in TRANSITIONS.items()}
    for gap, status in steps:
        now += gap
        changes = list(breaker.advance(now))
        if breaker.admit(now) and (change := breaker.record(now, now, 0.0, status)):
            changes.append(change)
        for change in changes:
            assert (state, change.state) in allowed
            state = change.state
        assert breaker.state is state
        assert breaker.retry_after(now) > 0


def test_every_state_ends() -> None:
    for state in State:
        assert any(before is state for before, _ in TRANSITIONS)
    assert (State.OPEN, Event.CONDITION_HOLDS) not in TRANSITIONS


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def breaking(context: FakeContext, *outcomes: int | BaseException) -> tuple[Handler, Scripted]:
    def pass_time() -> None:
        context.time += 0.11

    scripted = Scripted(outcomes, during=pass_time)
    return build(Options(HALF), context)(scripted), scripted


def test_an_open_circuit_refuses_with_503_and_sends_nothing(context: FakeContext) -> None:
    handler, scripted = breaking(context, ConnectFailed("refused"))
    with structlog.testing.capture_logs() as logs:
        assert [status_of(handler(FakeRequest())) for _ in range(10)] == ["connect_failed"] * 10
        with pytest.raises(CircuitOpen) as error:
            run(handler(FakeRequest()))
    assert (error.value.status, error.value.reason) == (503, "circuit_open")
    assert error.value.headers == (("Retry-After", "10"),)
    assert HALF in error.value.detail
    assert len(scripted.requests) == 10
    assert context.metrics == {
        "svcmesh_circuit_breaker_state": 2,
        "svcmesh_circuit_breaker_opened": 1,
        "svcmesh_circuit_breaker_rejected": 1,
    }
    assert logs == [
        {
            "event": "circuit_breaker_opened",
            "log_level": "warning",
            "service": "default/whoami",
            "port": 80,
            "expression": HALF,
            "seconds": 10.0,
            "requests": 10,
            "figures": "NetworkErrorRatio()=1",
        }
    ]


def test_it_recovers_and_says_so(context: FakeContext) -> None:
    handler, _ = breaking(context, *[502] * 10, 200)
    for _ in range(10):
        run(handler(FakeRequest()))
    with structlog.testing.capture_logs() as logs:
        context.time += 10
        assert status_of(handler(FakeRequest())) == "circuit_open"
        assert context.metrics["svcmesh_circuit_breaker_state"] == 1
        context.time += 9.9
        assert status_of(handler(FakeRequest())) == "circuit_open"
        assert status_of(handler(FakeRequest())) == 200
        context.time += 0.2
        assert status_of(handler(FakeRequest())) == 200
    assert [line["event"] for line in logs] == ["circuit_breaker_recovering", "circuit_breaker_closed"]
    assert context.metrics["svcmesh_circuit_breaker_state"] == 0


class BodyTimeout(ExchangeError):
    fault = "client"
    status = 408
    reason = "body_timeout"


@pytest.mark.parametrize(
    "error",
    [NoEndpoint("none"), Rejected("by another layer"), ExchangeError("ours"), BodyTimeout("the client's")],
)
def test_what_says_nothing_of_the_endpoints_does_not_count(
    context: FakeContext, error: ExchangeError
) -> None:
    handler, scripted = breaking(context, error)
    for _ in range(50):
        assert status_of(handler(FakeRequest())) == error.reason
    assert len(scripted.requests) == 50


class Forever:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def hang(_request: Request) -> Response:
    await Forever()
    raise AssertionError("nobody answers")


def give_up(handler: Handler, request: FakeRequest, cancelled: bool = False) -> None:
    waiting = cast("Coroutine[Any, Any, Response]", handler(request))
    waiting.send(None)
    if cancelled:
        with pytest.raises(asyncio.CancelledError):
            waiting.throw(asyncio.CancelledError())
    else:
        waiting.close()


@pytest.mark.parametrize("cancelled", [False, True])
def test_requests_given_up_count_with_their_latency(context: FakeContext, cancelled: bool) -> None:
    handler = build(Options("LatencyAtQuantileMS(50.0) > 1000"), context)(hang)
    waiting = [cast("Coroutine[Any, Any, Response]", handler(FakeRequest())) for _ in range(10)]
    for coroutine in waiting:
        coroutine.send(None)
    context.time += 2
    for coroutine in waiting:
        context.time += 0.11
        if cancelled:
            with pytest.raises(asyncio.CancelledError):
                coroutine.throw(asyncio.CancelledError())
        else:
            coroutine.close()
    assert status_of(handler(FakeRequest())) == "circuit_open"


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize(("complete", "opened"), [(True, 1), (False, 0)])
def test_a_client_that_gives_up_counts_if_it_had_sent_all(
    context: FakeContext, cancelled: bool, complete: bool, opened: int
) -> None:
    handler = build(Options("ResponseCodeRatio(499, 500, 0, 600) > 0.5"), context)(hang)
    for _ in range(10):
        context.time += 0.11
        give_up(handler, FakeRequest(completed=context.time if complete else None), cancelled)
    assert context.metrics["svcmesh_circuit_breaker_opened"] == opened


@pytest.mark.parametrize(
    ("completed", "opened"),
    [
        (1000.0, 1),  # before it came here: what layers above took is not the endpoint's time
        (1000.5, 1),
        (1002.1, 0),  # a slow client
        (None, 0),  # answered before it was all sent
    ],
)
def test_latency_runs_from_the_last_byte_of_the_request(completed: float | None, opened: int) -> None:
    context = FakeContext()
    context.time = 1000.2
    requests = [FakeRequest(completed=None) for _ in range(10)]

    async def answer(_request: Request) -> Response:
        await Forever()
        return FakeResponse()

    handler = build(Options("LatencyAtQuantileMS(50.0) > 1000"), context)(answer)
    waiting = [cast("Coroutine[Any, Any, Response]", handler(request)) for request in requests]
    for coroutine in waiting:
        coroutine.send(None)
    context.time = 1002.0
    for request, coroutine in zip(requests, waiting, strict=True):
        context.time += 0.11
        request.completed = completed
        with pytest.raises(StopIteration):
            coroutine.send(None)
    assert context.metrics["svcmesh_circuit_breaker_opened"] == opened


@pytest.mark.parametrize(
    ("started", "completed", "expected"), [(1.0, 0.5, 4.0), (1.0, 3.0, 2.0), (1.0, None, 0.0)]
)
def test_latency(started: float, completed: float | None, expected: float) -> None:
    assert latency(5.0, started, completed) == expected
