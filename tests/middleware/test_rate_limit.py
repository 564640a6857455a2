from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.contract import Problem
from middleware.rate_limit import FASTEST, MIDDLEWARE, SECOND, Options, RateLimited, build, decide, parse
from middleware.testing import FakeContext, FakeRequest, FakeTable, handler_of, run, sent_over, status_of
from middleware.values import Rate

NAME = "svc.mesh/rate-limit"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("100/s", Options(Rate(100, "s"), 100)),
        ("100/s burst=50 per=source", Options(Rate(100, "s"), 50, "source")),
        (" 10/m   per=service  burst=3 ", Options(Rate(10, "m"), 3)),
        ("10/h", Options(Rate(10, "h"), 1)),
    ],
)
def test_values(text: str, options: Options) -> None:
    assert parse({NAME: text}) == options
    assert sent_over(options) == options


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", '"" is not a rate'),
        ("100", '"100" is not a rate'),
        ("2000000/s", "2000000/s is out of range"),
        ("100/s burst=0", "0 is out of range"),
        ("100/s burst", '"burst" is not name=value'),
        ("100/s burst=1 burst=2", "burst is given twice"),
        ("100/s bursts=1", '"bursts" is not known'),
        ("100/s per=pod", '"pod" is not known'),
    ],
)
def test_a_bad_value_is_a_problem(text: str, reason: str) -> None:
    problem = parse({NAME: text})
    assert isinstance(problem, Problem)
    assert (problem.annotation, problem.value, problem.reason) == (NAME, text, reason)
    assert problem.expected


def test_unused() -> None:
    assert parse({"svc.mesh/enabled": "true"}) is None


limits = st.tuples(st.integers(1, 50_000_000), st.integers(1, 20)).map(lambda t: (t[0], (t[1] - 1) * t[0]))


@given(limits, st.lists(st.integers(0, 200_000_000), max_size=80))
def test_no_interval_sees_more_than_the_limit(limit: tuple[int, int], gaps: list[int]) -> None:
    interval, tolerance = limit
    burst = tolerance // interval + 1
    tat, now = 0, SECOND
    admitted: list[int] = []
    for gap in gaps:
        now += gap
        after, wait = decide(tat, now, interval, tolerance)
        if after is None:
            assert 0 < wait <= interval
            later, none = decide(tat, now + wait, interval, tolerance)
            assert later is not None  # the client that waits as told is served
            assert none == 0
        else:
            tat = after
            admitted.append(now)
    for index, start in enumerate(admitted):
        for count, end in enumerate(admitted[index:], 1):
            assert count <= burst + (end - start) // interval


@given(limits, st.integers(0, 2**62))
def test_what_other_options_left_behind_holds_nobody_up(limit: tuple[int, int], tat: int) -> None:
    interval, tolerance = limit
    after, wait = decide(tat, SECOND, interval, tolerance)
    assert wait <= interval
    assert after is None or after <= SECOND + tolerance + interval


def test_a_burst_then_the_pace_then_a_refusal() -> None:
    context = FakeContext()
    handler, scripted = handler_of(build(Options(Rate(2, "s"), 3), context))
    assert [status_of(handler(FakeRequest())) for _ in range(4)] == [200, 200, 200, "rate_limited"]
    assert context.metrics == {"svcmesh_rate_limited": 1}
    with pytest.raises(RateLimited) as error:
        run(handler(FakeRequest()))
    assert error.value.status == 429
    assert error.value.headers == (("Retry-After", "1"),)
    assert not error.value.processed
    assert len(scripted.requests) == 3
    context.time += 0.5
    assert [status_of(handler(FakeRequest())) for _ in range(2)] == [200, "rate_limited"]


def test_retry_after_is_rounded_up_to_whole_seconds() -> None:
    context = FakeContext()
    handler, _ = handler_of(build(Options(Rate(1, "m"), 1), context))
    run(handler(FakeRequest()))
    context.time += 0.5
    with pytest.raises(RateLimited) as error:
        run(handler(FakeRequest()))
    assert error.value.headers == (("Retry-After", "60"),)


def test_sources_have_limits_of_their_own() -> None:
    context = FakeContext()
    handler, _ = handler_of(build(Options(Rate(1, "s"), 1, "source"), context))
    one, two = FakeRequest(source="10.1.0.1"), FakeRequest(source="10.1.0.2")
    assert [status_of(handler(r)) for r in (one, two, one, two)] == [200, 200, "rate_limited", "rate_limited"]
    assert set(context.shared.numbers) == {
        b"rate_limit|default/whoami|80|10.1.0.1",
        b"rate_limit|default/whoami|80|10.1.0.2",
    }


def test_the_limit_is_the_nodes_whatever_the_number_of_workers() -> None:
    table = FakeTable()
    contexts = [FakeContext(shared=table) for _ in range(4)]
    handlers = [handler_of(build(Options(Rate(100, "s"), 1), context))[0] for context in contexts]
    served = 0
    for tick in range(10_000):  # ten seconds, ten times the limit, spread over the workers
        worker = tick * 7 % 4
        contexts[worker].time = 1000 + tick / 1000
        served += status_of(handlers[worker](FakeRequest())) == 200
    assert served == pytest.approx(1000, rel=0.01)


def test_ports_have_limits_of_their_own() -> None:
    table = FakeTable()
    options = Options(Rate(1, "s"), 1)
    for port in (80, 81):
        handler, _ = handler_of(build(options, FakeContext(shared=table, port=port)))
        assert status_of(handler(FakeRequest())) == 200


def test_the_extremes_fit_an_int64() -> None:
    slowest = parse({NAME: "1/h burst=1000000"})
    assert isinstance(slowest, Options)
    handler, _ = handler_of(build(slowest, FakeContext()))
    assert [status_of(handler(FakeRequest())) for _ in range(1000)] == [200] * 1000
    fastest = parse({NAME: f"{FASTEST}/s"})
    assert isinstance(fastest, Options)
    assert fastest.rate.interval == 1000


def test_the_registry_entry_documents_what_parse_reads() -> None:
    assert [annotation.name for annotation in MIDDLEWARE.annotations] == [NAME]
