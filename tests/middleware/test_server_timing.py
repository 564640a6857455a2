"""`svc.mesh/server-timing`: who is told, what, and that the metrics account for all of the time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.contract import Journey, NoEndpoint, Problem, Reply, Request, Response, Stage
from middleware.registry import MIDDLEWARES
from middleware.server_timing import (
    ASKS,
    FIELD,
    MIDDLEWARE,
    MOST_PARTS,
    SERVER_TIMING,
    Options,
    build,
    explain,
    field_of,
    is_wanted,
    parse,
)
from middleware.testing import FakeContext, FakeRequest, FakeResponse, handler_of, run
from tests.middleware.pages import page, rows

TABLE = rows(page("server-timing"), "| request | Server-Timing |")
HERE, THERE = "10.1.0.1:8080", "10.1.0.2:8080"
METRIC = re.compile(r'([a-z]+);dur=([0-9]+\.[0-9]{2})(?:;desc="([^"\\]*)")?')
"""A metric as W3C Server Timing has it, and as we write it."""
ON, ON_REQUEST = Options("on"), Options("on-request")


def ms(*stages: tuple[object, ...], end: float) -> Journey:
    """Return a journey whose times are in milliseconds."""
    made = []
    for kind, start, until, *rest in stages:
        made.append(Stage(kind, start / 1e3, until / 1e3, *rest))  # type: ignore[operator, arg-type]
    return Journey(0.0, end / 1e3, tuple(made))


def metrics(value: str) -> list[tuple[str, float, str]]:
    """Read the value of the field, all of it."""
    read = [METRIC.fullmatch(part) for part in value.split(", ")]
    assert all(read), value
    return [(match[1], float(match[2]), match[3] or "") for match in read if match]


EXAMPLES: dict[str, str] = {
    "sent over a connection that was kept": field_of(
        ms(("try", 0.1, 12.4, HERE, 1, "200", 0.0124), end=12.4), 0.0
    ),
    "with a slow upload": field_of(
        ms(("connect", 0.1, 1.0, HERE, 1), ("try", 1.0, 213.0, HERE, 1, "200", 0.213), end=213.0), 0.201
    ),
    "had to wait for others": field_of(
        ms(("queue", 0.1, 80.1), ("try", 80.1, 92.1, HERE, 1, "200", 0.0921), end=92.1), 0.0
    ),
    "was sent twice": field_of(
        ms(
            ("try", 0.25, 20.25, HERE, 1, "503", 0.02025),
            ("backoff", 20.5, 45.5),
            ("try", 45.5, 56.5, THERE, 2, "200", 0.0565),
            end=56.5,
        ),
        0.0,
    ),
    "the first endpoint accepts no connection": field_of(
        ms(
            ("connect", 0.0, 1.0, HERE, 1, "connect_failed"),
            ("connect", 1.0, 3.0, THERE, 2),
            ("try", 3.0, 12.0, THERE, 2, "200", 0.012),
            end=12.0,
        ),
        0.0,
    ),
    "refused by a rate limit": field_of(ms(end=0.08), 0.0, "rate_limited"),
    "answered by the cache": field_of(ms(end=0.05), 0.0, "cached"),
    "the endpoint took longer than a timeout allows": field_of(
        ms(("try", 0.0, 1000.0, HERE, 1, "request_timeout"), end=1000.0), 0.0, "request_timeout"
    ),
}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_what_the_page_says(row: list[str]) -> None:
    request, value = row
    assert EXAMPLES[request] == value.strip("`")


def test_the_page_has_every_example() -> None:
    assert {row[0] for row in TABLE} == set(EXAMPLES)


def test_values() -> None:
    assert parse({SERVER_TIMING: "on"}) == ON
    assert parse({SERVER_TIMING: " on-request "}) == ON_REQUEST
    assert parse({SERVER_TIMING: "off"}) is None
    assert parse({}) is None
    assert [row[0] for row in rows(page("server-timing"), "| value | who is told |")] == [
        "`on`", "`on-request`", "`off`",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "yes", "true", "On", "on off", "on-request header=x", "on" * 999])
def test_bad_values_are_problems(text: str) -> None:
    found = parse({SERVER_TIMING: text})
    assert isinstance(found, Problem)
    assert found.annotation == SERVER_TIMING


@pytest.mark.parametrize(
    ("options", "fields", "wanted"),
    [
        (ON, {}, True),
        (ON, {ASKS: "0"}, True),
        (ON_REQUEST, {}, False),
        (ON_REQUEST, {ASKS: "1"}, True),
        (ON_REQUEST, {"X-SvcMesh-Timing": "1"}, True),
        (ON_REQUEST, {ASKS: "0"}, False),
        (ON_REQUEST, {ASKS: "1, 1"}, False),
        (ON_REQUEST, {ASKS: "true"}, False),
        (ON_REQUEST, {ASKS: ""}, False),
    ],
)
def test_who_is_told(options: Options, fields: dict[str, str], wanted: bool) -> None:
    request = FakeRequest(fields=fields)
    assert is_wanted(options, request) is wanted
    handler, _ = handler_of(build(options, FakeContext()), 200)
    assert (run(handler(request)).headers.get(FIELD) is not None) is wanted
    assert request.followed is wanted, "nothing is noted of requests that nobody is told of"
    said = explain(options, request)
    assert said.says.startswith("tells" if wanted else "nothing")
    assert said.status == 0


@pytest.mark.parametrize(("first", "wanted"), [("1", True), ("0", False)])
def test_of_many_fields_that_ask_the_first_one_counts(first: str, wanted: bool) -> None:
    request = FakeRequest(fields={ASKS: first})
    for _ in range(1000):
        request.headers.add(ASKS, "01"[first == "0"])
    assert is_wanted(ON_REQUEST, request) is wanted


@pytest.mark.parametrize(
    "said", ["cache;dur=2", 'db;desc="never ends', "=;;,,", "x" * 60_000, ""], ids=lambda said: said[:12]
)
def test_what_the_endpoint_says_stays_as_it_is(said: str) -> None:
    handler, _ = handler_of(build(ON, FakeContext()), FakeResponse(200, {FIELD: said}))
    assert run(handler(FakeRequest())).headers.get_all(FIELD) == [said, "mesh;dur=0.00, total;dur=0.00"]


def test_an_error_tells_it_beside_its_own_fields() -> None:
    handler, _ = handler_of(build(ON, FakeContext()), NoEndpoint("no", (("Retry-After", "1"),)))
    with pytest.raises(NoEndpoint) as raised:
        run(handler(FakeRequest()))
    assert raised.value.headers == (
        ("Retry-After", "1"),
        (FIELD, 'mesh;dur=0.00;desc="no_endpoint", total;dur=0.00'),
    )


def test_errors_of_those_who_are_not_told_stay_as_they_are() -> None:
    handler, _ = handler_of(build(ON_REQUEST, FakeContext()), NoEndpoint("no"))
    with pytest.raises(NoEndpoint) as raised:
        run(handler(FakeRequest()))
    assert raised.value.headers == ()


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("cached", "cached"),
        ('a "quoted\\ word', "a ?quoted? word"),
        ("one\r\nSet-Cookie: a=b", "one??Set-Cookie: a=b"),
        ("größer\x00", "gr??er?"),
        ("x" * 999, "x" * 64),
    ],
    ids=lambda text: text[:8],
)
def test_reasons_cannot_break_the_field(reason: str, shown: str) -> None:
    async def reply(_request: Request) -> Response:
        return Reply(200, reason=reason)

    answer = run(build(ON, FakeContext())(reply)(FakeRequest()))
    assert metrics(answer.headers.get(FIELD)) == [("mesh", 0.0, shown), ("total", 0.0, "")]


def test_tries_beside_each_other() -> None:
    stages = (Stage("try", 0.0, 0.8, HERE, 1, "abandoned"), Stage("try", 0.6, 0.8, THERE, 2, "200", 0.8))
    assert metrics(field_of(Journey(0.0, 0.9, stages), 0.0)) == [
        ("mesh", 100.0, ""),
        ("endpoint", 800.0, "try 1 of 2: abandoned"),
        ("endpoint", 200.0, "try 2 of 2: 200"),
        ("total", 900.0, ""),
    ]


@pytest.mark.parametrize(("until", "held"), [(10.9, False), (11.1, True)])
def test_a_response_that_is_held_back(until: float, held: bool) -> None:
    told = metrics(field_of(ms(("try", 0.0, until, HERE, 1, "200", 0.01), end=until), 0.0))
    own = ("mesh", 0.0 if held else 0.9, "")
    assert told[:2] == [own, ("endpoint", 10.0, "")]
    assert (("held", 1.1, "") in told) is held


def test_a_response_that_waits_to_be_thrown_away_is_not_held_back() -> None:
    journey = ms(
        ("try", 0.0, 30.0, HERE, 1, "503", 0.01),
        ("backoff", 10.0, 30.0),
        ("try", 30.0, 31.0, THERE, 2, "200", 0.031),
        end=31.0,
    )
    assert [name for name, _, _ in metrics(field_of(journey, 0.0))] == [
        "mesh", "endpoint", "retry", "endpoint", "total",
    ]  # fmt: skip


def test_an_answer_before_the_request_is_whole_is_all_the_endpoints() -> None:
    journey = ms(("try", 0.0, 10.0, HERE, 1, "413", 0.01), end=10.0)
    assert ("endpoint", 10.0, "") in metrics(field_of(journey, None))


def test_a_connection_that_others_used() -> None:
    told = metrics(field_of(ms(("queue", 0.0, 5.0, HERE, 1), end=5.0), 0.0, "pool_timeout"))
    assert told[1] == ("queue", 5.0, "for a connection")


def test_many_stages_are_told_as_sums() -> None:
    tries = [("try", float(n), n + 0.5, HERE, n + 1, "503", n / 1e3 + 0.0005) for n in range(40)]
    pauses = [("backoff", n + 0.5, n + 1.0) for n in range(39)]
    journey = ms(*sorted([*tries, *pauses], key=lambda stage: stage[1]), end=39.5)
    assert metrics(field_of(journey, 0.0)) == [
        ("mesh", 0.0, ""),
        ("endpoint", 20.0, "40 tries"),
        ("retry", 19.5, ""),
        ("total", 39.5, ""),
    ]


def test_stages_that_were_left_out_are_not_blamed_on_the_mesh_in_silence() -> None:
    value = field_of(Journey(0.0, 0.1, (), left_out=7), 0.0, "no_endpoint")
    assert metrics(value)[0] == ("mesh", 100.0, "no_endpoint; 7 stages are not told apart")


KINDS = st.sampled_from(["queue", "connect", "backoff", "try", "middleware"])
STEP = st.tuples(
    KINDS, st.floats(0, 5), st.floats(0, 1), st.sampled_from(["", "200", "503", '"\\\r\n', "x" * 99])
)


@given(st.lists(STEP, max_size=30), st.none() | st.floats(0, 200), st.sampled_from(["", "cached"]))
def test_the_metrics_account_for_all_of_the_time(
    steps: list[tuple[str, float, float, str]], completed: float | None, reason: str
) -> None:
    now, stages = 0.0, []
    for number, (kind, took, share, outcome) in enumerate(steps, 1):
        answered = now + took * share if kind == "try" and share < 0.9 else None
        of = number if kind in ("try", "connect") else 0
        stages.append(Stage(kind, now, now + took, HERE, of, outcome, answered))  # type: ignore[arg-type]
        now += took
    value = field_of(Journey(0.0, now, tuple(stages)), completed, reason)
    told = metrics(value)
    assert [told[0][0], told[-1][0]] == ["mesh", "total"]
    assert len(told) <= 2 + MOST_PARTS
    assert len(value) < 4096
    assert HERE not in value
    assert sum(took for _, took, _ in told[:-1]) == pytest.approx(told[-1][1], abs=0.01 * len(told))


def test_it_stands_around_all_that_answers() -> None:
    names = [one.name for one in MIDDLEWARES]
    assert MIDDLEWARE.scope == "listener"
    assert names.index("server-timing") == names.index("tracing") + 1
