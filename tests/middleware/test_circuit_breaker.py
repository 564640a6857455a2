from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from middleware.circuit_breaker import MIDDLEWARE, CircuitOpen, build
from middleware.circuit_breaker_options import FEWEST_OUTCOMES, Options, parse
from middleware.circuit_breaker_states import TRANSITIONS, Change, CircuitBreaker, Event, State, latency
from middleware.condition import Condition
from middleware.contract import (
    ConnectFailed,
    ExchangeError,
    Handler,
    NoEndpoint,
    Problem,
    Rejected,
    Request,
    Response,
    UpstreamReset,
)
from middleware.expression_parser import parse_expression
from middleware.grpc import GrpcStatus
from middleware.testing import (
    FakeContext,
    FakeRequest,
    FakeResponse,
    FakeWindow,
    FakeWindows,
    Scripted,
    handler_of,
    run,
    sent_over,
    status_of,
)

NAME = "svc.mesh/circuit-breaker"
FALLBACK = "svc.mesh/circuit-breaker-fallback"
RECOVERY = "svc.mesh/circuit-breaker-recovery"
SAMPLES = "svc.mesh/circuit-breaker-samples"
FORCE = "svc.mesh/circuit-breaker-force"
HALF = "NetworkErrorRatio() > 0.5"


def test_values() -> None:
    assert parse({NAME: f"  {HALF}\n"}) == Options(HALF)
    assert sent_over(Options(HALF)) == Options(HALF)
    assert parse({"svc.mesh/enabled": "true"}) is None


@pytest.mark.parametrize(
    ("annotations", "options"),
    [
        ({NAME: HALF, FALLBACK: " 429 "}, Options(HALF, status=429)),
        ({NAME: HALF, FALLBACK: "catalog-static"}, Options(HALF, fallback="catalog-static")),
        ({NAME: HALF, RECOVERY: "30s"}, Options(HALF, recovery=30.0)),
        (
            {NAME: HALF, RECOVERY: "1m after=5s check=1s"},
            Options(HALF, recovery=60.0, open_for=5.0, check_every=1.0),
        ),
        ({NAME: HALF, SAMPLES: "20"}, Options(HALF, samples=20)),
        ({NAME: HALF, FORCE: "open"}, Options(HALF, force="open")),
        ({NAME: HALF, FORCE: "none"}, Options(HALF)),
        ({FORCE: "closed"}, Options(force="closed")),
        ({FORCE: "open", FALLBACK: "418"}, Options(force="open", status=418)),
        ({FORCE: "none"}, None),
    ],
)
def test_values_of_what_belongs_to_it(annotations: dict[str, str], options: Options | None) -> None:
    assert parse(annotations) == options
    if options is not None:
        assert sent_over(options) == options


@pytest.mark.parametrize(
    ("annotations", "annotation", "reason"),
    [
        ({FALLBACK: "429"}, FALLBACK, f"has no effect without {NAME}"),
        ({RECOVERY: "1s", FORCE: "open"}, RECOVERY, f"has no effect without {NAME}"),
        ({FALLBACK: "429", FORCE: "closed"}, FALLBACK, f"has no effect without {NAME}"),
        ({SAMPLES: "5"}, SAMPLES, f"has no effect without {NAME}"),
        ({NAME: HALF, FALLBACK: "200"}, FALLBACK, '"200" is neither a status nor a Service'),
        ({NAME: HALF, FALLBACK: "other.shop"}, FALLBACK, '"other.shop" is neither a status nor a Service'),
        ({NAME: HALF, FALLBACK: ""}, FALLBACK, '"" is neither a status nor a Service'),
        ({NAME: HALF, RECOVERY: "0"}, RECOVERY, "0 is out of range"),
        ({NAME: HALF, RECOVERY: "10s open=5s"}, RECOVERY, '"open" is not known'),
        ({NAME: HALF, RECOVERY: "10s after=2h"}, RECOVERY, "2h is out of range"),
        ({NAME: HALF, RECOVERY: "10s check=1ms"}, RECOVERY, "1ms is out of range"),
        ({NAME: HALF, SAMPLES: "0"}, SAMPLES, "0 is out of range"),
        ({NAME: HALF, FORCE: "opened"}, FORCE, '"opened" is not known'),
    ],
)
def test_what_belongs_to_it_may_be_wrong(annotations: dict[str, str], annotation: str, reason: str) -> None:
    problem = parse(annotations)
    assert isinstance(problem, Problem)
    assert (problem.annotation, problem.reason) == (annotation, reason)
    assert problem.value == annotations[annotation]


def test_a_bad_expression_is_a_problem() -> None:
    problem = parse({NAME: "NetworkErrors() > 0.5"})
    assert isinstance(problem, Problem)
    assert problem.annotation == NAME
    assert problem.reason == 'at column 1: "NetworkErrors" is not known'
    assert "NetworkErrorRatio()" in problem.expected


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        (" || ".join(f"LatencyAtQuantileMS(1)>{bound}" for bound in range(18)), 19),
        ("||".join(f"ResponseCodeRatio({n},9,{n},8)>1" for n in range(8)) + "||NetworkErrorRatio()>0", 18),
    ],
)
def test_the_longest_expression_of_today_fits(text: str, needed: int) -> None:
    assert len(text) <= 512
    assert Condition(parse_expression(text)).counters == needed
    assert parse({NAME: text}) == Options(text)


def test_an_expression_that_needs_too_many_counters_is_a_problem() -> None:
    ratios = [f"ResponseCodeRatio({n},{n + 1},{n},{n + 2})>.5" for n in range(15)]
    text = "||".join([*ratios, "NetworkErrorRatio()>0"])
    problem = parse({NAME: text})
    assert isinstance(problem, Problem)
    assert problem.reason == "at column 1: the expression counts 31 different things"
    assert problem.expected.startswith("at most 30 ranges of status codes and bounds of latencies")


class Workers:
    """The breakers of the workers of one node, over the window that they share."""

    def __init__(self, text: str = HALF, workers: int = 1, options: Options | None = None) -> None:
        condition = Condition(parse_expression(text))
        self.window = FakeWindow(condition.counters)
        self.breakers = [CircuitBreaker(condition, self.window, options) for _ in range(workers)]
        self.changes: list[Change] = []
        """All that any of them has seen."""

    def comes(self, now: float, worker: int = 0) -> int | None:
        """Let a request come; return the moment that it goes by, or None if it is refused."""
        breaker, opened = self.breakers[worker], self.window.moment()
        if opened != breaker.settled:
            self.changes.extend(breaker.advance(now, opened))
            if not breaker.admit(now):
                return None
        return opened

    def answered(
        self, now: float, opened: int, status: int = 502, worker: int = 0, latency: float = 0.0
    ) -> None:
        change = self.breakers[worker].record(now, opened, latency, status)
        self.changes.extend([change] if change is not None else [])

    def ask(self, now: float, status: int = 502, worker: int = 0, latency: float = 0.0) -> bool:
        """Let a request come and be answered at once; return whether it passed."""
        opened = self.comes(now, worker)
        if opened is None:
            return False
        self.answered(now, opened, status, worker, latency)
        return True

    def fail(self, now: float, count: int = FEWEST_OUTCOMES, worker: int = 0) -> None:
        """Let requests fail a tenth of a second apart, the last one at `now`."""
        for index in range(count):
            self.ask(now - (count - 1 - index) * 0.1001, worker=worker)

    def states(self) -> list[State]:
        """As the workers saw it last."""
        return [breaker.state for breaker in self.breakers]

    @property
    def told(self) -> list[State]:
        """What people were told."""
        return [change.state for change in self.changes if change.first]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_quiet_service_that_only_fails_is_protected(workers: int) -> None:
    """Of the same 20 requests in 25 s Traefik lets 2 through."""
    node = Workers(workers=workers)
    passed = [node.ask(100 + index * 1.25, worker=index % workers) for index in range(20)]
    assert passed[:4] == [True, True, True, False]
    assert sum(passed) == 4
    assert node.told == [State.OPEN, State.RECOVERING, State.OPEN]


def test_it_opens_once_the_condition_holds_of_enough_outcomes() -> None:
    node = Workers()
    node.fail(100.0, count=2)
    assert node.changes == []
    node.ask(100.2)
    assert node.changes == [Change(State.OPEN, True, 3, "NetworkErrorRatio()=1")]
    assert not node.ask(100.3)


def test_outcomes_of_all_workers_count() -> None:
    node = Workers(workers=3)
    assert [node.ask(100 + worker / 5, worker=worker) for worker in (0, 1, 2)] == [True] * 3
    assert [node.ask(101, worker=worker) for worker in (0, 1, 2)] == [False] * 3
    assert node.told == [State.OPEN]


def test_the_condition_is_asked_every_tenth_of_a_second() -> None:
    node = Workers()
    node.ask(100.0, status=200)
    for _ in range(50):
        node.ask(100.05)
    assert node.changes == []
    node.ask(100.11)
    assert node.told == [State.OPEN]


def test_it_stays_closed_while_the_condition_does_not_hold() -> None:
    node = Workers()
    for tick in range(1000):
        assert node.ask(100 + tick * 0.1001, status=502 if tick % 2 else 200)


@pytest.mark.parametrize("workers", [1, 2])
def test_open_then_recovering_then_closed(workers: int) -> None:
    node = Workers(workers=workers)
    other = workers - 1
    node.fail(100.0)
    assert not node.ask(109.9, worker=other)
    assert node.breakers[other].state is State.OPEN
    assert node.breakers[other].retry_after(104.0) == pytest.approx(6.0)
    assert not node.ask(110.0, worker=other)
    assert node.breakers[other].state is State.RECOVERING
    assert not node.ask(110.0)
    node.ask(119.9, status=200)
    assert node.breakers[0].state is State.RECOVERING
    assert node.ask(120.0, worker=other)
    assert node.breakers[other].state is State.CLOSED
    assert node.ask(120.0)
    assert node.told == [State.OPEN, State.RECOVERING, State.CLOSED], "each once for the node"


@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 40), st.floats(0, 1), st.floats(0, 0.999))
def test_the_owner_sets_times_and_numbers(
    open_for: int, recovery: int, samples: int, within: float, later: float
) -> None:
    node = Workers(options=Options(HALF, open_for=open_for, recovery=recovery, samples=samples))
    node.fail(100.0, count=samples - 1)
    assert node.told == []
    node.ask(100.2)
    assert node.told == [State.OPEN]
    opened = 100.2
    assert not node.ask(opened + open_for * min(within, 0.999))
    assert node.states() == [State.OPEN]
    node.ask(opened + open_for + recovery * later + 1e-6, status=200)
    assert node.states() == [State.RECOVERING]
    assert node.ask(opened + open_for + recovery + 0.001, status=200)
    assert node.told == [State.OPEN, State.RECOVERING, State.CLOSED]


def test_one_sample_may_be_enough() -> None:
    node = Workers(options=Options(HALF, samples=1))
    assert node.ask(100.0)
    assert not node.ask(100.1)


def test_the_condition_is_asked_as_often_as_the_owner_says() -> None:
    node = Workers(options=Options(HALF, check_every=5.0))
    node.ask(100.0, status=200)
    for tick in range(49):
        assert node.ask(100.1 + tick / 10)
    node.ask(105.01)
    assert node.told == [State.OPEN]


def test_a_threshold_of_requests_in_the_expression() -> None:
    node = Workers(f"{HALF} && RequestThreshold() >= 20")
    node.fail(101.95, count=19)
    assert node.told == []
    node.ask(102.1)
    assert node.changes == [Change(State.OPEN, True, 20, "NetworkErrorRatio()=1, RequestThreshold()=20")]


def test_time_passes_without_requests() -> None:
    node = Workers(workers=2)
    node.fail(100.0)
    assert node.ask(500.0)
    assert node.ask(500.0, worker=1)
    assert node.told == [State.OPEN, State.RECOVERING, State.CLOSED]


def test_a_worker_that_starts_later_finds_the_breaker_as_it_is() -> None:
    node = Workers(workers=2)
    node.fail(100.0)
    assert not node.ask(101.0, worker=1)
    assert node.breakers[1].state is State.OPEN
    assert node.told == [State.OPEN]


def test_a_worker_that_opens_it_while_another_does_tells_nobody() -> None:
    node = Workers(workers=2)
    node.fail(100.0, count=2)
    before = [node.comes(100.3), node.comes(100.3, worker=1)]
    assert before == [0, 0]
    node.answered(100.4, 0)
    node.answered(100.4, 0, worker=1)
    assert node.told == [State.OPEN]


def test_a_window_that_was_forgotten_is_a_closed_breaker() -> None:
    node = Workers()
    node.fail(100.0)
    assert not node.ask(101.0)
    node.window.began = 0
    node.window.counted.clear()
    assert node.ask(101.1)
    assert node.breakers[0].state is State.CLOSED
    assert node.changes[-1] == Change(State.CLOSED, first=False)


def test_the_share_that_passes_grows_evenly() -> None:
    node = Workers()
    node.fail(100.0)
    passed = [
        sum(node.ask(110 + second + tick / 1000, status=200) for tick in range(1000)) for second in range(10)
    ]
    assert passed == pytest.approx([50, 150, 250, 350, 450, 550, 650, 750, 850, 950], abs=2)


def test_it_opens_again_at_the_first_failure_of_recovery() -> None:
    node = Workers()
    node.fail(100.0)
    times = [112.0 + tick / 10 for tick in range(20)]
    passed = [time for time in times if node.ask(time)]
    assert len(passed) == 1
    assert node.told == [State.OPEN, State.RECOVERING, State.OPEN]
    assert node.breakers[0].retry_after(passed[0]) == pytest.approx(10.0)


def test_once_closed_again_one_failure_is_no_ratio() -> None:
    node = Workers()
    node.fail(100.0)
    assert [node.ask(120.0 + tick) for tick in range(4)] == [True, True, True, False]


def test_answers_to_requests_from_before_do_not_count() -> None:
    node = Workers(workers=2)
    early = [node.comes(99.0, worker=1) for _ in range(100)]
    node.fail(100.0)
    assert not node.ask(111.0)
    for tick, opened in enumerate(early):
        assert opened is not None
        node.answered(105 + tick / 5, opened, worker=1)
    assert node.told == [State.OPEN, State.RECOVERING]


def test_latency_and_status_codes_open_it() -> None:
    slow = Workers("LatencyAtQuantileMS(50.0) > 100")
    for tick in range(3):
        slow.ask(100 + tick / 5, status=200, latency=0.101)
    assert slow.changes == [Change(State.OPEN, True, 3, "LatencyAtQuantileMS(50.0)>100")]
    coded = Workers("ResponseCodeRatio(500, 600, 0, 600) > 0.25")
    for tick in range(3):
        coded.ask(100 + tick / 5, status=500 + tick)
    assert coded.told == [State.OPEN]


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
        assert [status_of(handler(FakeRequest())) for _ in range(3)] == ["connect_failed"] * 3
        with pytest.raises(CircuitOpen) as error:
            run(handler(FakeRequest()))
    assert (error.value.status, error.value.reason) == (503, "circuit_open")
    assert error.value.headers == (("Retry-After", "10"),)
    assert HALF in error.value.detail
    assert len(scripted.requests) == 3
    assert context.metrics == {
        "svcmesh_circuit_breaker_state": 2,
        "svcmesh_circuit_breaker_opened": 1,
        "svcmesh_circuit_breaker_rejected": 1,
        "svcmesh_circuit_breaker_fallback": 0,
    }
    assert logs == [
        {
            "event": "circuit_breaker_opened",
            "log_level": "warning",
            "service": "default/whoami",
            "port": 80,
            "expression": HALF,
            "open_ms": 10_000,
            "requests": 3,
            "figures": "NetworkErrorRatio()=1",
        }
    ]


def opened_with(options: Options, context: FakeContext) -> tuple[Handler, Scripted]:
    """Return a layer whose breaker is open, before endpoints that answer with 200 from now on."""

    def pass_time() -> None:
        context.time += 0.11

    scripted = Scripted([ConnectFailed("refused")] * FEWEST_OUTCOMES + [200], during=pass_time)
    handler = build(options, context)(scripted)
    for _ in range(FEWEST_OUTCOMES):
        assert status_of(handler(FakeRequest())) == "connect_failed"
    return handler, scripted


def test_what_does_not_pass_has_the_status_that_the_owner_has_set(context: FakeContext) -> None:
    handler, scripted = opened_with(Options(HALF, status=429), context)
    with pytest.raises(CircuitOpen) as error:
        run(handler(FakeRequest()))
    assert (error.value.status, error.value.reason) == (429, "circuit_open")
    assert error.value.headers == (("Retry-After", "10"),)
    assert CircuitOpen("another").status == 503
    assert len(scripted.requests) == 3


def test_what_does_not_pass_goes_to_the_fallback_and_does_not_count(context: FakeContext) -> None:
    handler, scripted = opened_with(Options(HALF, fallback="spare"), context)
    window = next(iter(context.windows.made.values()))
    counted = sum(bool(counters) for _, counters in window.counted)
    requests = [FakeRequest() for _ in range(5)]
    assert [status_of(handler(request)) for request in requests] == [200] * 5
    assert [request.backend for request in requests] == ["spare"] * 5
    assert sum(bool(counters) for _, counters in window.counted) == counted
    assert context.metrics["svcmesh_circuit_breaker_fallback"] == 5
    assert context.metrics["svcmesh_circuit_breaker_rejected"] == 0
    context.time += 20
    request = FakeRequest()
    assert (status_of(handler(request)), request.backend) == (200, "")
    assert scripted.requests[-1] is request


def test_a_failure_of_the_fallback_is_passed_on(context: FakeContext) -> None:
    handler, _ = handler_of(build(Options(force="open", fallback="spare"), context), NoEndpoint("none"))
    assert status_of(handler(FakeRequest())) == "no_endpoint"


def test_a_service_is_not_its_own_fallback(context: FakeContext) -> None:
    handler, scripted = opened_with(Options(HALF, fallback="whoami"), context)
    assert context.service == "default/whoami"
    assert status_of(handler(FakeRequest())) == "circuit_open"
    assert len(scripted.requests) == 3


def test_the_fallback_is_named_to_the_plan() -> None:
    assert MIDDLEWARE.backends is not None
    assert MIDDLEWARE.backends(Options(HALF, fallback="spare")) == ("spare",)
    assert MIDDLEWARE.backends(Options(HALF)) == ()


@pytest.mark.parametrize("expression", ["", HALF])
def test_forced_open(context: FakeContext, expression: str) -> None:
    handler, scripted = handler_of(build(Options(expression, force="open"), context), 200)
    with pytest.raises(CircuitOpen) as error:
        run(handler(FakeRequest()))
    assert (error.value.status, error.value.headers) == (503, ())
    assert FORCE in error.value.detail
    assert scripted.requests == []
    assert context.metrics["svcmesh_circuit_breaker_state"] == State.OPEN
    assert context.metrics["svcmesh_circuit_breaker_rejected"] == 1


@pytest.mark.parametrize("expression", ["", HALF])
def test_forced_closed(context: FakeContext, expression: str) -> None:
    handler, scripted = handler_of(build(Options(expression, force="closed"), context), 502)
    assert [status_of(handler(FakeRequest())) for _ in range(50)] == [502] * 50
    assert handler is scripted, "it costs nothing"
    assert context.metrics["svcmesh_circuit_breaker_state"] == State.CLOSED


def test_it_recovers_and_says_so(context: FakeContext) -> None:
    handler, _ = breaking(context, *[502] * 3, 200)
    for _ in range(3):
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


def test_each_worker_shows_the_state_and_one_of_them_tells() -> None:
    windows = FakeWindows()
    contexts = [FakeContext(windows=windows), FakeContext(windows=windows)]
    handlers = [handler_of(build(Options(HALF), context), 502)[0] for context in contexts]

    def ask(worker: int, at: float) -> int | str:
        contexts[worker].time = at
        return status_of(handlers[worker](FakeRequest()))

    with structlog.testing.capture_logs() as logs:
        assert [ask(index % 2, 1000 + index) for index in range(4)] == [502, 502, 502, "circuit_open"]
        states = [context.metrics["svcmesh_circuit_breaker_state"] for context in contexts]
        assert states == [State.OPEN, State.OPEN]
        assert [ask(0, 1022.5), ask(1, 1022.5)] == [502, 502]
    assert [line["event"] for line in logs] == [
        "circuit_breaker_opened",
        "circuit_breaker_recovering",
        "circuit_breaker_closed",
    ]
    assert [context.metrics["svcmesh_circuit_breaker_state"] for context in contexts] == [State.CLOSED] * 2
    assert [context.metrics["svcmesh_circuit_breaker_opened"] for context in contexts] == [1, 0]


def test_another_expression_starts_with_its_own_counts() -> None:
    windows = FakeWindows()
    for text in (HALF, "NetworkErrorRatio() > 0.4"):
        handler, _ = handler_of(build(Options(text), FakeContext(windows=windows)), 502)
        assert status_of(handler(FakeRequest())) == 502
    assert [len(window.counted) for window in windows.made.values()] == [1, 1]


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
    for _ in range(3):
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


FAILING = "ResponseCodeRatio(500, 600, 0, 600) > 0.5"


def opened_by_calls(
    context: FakeContext,
    expression: str,
    response: Callable[[], FakeResponse],
    end: Callable[[FakeRequest], None] = lambda request: None,
    completed: float | None = 1000.0,
) -> int:
    """Have three gRPC calls end so; return how often the breaker has opened."""
    handler, _ = handler_of(build(Options(expression), context), *(response() for _ in range(3)))
    for _ in range(3):
        context.time += 0.11
        request = FakeRequest("POST", grpc=True, completed=completed)
        run(handler(request))
        end(request)
    return context.metrics["svcmesh_circuit_breaker_opened"]


@pytest.mark.parametrize(
    ("status", "expression", "opened"),
    [
        (GrpcStatus.UNAVAILABLE, FAILING, 1),
        (GrpcStatus.INTERNAL, FAILING, 1),
        (GrpcStatus.UNKNOWN, FAILING, 1),
        (GrpcStatus.DATA_LOSS, FAILING, 1),
        (GrpcStatus.DEADLINE_EXCEEDED, FAILING, 1),
        (GrpcStatus.UNIMPLEMENTED, FAILING, 1),
        (GrpcStatus.OK, FAILING, 0),
        (GrpcStatus.NOT_FOUND, FAILING, 0),
        (GrpcStatus.CANCELLED, FAILING, 0),
        (GrpcStatus.RESOURCE_EXHAUSTED, FAILING, 0),
        (GrpcStatus.RESOURCE_EXHAUSTED, "ResponseCodeRatio(429, 430, 0, 600) > 0.5", 1),
        (GrpcStatus.DEADLINE_EXCEEDED, HALF, 1),
        (GrpcStatus.UNAVAILABLE, HALF, 0),
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["a head alone", "trailers"])
def test_calls_count_as_the_code_that_says_the_same(
    context: FakeContext, status: GrpcStatus, expression: str, opened: int, at_once: bool
) -> None:
    if at_once:
        got = opened_by_calls(context, expression, lambda: FakeResponse(grpc_status=status))
    else:
        got = opened_by_calls(context, expression, FakeResponse, lambda call: call.end(grpc_status=status))
    assert got == opened


def test_a_call_counts_once_it_has_ended(context: FakeContext) -> None:
    handler, _ = handler_of(build(Options(FAILING), context), FakeResponse())
    requests = [FakeRequest("POST", grpc=True) for _ in range(3)]
    for request in requests:
        assert run(handler(request)).status == 200
    assert [window.counted for window in context.windows.made.values()] == [[]]
    for request in requests:
        context.time += 0.11
        request.end(grpc_status=GrpcStatus.UNAVAILABLE)
    assert status_of(handler(FakeRequest("POST", grpc=True))) == "circuit_open"


def test_a_call_answered_in_http_counts_as_that(context: FakeContext) -> None:
    response = functools.partial(FakeResponse, 502, grpc_status=GrpcStatus.UNAVAILABLE)
    assert opened_by_calls(context, HALF, response) == 1


def test_a_call_that_is_broken_off_is_a_network_error(context: FakeContext) -> None:
    def breaks(request: FakeRequest) -> None:
        request.end(error=UpstreamReset("cut"), grpc_status=GrpcStatus.INTERNAL)

    assert opened_by_calls(context, HALF, FakeResponse, breaks) == 1


def test_a_call_that_its_client_spoils_does_not_count(context: FakeContext) -> None:
    def spoils(request: FakeRequest) -> None:
        request.end(error=BodyTimeout("the client's"), grpc_status=GrpcStatus.INTERNAL)

    assert opened_by_calls(context, "ResponseCodeRatio(201, 600, 0, 600) > 0.5", FakeResponse, spoils) == 0


@pytest.mark.parametrize("status", [0, 200], ids=["before its head went on", "after"])
@pytest.mark.parametrize(("completed", "opened"), [(1000.0, 1), (None, 0)])
def test_a_call_that_is_given_up_counts_if_all_of_it_had_come(
    context: FakeContext, status: int, completed: float | None, opened: int
) -> None:
    def leaves(request: FakeRequest) -> None:
        request.end(status, grpc_status=GrpcStatus.CANCELLED)

    expression = "ResponseCodeRatio(499, 500, 0, 600) > 0.5"
    assert opened_by_calls(context, expression, FakeResponse, leaves, completed) == opened


def test_the_latency_of_a_call_is_that_of_its_head(context: FakeContext) -> None:
    """However long a stream lives."""

    def ends_late(request: FakeRequest) -> None:
        context.time += 2
        request.end(grpc_status=GrpcStatus.OK)

    assert opened_by_calls(context, "LatencyAtQuantileMS(50.0) > 1000", FakeResponse, ends_late) == 0
    windows = list(context.windows.made.values())
    assert [len(window.counted) for window in windows] == [3]
