from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware import registry
from middleware.contract import Handler, Reply
from middleware.fault import FaultMalformed, Options, Share, build, parse
from middleware.testing import FakeContext, FakeRequest, Scripted, handler_of, run, sent_over, status_of
from middleware.values import WHOLE, InvalidValue, parse_percentage
from tests.middleware.pages import page, rows
from tests.middleware.problems import assert_problem

NAME = "svc.mesh/fault"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("delay 250ms 10%; abort 503 5%", Options(0.25, 1000, 503, 500)),
        (" abort  429 ;", Options(abort=429, abort_share=WHOLE)),
        ("delay 10m 0.01%\n\nby-header\n", Options(600.0, 1, by_header=True)),
        ("delay 1ms 12.5%", Options(0.001, 1250)),
        ("abort 599 100%", Options(abort=599, abort_share=WHOLE)),
        ("by-header", Options(by_header=True)),
    ],
)
def test_values(text: str, options: Options) -> None:
    assert parse({NAME: text}) == options
    assert sent_over(options) == options
    assert parse({"svc.mesh/enabled": "true"}) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it contains no fault"),
        (" ; \n", "it contains no fault"),
        ("delay", '"delay" is not a complete fault'),
        ("delay 1s 5% 6%", '"delay 1s 5% 6%" is not a complete fault'),
        ("delay 250", '"250" is not a duration (the unit is missing)'),
        ("delay 11m", "11m is out of range"),
        ("abort 200", "200 is out of range"),
        ("abort no", '"no" is not a whole number'),
        ("abort 503 0%", '"0%" is not a percentage'),
        ("abort 503 0.001%", '"0.001%" is not a percentage'),
        ("abort 503 100.01%", '"100.01%" is not a percentage'),
        ("abort 503 5", '"5" is not a percentage'),
        ("abort 503; abort 500", "abort is given twice"),
        ("by-header yes", "something follows by-header"),
        ("abort=503", '"abort=503" is not known'),
        ("delay 1s, abort 503", '"delay 1s, abort 503" is not a complete fault'),
        ("delay 1s; " * 30, "it has 300 characters"),
    ],
)
def test_a_bad_value_is_a_problem(text: str, reason: str) -> None:
    assert_problem(parse({NAME: text}), NAME, text, reason)


@given(st.integers(1, WHOLE))
def test_every_share_can_be_written(share: int) -> None:
    assert parse_percentage(f"{share // 100}.{share % 100:02}%") == share


@given(st.text("0123456789.%+_ ٣", max_size=8))
def test_no_other_share_can(text: str) -> None:
    try:
        assert 1 <= parse_percentage(text) <= WHOLE
    except InvalidValue:
        return


@given(st.integers(0, WHOLE), st.randoms(use_true_random=False), st.integers(1, 2000))
def test_a_share_is_exact_at_any_time(share: int, source: random.Random, count: int) -> None:
    chosen = Share(share, source.random)
    hits = 0
    for number in range(1, count + 1):
        hits += chosen.due()
        assert abs(hits - number * share / WHOLE) < 2


@given(st.randoms(use_true_random=False))
def test_all_and_none(source: random.Random) -> None:
    everything, nothing = Share(WHOLE, source.random), Share(0, source.random)
    assert all(everything.due() for _ in range(100))
    assert not any(nothing.due() for _ in range(100))


def test_a_share_keeps_no_pace() -> None:
    chosen = Share(WHOLE // 2, random.Random(7).random)
    hits = [chosen.due() for _ in range(2000)]
    in_a_row = sum(one and other for one, other in itertools.pairwise(hits))
    assert in_a_row > 200  # every other one would make it 0: a client's retry would never fail


def test_any_request_may_be_the_first() -> None:
    firsts = []
    for seed in range(300):
        chosen = Share(WHOLE // 10, random.Random(seed).random)
        firsts.append([chosen.due() for _ in range(10)].index(True))
    assert set(firsts) == set(range(10))


class Slept:
    """Notes how long was slept."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def faulty(
    text: str, *, fraction: Callable[[], float] = lambda: 0.5
) -> tuple[Handler, Scripted, FakeContext, Slept]:
    context, slept = FakeContext(), Slept()
    options = parse({NAME: text})
    assert isinstance(options, Options)
    handler, scripted = handler_of(build(options, context, sleep=slept, fraction=fraction), 200)
    return handler, scripted, context, slept


def test_delays_and_aborts_hit_their_shares() -> None:
    handler, scripted, context, slept = faulty(
        "delay 250ms 10%; abort 503 5%", fraction=random.Random(1).random
    )
    statuses = [status_of(handler(FakeRequest())) for _ in range(10_000)]
    assert statuses.count(503) == pytest.approx(500, abs=2)
    assert slept.seconds == [0.25] * len(slept.seconds)
    assert len(slept.seconds) == pytest.approx(1000, abs=2)
    assert len(scripted.requests) == statuses.count(200)
    assert context.metrics == {
        "svcmesh_faults_delayed": len(slept.seconds),
        "svcmesh_faults_aborted": statuses.count(503),
    }


def test_an_abort_is_a_reply_that_says_so() -> None:
    handler, scripted, _, _ = faulty("abort 429")
    reply = run(handler(FakeRequest()))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.reason) == (429, "fault_injected")
    assert NAME in reply.body.decode()
    assert reply.headers.get("content-type") == "text/plain"
    assert scripted.requests == []


def test_one_request_may_get_both() -> None:
    handler, _, context, slept = faulty("delay 1s; abort 500")
    assert status_of(handler(FakeRequest())) == 500
    assert slept.seconds == [1.0]
    assert context.metrics == {"svcmesh_faults_delayed": 1, "svcmesh_faults_aborted": 1}


@pytest.mark.parametrize(
    ("asked", "status", "seconds"),
    [
        ("delay 1s; abort 503", 503, [1.0]),
        ("abort 418", 418, []),
        ("delay 5m", 200, [300.0]),
    ],
)
def test_a_request_may_ask_for_faults(asked: str, status: int, seconds: list[float]) -> None:
    handler, scripted, _, slept = faulty("by-header")
    assert status_of(handler(FakeRequest(fields={"X-Svcmesh-Fault": asked}))) == status
    assert slept.seconds == seconds
    assert len(scripted.requests) == (status == 200)
    assert status_of(handler(FakeRequest())) == 200


def test_what_a_request_asks_for_takes_the_place_of_its_share() -> None:
    handler, _, _, slept = faulty("abort 503; by-header")
    assert status_of(handler(FakeRequest(fields={"X-Svcmesh-Fault": "delay 1s"}))) == 200
    assert slept.seconds == [1.0]
    assert status_of(handler(FakeRequest())) == 503


def test_nobody_may_ask_unless_the_owner_says_so() -> None:
    handler, _, context, slept = faulty("abort 503 0.01%")
    assert status_of(handler(FakeRequest(fields={"X-Svcmesh-Fault": "delay 1s; abort 503"}))) == 200
    assert slept.seconds == []
    assert context.metrics == {"svcmesh_faults_delayed": 0, "svcmesh_faults_aborted": 0}


@pytest.mark.parametrize(
    "asked", ["", "abort", "abort 50", "abort 503 5%", "by-header", "delay 1h", "x" * 10_000]
)
def test_a_request_that_asks_for_nonsense_is_told_so(asked: str) -> None:
    handler, scripted, _, _ = faulty("by-header")
    with pytest.raises(FaultMalformed) as error:
        run(handler(FakeRequest(fields={"X-Svcmesh-Fault": asked})))
    assert (error.value.status, error.value.reason, error.value.fault) == (400, "fault_malformed", "client")
    assert error.value.detail.startswith("x-svcmesh-fault: ")
    assert len(error.value.detail) < 300
    assert scripted.requests == []


class Forever:
    def __await__(self) -> Generator[None, None, None]:
        yield


def test_a_client_that_leaves_during_the_delay_is_not_sent_on() -> None:
    async def sleep(_seconds: float) -> None:
        await Forever()

    handler, scripted = handler_of(build(Options(1.0, WHOLE), FakeContext(), sleep=sleep))
    waiting = cast("Coroutine[Any, Any, Any]", handler(FakeRequest()))
    waiting.send(None)
    waiting.close()
    assert scripted.requests == []


def test_clients_see_faults_and_neither_breaker_nor_retry_does() -> None:
    names = [middleware.name for middleware in registry.MIDDLEWARES]
    assert names.index("timeout") < names.index("headers") < names.index("fault")
    assert names.index("fault") < names.index("circuit-breaker") < names.index("retry")


@pytest.mark.parametrize(
    "row", rows(page("fault"), "| `x-svcmesh-fault` | held up | status |"), ids=lambda row: row[0]
)
def test_what_the_page_says_of_the_header(row: list[str]) -> None:
    asked, seconds, status = row
    handler, _, _, slept = faulty("by-header")
    outcome = status_of(handler(FakeRequest(fields={"X-Svcmesh-Fault": asked.strip("`")})))
    assert str(outcome) == {"the endpoint's": "200", "400, `fault_malformed`": "fault_malformed"}.get(
        status, status
    )
    assert "".join(f"{second:g} s" for second in slept.seconds) == seconds.replace("no", "")
