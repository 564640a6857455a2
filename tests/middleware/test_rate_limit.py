from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.contract import ConnectFailed
from middleware.rate_limit import (
    FASTEST,
    MIDDLEWARE,
    SECOND,
    Keys,
    Limiter,
    Options,
    RateLimited,
    build,
    decide,
    parse,
)
from middleware.testing import (
    FakeContext,
    FakeRequest,
    FakeResponse,
    FakeTable,
    handler_of,
    run,
    sent_over,
    status_of,
)
from middleware.values import Rate
from tests.middleware.problems import assert_problem

NAME = "svc.mesh/rate-limit"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("100/s", Options(Rate(100, "s"), 100)),
        ("100/s burst=50 per=source", Options(Rate(100, "s"), 50, "source")),
        (" 10/m   per=service  burst=3 ", Options(Rate(10, "m"), 3)),
        ("10/h", Options(Rate(10, "h"), 1)),
        ("5/s per=workload headers=on", Options(Rate(5, "s"), 5, "workload", headers=True)),
        ("5/s per=header:X-Tenant", Options(Rate(5, "s"), 5, "header", "x-tenant")),
        ("5/s keys=7 per=header:a headers=off", Options(Rate(5, "s"), 5, "header", "a", 7)),
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
        ("100/s per=header", "the name of the header field is missing"),
        ("100/s per=header:", "'' is not the name of a header field (RFC 9110 section 5.1)"),
        ("100/s per=header:a,b", "'a,b' is not the name of a header field (RFC 9110 section 5.1)"),
        ("100/s keys=5", "keys has no effect without per=header:NAME"),
        ("100/s per=header:a keys=10001", "10001 is out of range"),
        ("100/s headers=yes", '"yes" is not known'),
    ],
)
def test_a_bad_value_is_a_problem(text: str, reason: str) -> None:
    assert_problem(parse({NAME: text}), NAME, text, reason)


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


def test_workloads_have_limits_of_their_own_and_unknown_pods_too() -> None:
    handler, _ = handler_of(build(Options(Rate(1, "s"), 1, "workload"), FakeContext()))
    asked = [("10.1.0.1", "a"), ("10.1.0.2", "a"), ("10.1.0.3", "b"), ("10.1.0.4", ""), ("10.1.0.5", "")]
    statuses = [status_of(handler(FakeRequest(source=pod, workload=of))) for pod, of in asked]
    assert statuses == [200, "rate_limited", 200, 200, 200]


def test_values_of_a_header_have_limits_of_their_own_and_are_not_shown() -> None:
    context = FakeContext()
    handler, _ = handler_of(build(Options(Rate(1, "s"), 1, "header", "x-key"), context))
    asked = [{"X-Key": "secret"}, {"x-key": "other"}, {"X-KEY": "secret"}, {}, {"y": "z"}]
    statuses = [status_of(handler(FakeRequest(fields=fields))) for fields in asked]
    assert statuses == [200, 200, "rate_limited", 200, "rate_limited"]
    assert not any(b"secret" in key for key in context.shared.numbers)
    with pytest.raises(RateLimited, match="over the limit of this value of x-key, 1/s burst=1"):
        run(handler(FakeRequest(fields={"x-key": "secret"})))


def test_new_values_without_end_have_few_limits_and_leave_the_others_alone() -> None:
    context = FakeContext()
    handler, _ = handler_of(build(Options(Rate(10, "s"), 10, "header", "x-key", keys=5), context))
    served = 0
    for number in range(10_000):  # ten seconds
        context.time += 0.001
        if number % 100 == 0:
            assert status_of(handler(FakeRequest(fields={"x-key": "modest"}))) == 200
        served += status_of(handler(FakeRequest(fields={"x-key": str(number)}))) == 200
    # Four places beside the modest one, each taken anew every second, and the limit of all others.
    assert served <= 4 * 11 + 10 + 100
    assert len(context.shared.numbers) < 60


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1)), max_size=200), st.integers(1, 5))
def test_a_value_is_forgotten_only_when_its_burst_is_full(asked: list[tuple[int, float]], most: int) -> None:
    keys, now = Keys(most, 2.0), 0.0
    last: dict[bytes, float] = {}
    for value, gap in asked:
        now += gap
        key = keys.key(b"%d" % value, now)
        if key == Keys.OTHERS:
            fresh = [used for used in last.values() if now - used < 2.0]
            assert len(fresh) == most
        else:
            last[key] = now
            assert sum(now - used < 2.0 for used in last.values()) <= most


def test_responses_say_what_is_left() -> None:
    context = FakeContext()
    layer = build(Options(Rate(2, "s"), 4, headers=True), context)
    handler, _ = handler_of(layer, FakeResponse(200, {"RateLimit": '"own";r=1'}), ConnectFailed(""), 200)
    response = run(handler(FakeRequest()))
    assert response.headers.get_all("RateLimit-Policy") == ['"svc.mesh";q=4;w=2']
    assert response.headers.get_all("RateLimit") == ['"own";r=1', '"svc.mesh";r=3;t=1']
    with pytest.raises(ConnectFailed) as failed:
        run(handler(FakeRequest()))
    assert failed.value.headers == (
        ("RateLimit-Policy", '"svc.mesh";q=4;w=2'),
        ("RateLimit", '"svc.mesh";r=2;t=1'),
    )
    assert [status_of(handler(FakeRequest())) for _ in range(2)] == [200, 200]
    with pytest.raises(RateLimited) as refused:
        run(handler(FakeRequest()))
    assert refused.value.headers == (
        ("Retry-After", "1"),
        ("RateLimit-Policy", '"svc.mesh";q=4;w=2'),
        ("RateLimit", '"svc.mesh";r=0;t=2'),
    )


@given(limits, st.lists(st.integers(0, 200_000_000), min_size=1, max_size=60))
def test_what_is_left_is_what_may_come(limit: tuple[int, int], gaps: list[int]) -> None:
    interval, tolerance = limit
    burst = tolerance // interval + 1
    tat, now = 0, SECOND
    limiter = Limiter(interval, burst)
    for gap in gaps:
        now = limiter.now = now + gap
        tat = limiter.change(tat) or tat
        further, asked = 0, tat
        while (after := decide(asked, now, interval, tolerance)[0]) is not None:
            asked, further = after, further + 1
        assert limiter.left == further
        assert decide(tat, now + limiter.backlog, interval, tolerance)[0] == now + limiter.backlog + interval


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
