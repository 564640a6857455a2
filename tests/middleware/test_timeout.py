from __future__ import annotations

from typing import Any

import pytest

from middleware import registry, retry, retry_options, retry_rules, timeout
from middleware.contract import ConnectFailed, ExchangeError, Middleware
from middleware.testing import (
    FakeConnection,
    FakeContext,
    FakeRequest,
    Scripted,
    Silence,
    handler_of,
    run,
    sent_over,
    status_of,
)
from middleware.timeout import CONNECTION_TIMES, MIDDLEWARE, PER_TRY, ConnectionTimes, Options
from tests.middleware.pages import page, rows
from tests.middleware.problems import assert_problem

TIMEOUT = "svc.mesh/timeout"
TRY = "svc.mesh/per-try-timeout"
CONNECT = "svc.mesh/connect-timeout"
IDLE = "svc.mesh/idle-timeout"


@pytest.mark.parametrize(
    ("middleware", "annotations", "options"),
    [
        (MIDDLEWARE, {TIMEOUT: "1m30s"}, Options(90.0)),
        (MIDDLEWARE, {TIMEOUT: " 1ms "}, Options(0.001)),
        (MIDDLEWARE, {TIMEOUT: "24h"}, Options(86400.0)),
        (MIDDLEWARE, {TRY: "1s"}, None),
        (PER_TRY, {TRY: "250ms"}, Options(0.25)),
        (PER_TRY, {TRY: "2s", TIMEOUT: "2s"}, Options(2.0)),
        (PER_TRY, {TRY: "2s", TIMEOUT: "nonsense"}, Options(2.0)),  # that is the other one's problem
        (PER_TRY, {TIMEOUT: "2s"}, None),
        (CONNECTION_TIMES, {CONNECT: "500ms"}, ConnectionTimes(0.5, None)),
        (CONNECTION_TIMES, {IDLE: "1h"}, ConnectionTimes(None, 3600.0)),
        (CONNECTION_TIMES, {CONNECT: "1m", IDLE: "1s"}, ConnectionTimes(60.0, 1.0)),
        (CONNECTION_TIMES, {TIMEOUT: "1s", TRY: "1s"}, None),
    ],
)
def test_values(middleware: Middleware, annotations: dict[str, str], options: Any) -> None:
    assert middleware.parse(annotations) == options
    if options is not None:
        assert sent_over(options) == options


@pytest.mark.parametrize(
    ("middleware", "annotations", "annotation", "reason"),
    [
        (MIDDLEWARE, {TIMEOUT: "5"}, TIMEOUT, '"5" is not a duration (the unit is missing)'),
        (MIDDLEWARE, {TIMEOUT: "0s"}, TIMEOUT, "0s is out of range"),
        (MIDDLEWARE, {TIMEOUT: "25h"}, TIMEOUT, "25h is out of range"),
        (PER_TRY, {TRY: "soon"}, TRY, '"soon" is not a duration'),
        (PER_TRY, {TRY: "3s", TIMEOUT: "2s"}, TRY, f"3s is longer than {TIMEOUT}: 2s, which ends first"),
        (CONNECTION_TIMES, {CONNECT: "61s"}, CONNECT, "61s is out of range"),
        (CONNECTION_TIMES, {CONNECT: "1s", IDLE: "999ms"}, IDLE, "999ms is out of range"),
    ],
)
def test_a_bad_value_is_a_problem(
    middleware: Middleware, annotations: dict[str, str], annotation: str, reason: str
) -> None:
    assert_problem(middleware.parse(annotations), annotation, annotations[annotation], reason)


def test_the_whole_request_has_one_limit_that_is_left_in_force() -> None:
    handler, _ = handler_of(MIDDLEWARE.build(Options(2.0), FakeContext()))
    request = FakeRequest()
    assert status_of(handler(request)) == 200
    (limit,) = request.deadlines
    assert (limit.seconds, limit.cancelled) == (2.0, False)
    error = limit.error()
    assert (error.status, error.reason, error.fault) == (504, "request_timeout", "upstream")
    assert error.final
    assert error.detail == f"no complete response within {TIMEOUT}: 2s"


@pytest.mark.parametrize("outcome", [200, ConnectFailed("refused")])
def test_the_limit_of_a_try_ends_with_it(outcome: int | ExchangeError) -> None:
    handler, _ = handler_of(PER_TRY.build(Options(0.25), FakeContext()), outcome)
    request = FakeRequest()
    assert status_of(handler(request)) in (200, "connect_failed")
    (limit,) = request.deadlines
    assert (limit.seconds, limit.cancelled) == (0.25, True)
    error = limit.error()
    assert (error.status, error.reason, error.fault) == (504, "try_timeout", "upstream")
    assert not error.final
    assert error.detail == f"no response within {TRY}: 0.25s"


@pytest.mark.parametrize("middleware", [MIDDLEWARE, PER_TRY])
def test_a_client_that_had_not_sent_all_is_told_that_it_was_slow(middleware: Middleware) -> None:
    handler, _ = handler_of(middleware.build(Options(2.0), FakeContext()), Silence())
    with pytest.raises(ExchangeError) as error:
        run(handler(FakeRequest("PUT", completed=None)))
    assert (error.value.status, error.value.fault) == (408, "client")
    assert error.value.proxy_error == "http_request_error"
    assert "the request had not arrived completely" in error.value.detail


def chain(*outcomes: int | Silence, whole: float = 10.0) -> tuple[Any, Scripted]:
    """Both limits and two retries around an endpoint, in the registry's order."""
    innermost, scripted = handler_of(PER_TRY.build(Options(1.0), FakeContext()), *outcomes)
    retrying = retry.build(retry_options.Options(2), FakeContext(), sleep=at_once)(innermost)
    return MIDDLEWARE.build(Options(whole), FakeContext())(retrying), scripted


async def at_once(_seconds: float) -> None:
    return


def test_a_try_that_took_too_long_is_tried_again() -> None:
    handler, scripted = chain(Silence(), Silence(), 200)
    request = FakeRequest()
    assert status_of(handler(request)) == 200
    assert len(scripted.requests) == 3
    assert [limit.cancelled for limit in request.deadlines] == [False, True, True, True]


def test_the_last_try_that_took_too_long_is_the_answer() -> None:
    handler, scripted = chain(Silence())
    assert status_of(handler(FakeRequest())) == "try_timeout"
    assert len(scripted.requests) == 3


def test_what_may_have_been_processed_is_not_tried_again() -> None:
    handler, scripted = chain(Silence(), 200)
    assert status_of(handler(FakeRequest("POST"))) == "try_timeout"
    assert len(scripted.requests) == 1


def test_when_the_requests_own_time_is_up_nothing_is_tried_again() -> None:
    handler, scripted = chain(Silence(), 200, whole=0.5)
    assert status_of(handler(FakeRequest())) == "request_timeout"
    assert len(scripted.requests) == 1


@pytest.mark.parametrize(
    ("options", "times"),
    [
        (ConnectionTimes(0.5, 60.0), (0.5, 60.0)),
        (ConnectionTimes(None, 60.0), (FakeConnection().connect_time, 60.0)),
        (ConnectionTimes(0.5, None), (0.5, None)),
    ],
)
def test_a_connection_gets_its_times(options: ConnectionTimes, times: tuple[float, float | None]) -> None:
    connection = FakeConnection()
    CONNECTION_TIMES.build(options, FakeContext())(connection)
    assert (connection.connect_time, connection.idle_time) == times


def test_where_they_stand() -> None:
    assert (CONNECTION_TIMES.scope, MIDDLEWARE.scope, PER_TRY.scope) == ("connection", "rule", "try")
    names = [middleware.name for middleware in registry.MIDDLEWARES]
    assert names.index("timeout") < names.index("circuit-breaker") < names.index("retry")
    assert names.index("retry") < names.index("per-try-timeout")


@pytest.mark.parametrize(
    "row", rows(page("timeout"), "| annotation | status | reason | tried again |"), ids=lambda row: row[0]
)
def test_what_the_page_says_of_each(row: list[str]) -> None:
    annotation, status, reason, again = row
    errors = {
        TIMEOUT: timeout.RequestTimedOut(""),
        TRY: timeout.TryTimedOut(""),
        CONNECT: ConnectFailed("timed out"),
    }
    error = errors.get(annotation.strip("`"))
    if error is None:
        assert annotation == f"`{IDLE}`"  # the data plane's
        return
    assert (str(error.status), f"`{error.reason}`") == (status, reason)
    get, post = (retry_rules.is_retriable_error(error, method, frozenset()) for method in ("GET", "POST"))
    assert again == {(False, False): "no", (True, False): "idempotent", (True, True): "yes"}[get, post]
