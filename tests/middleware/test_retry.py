from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.contract import (
    ConnectFailed,
    ExchangeError,
    GatewayTimeout,
    Handler,
    Layer,
    NoEndpoint,
    Problem,
    Rejected,
    ReplyHeaders,
    UpstreamProtocolError,
    UpstreamReset,
)
from middleware.grpc import BY_WORD, GrpcStatus
from middleware.retry import PATIENCE, build
from middleware.retry_options import Options, parse
from middleware.retry_rules import (
    BUDGET_FLOOR,
    PUSHBACK,
    RetryBudget,
    asked_by_call,
    asked_to_wait,
    backoff,
    full_jitter,
    is_retriable_error,
)
from middleware.testing import (
    FakeContext,
    FakeRequest,
    FakeResponse,
    Outcome,
    Scripted,
    handler_of,
    run,
    sent_over,
    status_of,
)
from tests.middleware.problems import assert_problem

ATTEMPTS = "svc.mesh/retry-attempts"
ON = "svc.mesh/retry-on"
METHODS = "svc.mesh/retry-methods"
BUDGET = "svc.mesh/retry-budget"
BACKOFF = "svc.mesh/retry-backoff"
HEDGE = "svc.mesh/hedge"


class UpstreamTimeout(ExchangeError):
    fault = "upstream"
    status = 504
    reason = "upstream_timeout"


class TryTooSlow(GatewayTimeout):
    reason = "try_too_slow"


class TimeIsUp(GatewayTimeout):
    reason = "time_is_up"
    final = True


class ClientLeft(ExchangeError):
    fault = "client"
    status = 499
    reason = "client_left"
    processed = False


@pytest.mark.parametrize(
    ("annotations", "options"),
    [
        ({ATTEMPTS: "2"}, Options(2)),
        ({ATTEMPTS: "0"}, None),
        ({ATTEMPTS: "0", ON: "5xx"}, None),
        ({"svc.mesh/enabled": "true"}, None),
        ({ATTEMPTS: "10", ON: " 503,gateway-error , 5xx,503"}, Options(10, ("503", "5xx", "gateway-error"))),
        ({ATTEMPTS: "1", ON: "reset,connect-failure"}, Options(1, ("connect-failure", "reset"))),
        ({ATTEMPTS: "1", METHODS: " POST, PATCH,POST"}, Options(1, methods=("PATCH", "POST"))),
        ({ATTEMPTS: "1", METHODS: "any,POST"}, Options(1, methods=("any",))),
        ({ATTEMPTS: "1", BUDGET: "12.5%"}, Options(1, budget_percent=12.5, budget_floor=10)),
        ({ATTEMPTS: "1", BUDGET: "10% min=5/s"}, Options(1, budget_percent=10.0, budget_floor=50)),
        ({ATTEMPTS: "1", BUDGET: "0% min=6/m"}, Options(1, budget_percent=0.0, budget_floor=1)),
        ({ATTEMPTS: "1", BUDGET: "100% min=0"}, Options(1, budget_percent=100.0, budget_floor=0)),
        ({ATTEMPTS: "1", BACKOFF: "50ms"}, Options(1, base=0.05, limit=0.5)),
        ({HEDGE: "95%"}, Options(0, hedge_percent=95.0)),
        ({HEDGE: "95%", BUDGET: "5%"}, Options(0, budget_percent=5.0, hedge_percent=95.0)),
        ({ATTEMPTS: "2", HEDGE: "99.9%"}, Options(2, hedge_percent=99.9)),
        ({ATTEMPTS: "2", HEDGE: "none"}, Options(2)),
        ({HEDGE: "none"}, None),
        ({ATTEMPTS: "1", BACKOFF: "50ms max=1s"}, Options(1, base=0.05, limit=1.0)),
        ({ATTEMPTS: "1", BACKOFF: "30s"}, Options(1, base=30.0, limit=60.0)),
        (
            {ATTEMPTS: "1", BACKOFF: "1ms retry-after=5s max=1ms"},
            Options(1, base=0.001, limit=0.001, retry_after=5.0),
        ),
        (
            {ATTEMPTS: "1", BACKOFF: "1ms retry-after=ignore"},
            Options(1, base=0.001, limit=0.01, retry_after=None),
        ),
    ],
)
def test_values(annotations: dict[str, str], options: Options | None) -> None:
    assert parse(annotations) == options
    if options is not None:
        assert sent_over(options) == options


@pytest.mark.parametrize(
    ("annotations", "annotation", "reason"),
    [
        ({ATTEMPTS: "11"}, ATTEMPTS, "11 is out of range"),
        ({ATTEMPTS: "two"}, ATTEMPTS, '"two" is not a whole number'),
        ({ATTEMPTS: "two", ON: "nonsense"}, ATTEMPTS, '"two" is not a whole number'),
        ({ON: "5xx"}, ON, f"has no effect without {ATTEMPTS}"),
        ({ATTEMPTS: "2", ON: "5xz"}, ON, '"5xz" is not known'),
        ({ATTEMPTS: "2", ON: "5xx,,reset"}, ON, '"" is not known'),
        ({ATTEMPTS: "2", ON: "200"}, ON, '"200" is not known'),
        ({ATTEMPTS: "2", ON: "600"}, ON, '"600" is not known'),
        ({ATTEMPTS: "2", ON: ""}, ON, '"" is not known'),
        ({METHODS: "POST"}, METHODS, f"has no effect without {ATTEMPTS}"),
        ({BUDGET: "10%"}, BUDGET, f"has no effect without {ATTEMPTS}"),
        ({BACKOFF: "10ms"}, BACKOFF, f"has no effect without {ATTEMPTS}"),
        ({ATTEMPTS: "2", METHODS: "post"}, METHODS, '"post" is not a method that can be sent again'),
        ({ATTEMPTS: "2", METHODS: "CONNECT"}, METHODS, '"CONNECT" is not a method that can be sent again'),
        ({ATTEMPTS: "2", METHODS: "POST,"}, METHODS, '"" is not a method that can be sent again'),
        ({ATTEMPTS: "2", BUDGET: "20"}, BUDGET, '"20" is not a percentage'),
        ({ATTEMPTS: "2", BUDGET: "101%"}, BUDGET, '"101%" is not a percentage'),
        ({ATTEMPTS: "2", BUDGET: "0% min=0"}, BUDGET, "it allows no retry"),
        ({ATTEMPTS: "2", BUDGET: "20% min=5/m"}, BUDGET, "min=5/m is less than one in 10 s"),
        ({ATTEMPTS: "2", BUDGET: "20% min=10"}, BUDGET, '"10" is not a rate'),
        ({ATTEMPTS: "2", BUDGET: "20% max=10/s"}, BUDGET, '"max" is not known'),
        ({ATTEMPTS: "2", BUDGET: "20% min=1/s min=2/s"}, BUDGET, "min is given twice"),
        ({ATTEMPTS: "2", BUDGET: "20% 10/s"}, BUDGET, '"10/s" is not name=value'),
        ({HEDGE: "95"}, HEDGE, '"95" is not a percentage'),
        ({HEDGE: "100%"}, HEDGE, "100% is out of range"),
        ({HEDGE: "49.99%"}, HEDGE, "49.99% is out of range"),
        ({HEDGE: "95%", ON: "5xx"}, ON, f"has no effect without {ATTEMPTS}"),
        ({ATTEMPTS: "2", BACKOFF: ""}, BACKOFF, '"" is not a duration'),
        ({ATTEMPTS: "2", BACKOFF: "0"}, BACKOFF, "0 is out of range"),
        ({ATTEMPTS: "2", BACKOFF: "1s max=999ms"}, BACKOFF, "999ms is out of range"),
        ({ATTEMPTS: "2", BACKOFF: "1s retry-after=soon"}, BACKOFF, '"soon" is not a duration'),
    ],
)
def test_a_bad_value_is_a_problem(annotations: dict[str, str], annotation: str, reason: str) -> None:
    assert_problem(parse(annotations), annotation, annotations[annotation], reason)


@pytest.mark.parametrize(
    ("on", "statuses"),
    [
        ((), set()),
        (("connect-failure", "reset"), set()),
        (("503", "429"), {503, 429}),
        (("gateway-error", "retriable-4xx"), {502, 503, 504, 409}),
        (("5xx", "502"), set(range(500, 600))),
    ],
)
def test_words_stand_for_status_codes(on: tuple[str, ...], statuses: set[int]) -> None:
    assert Options(1, on).statuses() == statuses


@pytest.mark.parametrize(
    ("error", "statuses", "get", "post"),
    [
        (ConnectFailed("refused"), (), True, True),
        (NoEndpoint("none"), (503,), False, False),
        (UpstreamReset("cut"), (), True, False),
        (UpstreamProtocolError("nonsense"), (), False, False),
        (UpstreamProtocolError("nonsense"), (502,), True, False),
        (UpstreamTimeout("slow"), (502,), False, False),
        (UpstreamTimeout("slow"), (504,), True, False),
        (TryTooSlow("slow"), (), True, False),
        (TimeIsUp("over"), (504,), False, False),
        (Rejected("no"), (503,), False, False),
        (ClientLeft("gone"), (499,), False, False),
    ],
)
def test_which_errors_are_retried(
    error: ExchangeError, statuses: tuple[int, ...], get: bool, post: bool
) -> None:
    assert is_retriable_error(error, "GET", frozenset(statuses)) is get
    assert is_retriable_error(error, "POST", frozenset(statuses)) is post


def retrying(options: Options, *outcomes: Outcome) -> tuple[Handler, Scripted, FakeContext]:
    context = FakeContext()
    handler, scripted = handler_of(build(options, context, sleep=at_once, fraction=lambda: 1.0), *outcomes)
    return handler, scripted, context


async def at_once(_seconds: float) -> None:
    return


def test_another_try_brings_the_answer() -> None:
    handler, scripted, context = retrying(Options(2), ConnectFailed("refused"), UpstreamReset("cut"), 200)
    request = FakeRequest()
    assert run(handler(request)).status == 200
    assert scripted.requests == [request] * 3
    assert context.metrics == {
        "svcmesh_retries": 2,
        "svcmesh_retry_budget_exhausted": 0,
        "svcmesh_hedges": 0,
    }


def test_a_retried_response_is_discarded_the_last_one_is_not() -> None:
    handler, scripted, _ = retrying(Options(2, ("503",)), 503)
    assert run(handler(FakeRequest())) is scripted.responses[2]
    assert [response.discarded for response in scripted.responses] == [True, True, False]


def test_the_last_error_is_raised() -> None:
    last = UpstreamReset("the last")
    handler, _, _ = retrying(Options(1), UpstreamReset("the first"), last)
    with pytest.raises(UpstreamReset) as error:
        run(handler(FakeRequest()))
    assert error.value is last


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "get", "LOCK"])
def test_what_may_have_been_processed_is_not_sent_again(method: str) -> None:
    for outcome in (503, UpstreamReset("cut")):
        handler, scripted, _ = retrying(Options(2, ("5xx",)), outcome, 200)
        assert status_of(handler(FakeRequest(method))) in (503, "upstream_reset")
        assert len(scripted.requests) == 1
    handler, scripted, _ = retrying(Options(2), ConnectFailed("refused"), 200)
    assert status_of(handler(FakeRequest(method))) == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
def test_idempotent_methods_are(method: str) -> None:
    handler, _, _ = retrying(Options(1, ("5xx",)), 500, 200)
    assert status_of(handler(FakeRequest(method))) == 200


def test_other_answers_are_passed_on() -> None:
    for status in (200, 404, 429, 500, 503):
        handler, scripted, _ = retrying(Options(2), status)
        assert status_of(handler(FakeRequest())) == status
        assert len(scripted.requests) == 1


def test_a_request_whose_body_is_gone_is_not_sent_again() -> None:
    for outcome in (503, ConnectFailed("refused")):
        handler, scripted, context = retrying(Options(2, ("5xx",)), outcome)
        assert status_of(handler(FakeRequest(replayable=False))) in (503, "connect_failed")
        assert len(scripted.requests) == 1
        assert context.metrics["svcmesh_retries"] == 0
        assert not any(response.discarded for response in scripted.responses)


def test_a_body_that_outgrows_the_memory_during_the_wait_keeps_the_answer() -> None:
    context = FakeContext()
    request = FakeRequest()

    async def outgrow(_seconds: float) -> None:
        request.replayable = False

    handler, scripted = handler_of(
        build(Options(5, ("503",)), context, sleep=outgrow, fraction=lambda: 1.0), 503
    )
    assert run(handler(request)) is scripted.responses[1]
    assert [response.discarded for response in scripted.responses] == [True, False]


def test_the_first_retry_is_sent_at_once_later_ones_wait() -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    layer = build(Options(10), FakeContext(), sleep=sleep, fraction=lambda: 1.0)
    handler, _ = handler_of(layer, UpstreamReset("cut"))
    assert status_of(handler(FakeRequest())) == "upstream_reset"
    assert waited == pytest.approx([0.025, 0.075, 0.175, *[0.250] * 6])


@given(st.integers(1, 10), st.floats(0, 1))
def test_the_wait_is_random_and_bounded(retry: int, fraction: float) -> None:
    assert 0 <= backoff(retry, fraction) <= 0.250
    assert backoff(retry, 0) == 0


@given(st.integers(1, 10), st.floats(0, 1), st.floats(0.001, 60), st.floats(1, 100))
def test_full_jitter_doubles_up_to_its_limit(retry: int, fraction: float, base: float, factor: float) -> None:
    limit = base * factor
    assert full_jitter(retry, 0.0, base, limit) == 0
    assert full_jitter(retry, fraction, base, limit) <= full_jitter(retry, 1.0, base, limit) <= limit
    assert full_jitter(retry, 1.0, base, limit) == min(limit, base * 2 ** (retry - 1))


class Pauses:
    """Notes for how long a layer sleeps."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)

    def layer(self, options: Options, fraction: float = 1.0, wall: float = 0.0) -> Layer:
        return build(options, FakeContext(), sleep=self.sleep, fraction=lambda: fraction, wall=lambda: wall)


def test_waits_that_the_owner_has_set() -> None:
    pauses = Pauses()
    handler, _ = handler_of(pauses.layer(Options(6, base=0.1, limit=1.0)), UpstreamReset("cut"))
    assert status_of(handler(FakeRequest())) == "upstream_reset"
    assert pauses.seconds == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


NOON = "Sat, 28 Nov 2026 12:00:00 GMT"
NOON_SECONDS = 1795867200.0


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 0.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "9" * 5000}, float("9" * 18)),
        ({"Retry-After": "Sat, 28 Nov 2026 12:00:07 GMT"}, 7.0),
        ({"Retry-After": "Sat, 28 Nov 2026 11:59:00 GMT"}, 0.0),
        ({"Retry-After": NOON, "Date": "Sat, 28 Nov 2026 11:59:58 GMT"}, 2.0),
        ({"Retry-After": NOON, "Date": "yesterday"}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "-1"}, 0.0),
        ({"Retry-After": "1.5"}, 0.0),
        ({"Retry-After": ""}, 0.0),
        ({"Retry-After": "Sat, 28 Nov 99999 12:00:07 GMT"}, 0.0),
    ],
)
def test_what_an_endpoint_asks_for(fields: dict[str, str], seconds: float) -> None:
    assert asked_to_wait(ReplyHeaders(fields.items()), NOON_SECONDS) == seconds


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_value_of_an_endpoint_does_harm(text: str, date: str) -> None:
    headers = FakeResponse().headers
    headers._fields = [("Retry-After", text), ("Date", date)]
    assert asked_to_wait(headers, NOON_SECONDS) >= 0


@pytest.mark.parametrize(
    ("longest", "asked", "waited"),
    [(1.0, "1", [1.025]), (1.0, "2", None), (5.0, "2", [2.025]), (None, "3600", [0.025]), (0.0, "1", None)],
)
def test_what_an_endpoint_asks_for_is_waited_for_or_not_tried_again(
    longest: float | None, asked: str, waited: list[float] | None
) -> None:
    pauses = Pauses()
    busy = FakeResponse(503, {"Retry-After": asked})
    layer = pauses.layer(Options(1, ("503",), base=0.025, limit=0.25, retry_after=longest))
    handler, scripted = handler_of(layer, busy, 200)
    response = run(handler(FakeRequest()))
    if waited is None:
        assert (response, busy.discarded, len(scripted.requests)) == (busy, False, 1)
    else:
        assert (response.status, busy.discarded) == (200, True)
    assert pauses.seconds == pytest.approx(waited or [])


def test_what_is_not_tried_again_costs_no_budget() -> None:
    handler, scripted, context = retrying(Options(1, ("503",)), FakeResponse(503, {"Retry-After": "60"}))
    for _ in range(20):
        assert status_of(handler(FakeRequest())) == 503
    assert len(scripted.requests) == 20
    assert set(context.metrics.values()) == {0}


@pytest.mark.parametrize(
    ("methods", "method", "again"),
    [
        (("POST",), "POST", True),
        (("POST",), "PATCH", False),
        (("POST",), "PUT", True),
        (("any",), "PATCH", True),
        (("any",), "X-OWN", True),
    ],
)
def test_further_methods_are_sent_again(methods: tuple[str, ...], method: str, again: bool) -> None:
    for outcome in (503, UpstreamReset("cut"), TryTooSlow("slow")):
        handler, scripted, _ = retrying(Options(1, ("503",), methods), outcome, 200)
        assert (status_of(handler(FakeRequest(method))) == 200) is again
        assert len(scripted.requests) == 1 + again


def test_further_methods_do_not_mean_calls() -> None:
    handler, scripted = calling(Options(1, ("503",), ("any",)), UpstreamReset("cut"), 200)
    assert status_of(handler(grpc_call())) == "upstream_reset"
    assert len(scripted.requests) == 1


@pytest.mark.parametrize("base", [ConnectFailed, UpstreamReset])
def test_a_request_that_is_over_is_not_sent_again(base: type[ExchangeError]) -> None:
    error = base("over")
    error.final = True
    handler, scripted, _ = retrying(Options(3, ("5xx",)), error, 200)
    assert status_of(handler(FakeRequest())) == base.reason
    assert len(scripted.requests) == 1


def test_a_limit_that_passes_during_the_wait_is_the_end() -> None:
    over = TimeIsUp("over")

    async def sleep(_seconds: float) -> None:
        raise over

    layer = build(Options(5), FakeContext(), sleep=sleep, fraction=lambda: 1.0)
    handler, scripted = handler_of(layer, UpstreamReset("cut"))
    with pytest.raises(TimeIsUp) as error:
        run(handler(FakeRequest()))
    assert error.value is over
    assert len(scripted.requests) == 2


def test_retries_stop_when_the_budget_is_used_up() -> None:
    handler, scripted, context = retrying(Options(3), UpstreamReset("cut"))
    for _ in range(1000):
        assert status_of(handler(FakeRequest())) == "upstream_reset"
    assert len(scripted.requests) == 1000 + 200
    assert context.metrics["svcmesh_retries"] == 200
    assert context.metrics["svcmesh_retry_budget_exhausted"] >= 800


def withdrawals(steps: list[tuple[float, bool]], budget: RetryBudget) -> Iterator[tuple[float, bool, bool]]:
    """Play steps of (seconds passed, whether it is a retry) and yield (now, whether a retry, granted)."""
    now = 100.0
    for gap, is_retry in steps:
        now += gap
        if is_retry:
            yield now, True, budget.withdraw(now)
        else:
            budget.deposit(now)
            yield now, False, True


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.001, 0.1, 3.0]), st.booleans()), max_size=300),
    st.sampled_from([(2000, BUDGET_FLOOR), (0, 3), (10_000, 0), (1, 0), (5050, 1)]),
)
def test_retries_never_exceed_the_budget(steps: list[tuple[float, bool]], allowed: tuple[int, int]) -> None:
    share, floor = allowed
    played = list(withdrawals(steps, RetryBudget(share, floor)))
    for end, (now, is_retry, granted) in enumerate(played):
        if is_retry and granted:
            window = [step for step in played[: end + 1] if step[0] >= now - 10]
            requests = sum(not retry for _, retry, _ in window)
            recent = [step for step in played[: end + 1] if step[0] > now - 9]
            retries = sum(retry and given for _, retry, given in recent)
            assert retries <= max(floor, requests * share / 10_000)


@given(st.integers(0, 400), st.integers(0, 10_000), st.integers(0, 50))
def test_the_whole_budget_may_be_used(requests: int, share: int, floor: int) -> None:
    budget = RetryBudget(share, floor)
    for _ in range(requests):
        budget.deposit(100.0)
    granted = sum(budget.withdraw(100.5) for _ in range(500))
    assert granted == max(floor, requests * share // 10_000)


def test_a_quiet_service_may_retry_a_little() -> None:
    budget = RetryBudget()
    assert [budget.withdraw(1.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not budget.withdraw(10.9)
    assert budget.withdraw(11.0)


def test_requests_of_long_ago_pay_for_nothing() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.deposit(1.0)
    assert sum(budget.withdraw(20.0) for _ in range(1000)) == BUDGET_FLOOR


UNAVAILABLE = Options(2, ("unavailable",))


def calling(options: Options, *outcomes: Outcome) -> tuple[Handler, Scripted]:
    layer = build(options, FakeContext(), sleep=at_once, fraction=lambda: 1.0)
    return handler_of(layer, *outcomes)


def grpc_call(**options: Any) -> FakeRequest:
    return FakeRequest("POST", grpc=True, **options)


def test_the_words_of_grpc() -> None:
    options = parse({ATTEMPTS: "2", ON: "unavailable, 503, deadline-exceeded"})
    assert options == Options(2, ("503", "deadline-exceeded", "unavailable"))
    assert sent_over(options) == options
    assert options.statuses() == {503}
    assert options.grpc_statuses() == {GrpcStatus.UNAVAILABLE, GrpcStatus.DEADLINE_EXCEEDED}
    assert Options(1, ("5xx", "503")).grpc_statuses() == set()


def test_ok_is_no_reason_to_try_again() -> None:
    assert isinstance(parse({ATTEMPTS: "2", ON: "ok"}), Problem)


@pytest.mark.parametrize(
    "failed",
    [FakeResponse(grpc_status=GrpcStatus.UNAVAILABLE), FakeResponse(early=GrpcStatus.UNAVAILABLE)],
    ids=["known", "early"],
)
def test_a_call_is_tried_again_on_what_is_named(failed: FakeResponse) -> None:
    handler, scripted = calling(UNAVAILABLE, failed, FakeResponse(grpc_status=GrpcStatus.OK))
    assert run(handler(grpc_call())).grpc_status is GrpcStatus.OK
    assert (failed.discarded, len(scripted.requests)) == (True, 2)


@pytest.mark.parametrize("on", [(), ("5xx",), ("503",), ("internal",)])
def test_a_call_is_not_tried_again_on_what_is_not(on: tuple[str, ...]) -> None:
    handler, scripted = calling(Options(2, on), FakeResponse(grpc_status=GrpcStatus.UNAVAILABLE))
    assert run(handler(grpc_call())) is scripted.responses[0]
    assert len(scripted.requests) == 1


def test_a_call_is_waited_for_where_that_may_help() -> None:
    complete, last = FakeResponse(early=GrpcStatus.UNAVAILABLE), FakeResponse()
    handler, _ = calling(Options(1, ("unavailable",)), complete, last)
    run(handler(grpc_call()))
    assert (complete.waited, last.waited) == ([PATIENCE], [])  # there is no further try after the last
    for request in (grpc_call(completed=None), grpc_call(replayable=False), FakeRequest("POST")):
        response = FakeResponse()
        handler, _ = calling(UNAVAILABLE, response)
        assert run(handler(request)) is response
        assert response.waited == []
    response = FakeResponse()
    handler, _ = calling(Options(2, ("5xx",)), response)
    run(handler(grpc_call()))
    assert response.waited == []


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (UpstreamReset("cut"), "unavailable"),
        (UpstreamProtocolError("nonsense"), "unavailable"),
        (UpstreamTimeout("slow"), "deadline-exceeded"),
        (TryTooSlow("slow"), "deadline-exceeded"),
    ],
)
def test_a_call_is_tried_again_on_what_the_mesh_would_say(error: ExchangeError, word: str) -> None:
    other = "deadline-exceeded" if word == "unavailable" else "unavailable"
    for first in (error, FakeResponse(early=error)):
        handler, scripted = calling(Options(2, (word,)), first, 200)
        assert status_of(handler(grpc_call())) == 200
        assert len(scripted.requests) == 2
        handler, scripted = calling(Options(2, (other, "5xx")), error, 200)
        assert status_of(handler(grpc_call())) == error.reason
        handler, scripted = calling(Options(2, (word,)), error, 200)
        assert status_of(handler(FakeRequest("POST"))) == error.reason


@pytest.mark.parametrize("error", [NoEndpoint("none"), TimeIsUp("over"), Rejected("no"), ClientLeft("gone")])
def test_a_call_that_is_over_is_not_tried_again(error: ExchangeError) -> None:
    handler, scripted = calling(Options(2, tuple(sorted(BY_WORD))), error, 200)
    assert status_of(handler(grpc_call())) == error.reason
    assert len(scripted.requests) == 1


def test_calls_have_the_same_budget() -> None:
    handler, scripted = calling(
        Options(3, ("unavailable",)), FakeResponse(grpc_status=GrpcStatus.UNAVAILABLE)
    )
    for _ in range(1000):
        run(handler(grpc_call()))
    assert len(scripted.requests) == 1000 + 200


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("250", 0.25),
        ("9" * 5000, float("9" * 18) / 1000),
        ("-1", None),
        ("", None),
        ("1.5", None),
        ("soon", None),
        ("\u0663", None),
    ],
)
def test_what_a_call_asks_for(text: str, seconds: float | None) -> None:
    assert asked_by_call(text) == seconds


@pytest.mark.parametrize(
    ("longest", "asked", "waited"),
    [
        (1.0, "400", [0.425]),
        (1.0, "1001", None),
        (1.0, "-1", None),
        (1.0, "never", None),
        (None, "-1", [0.025]),
    ],
)
def test_calls_push_back(longest: float | None, asked: str, waited: list[float] | None) -> None:
    """`grpc-retry-pushback-ms` of gRFC A6: waited for, or the call is not sent again."""
    pauses = Pauses()
    busy = FakeResponse(early=GrpcStatus.UNAVAILABLE, trailers={PUSHBACK: asked})
    layer = pauses.layer(Options(1, ("unavailable",), base=0.025, limit=0.25, retry_after=longest))
    handler, scripted = handler_of(layer, busy, FakeResponse(grpc_status=GrpcStatus.OK))
    response = run(handler(grpc_call()))
    if waited is None:
        assert (response, busy.discarded, len(scripted.requests)) == (busy, False, 1)
    else:
        assert (response.grpc_status, busy.discarded) == (GrpcStatus.OK, True)
    assert pauses.seconds == pytest.approx(waited or [])


def test_only_calls_push_back() -> None:
    busy = FakeResponse(503, grpc_status=GrpcStatus.UNAVAILABLE, trailers={PUSHBACK: "-1"})
    handler, scripted, _ = retrying(Options(1, ("503",)), busy, 200)
    assert status_of(handler(FakeRequest())) == 200
    assert len(scripted.requests) == 2
