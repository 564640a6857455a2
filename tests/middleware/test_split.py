from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware import registry
from middleware.contract import ConnectFailed, Handler
from middleware.cookies import find_cookie
from middleware.split import (
    HEAVIEST,
    MIDDLEWARE,
    Backend,
    Choice,
    Options,
    build,
    parse,
)
from middleware.testing import FakeContext, FakeRequest, Scripted, handler_of, run, sent_over, status_of
from middleware.weights import SmoothWeights
from tests.middleware.pages import options_of_example, page, rows
from tests.middleware.problems import assert_problem

SPLIT = "svc.mesh/split"
BY = "svc.mesh/split-by"
STICKY = "svc.mesh/split-sticky"
TWO = (Backend("v1", 90), Backend("v2", 10))


@pytest.mark.parametrize(
    ("annotations", "options"),
    [
        ({SPLIT: "v1=90 v2=10"}, Options(TWO)),
        ({SPLIT: "\n v1=90\n v2=10\n"}, Options(TWO)),
        ({SPLIT: "v1=0 v2=1000000"}, Options((Backend("v1", 0), Backend("v2", HEAVIEST)))),
        ({SPLIT: "3=1"}, Options((Backend("3", 1),))),
        ({SPLIT: "v1=90 v2=10", BY: " header  X-Version "}, Options(TWO, Choice("header", "X-Version"))),
        ({SPLIT: "v1=90 v2=10", BY: "cookie version"}, Options(TWO, Choice("cookie", "version"))),
        ({SPLIT: "v1=90 v2=10", STICKY: "true"}, Options(TWO, None, 0.0)),
        ({SPLIT: "v1=90 v2=10", STICKY: "1h"}, Options(TWO, None, 3600.0)),
        ({SPLIT: "v1=90 v2=10", STICKY: "false"}, Options(TWO)),
        ({"svc.mesh/enabled": "true"}, None),
    ],
)
def test_values(annotations: dict[str, str], options: Options | None) -> None:
    assert parse(annotations) == options
    if options is not None:
        assert sent_over(options) == options


@pytest.mark.parametrize(
    ("annotations", "annotation", "reason"),
    [
        ({SPLIT: ""}, SPLIT, "no backend has a weight"),
        ({SPLIT: "v1=0 v2=0"}, SPLIT, "no backend has a weight"),
        ({SPLIT: "v1"}, SPLIT, '"v1" is not name=weight'),
        ({SPLIT: "v1=90, v2=10"}, SPLIT, '"90," is not a whole number'),
        ({SPLIT: "v1=-1"}, SPLIT, "-1 is out of range"),
        ({SPLIT: "v1=1000001"}, SPLIT, "1000001 is out of range"),
        ({SPLIT: "v1=1 v1=2"}, SPLIT, "v1 is given twice"),
        ({SPLIT: "shop/v1=1"}, SPLIT, '"shop/v1" is not the name of a Service'),
        ({SPLIT: "v1.shop=1"}, SPLIT, '"v1.shop" is not the name of a Service'),
        ({SPLIT: "V1=1"}, SPLIT, '"V1" is not the name of a Service'),
        ({SPLIT: f"{'a' * 64}=1"}, SPLIT, f'"{"a" * 64}" is not the name of a Service'),
        ({SPLIT: "v1-=1"}, SPLIT, '"v1-" is not the name of a Service'),
        ({SPLIT: " ".join(f"v{n}=1" for n in range(33))}, SPLIT, "there are 33 backends"),
        ({SPLIT: "v1=1 " * 1000}, SPLIT, "it has 5000 characters"),
        ({SPLIT: "v1=1", BY: "x-version"}, BY, '"x-version" is not two words'),
        ({SPLIT: "v1=1", BY: "query version"}, BY, '"query" is not known'),
        ({SPLIT: "v1=1", BY: "cookie a=b"}, BY, '"a=b" is not the name of a cookie'),
        (
            {SPLIT: "v1=1", BY: "header upgrade"},
            BY,
            "upgrade is set by the mesh alone: it frames the message, or is for one connection only",
        ),
        ({SPLIT: "v1=1", STICKY: "yes"}, STICKY, '"yes" is not a duration'),
        ({SPLIT: "v1=1", STICKY: "10ms"}, STICKY, "10ms is out of range"),
        ({BY: "header a"}, BY, f"has no effect without {SPLIT}"),
        ({STICKY: "true"}, STICKY, f"has no effect without {SPLIT}"),
    ],
)
def test_a_bad_value_is_a_problem(annotations: dict[str, str], annotation: str, reason: str) -> None:
    assert_problem(parse(annotations), annotation, annotations[annotation], reason)


def test_the_backends_are_what_the_plan_must_know() -> None:
    assert MIDDLEWARE.backends is not None
    assert MIDDLEWARE.backends(Options((Backend("v1", 1), Backend("v2", 0)))) == ("v1", "v2")


def test_turns_are_those_of_nginx() -> None:
    weights = SmoothWeights([5, 1, 1])
    assert "".join("abc"[weights.pick()] for _ in range(14)) == "aabacaa" * 2
    assert weights.cycle == 7


some_weights = st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any)


@given(some_weights, st.integers(0, 400))
def test_each_cycle_is_exact_wherever_it_begins(weights: list[int], skipped: int) -> None:
    policy = SmoothWeights(weights)
    for _ in range(skipped):
        policy.pick()
    counts = Counter(policy.pick() for _ in range(policy.cycle))
    assert [counts[index] * sum(weights) for index in range(len(weights))] == [
        weight * policy.cycle for weight in weights
    ]


@given(some_weights, st.integers(1, 400))
def test_and_so_is_the_share_at_any_time(weights: list[int], turns: int) -> None:
    policy = SmoothWeights(weights)
    counts = Counter(policy.pick() for _ in range(turns))
    for index, weight in enumerate(weights):
        assert abs(counts[index] - turns * weight / sum(weights)) < len(weights)


def splitting(
    options: Any, *outcomes: int | BaseException, fraction: float = 0.0, context: FakeContext | None = None
) -> tuple[Handler, Scripted]:
    assert isinstance(options, Options)
    return handler_of(build(options, context or FakeContext(), fraction=lambda: fraction), *outcomes)


def backends_of(handler: Handler, count: int, fields: dict[str, str] | None = None) -> list[str]:
    requests = [FakeRequest(fields=fields) for _ in range(count)]
    for request in requests:
        run(handler(request))
    return [request.backend for request in requests]


@pytest.mark.parametrize("fraction", [0.0, 0.37, 0.999])
def test_requests_go_where_the_weights_say(fraction: float) -> None:
    handler, _ = splitting(parse({SPLIT: "v1=90 v2=10"}), fraction=fraction)
    assert Counter(backends_of(handler, 1000)) == {"v1": 900, "v2": 100}


def test_the_service_itself_is_one_of_them() -> None:
    handler, _ = splitting(parse({SPLIT: "whoami=1 v2=1"}))  # FakeContext is default/whoami
    assert Counter(backends_of(handler, 10)) == {"": 5, "v2": 5}


def test_workers_begin_at_random_places() -> None:
    firsts = Counter(
        backends_of(splitting(parse({SPLIT: "v1=90 v2=10"}), fraction=step / 100)[0], 1)[0]
        for step in range(100)
    )
    assert firsts == {"v1": 90, "v2": 10}


def test_a_long_cycle_is_not_walked_through() -> None:
    handler, _ = splitting(parse({SPLIT: f"v1={HEAVIEST} v2=1"}), fraction=0.999)
    assert backends_of(handler, 1) == ["v1"]


@pytest.mark.parametrize(
    ("by", "fields", "backend"),
    [
        ("header x-version", {"X-Version": "v2"}, "v2"),
        ("header x-version", {"X-Version": "whoami"}, ""),
        ("header x-version", {"X-Version": "v3"}, None),
        ("header x-version", {"X-Version": ""}, None),
        ("header x-version", {}, None),
        ("cookie version", {"Cookie": "a=b; version=v2; c=d"}, "v2"),
        ("cookie version", {"Cookie": 'version="v2"'}, "v2"),
        ("cookie version", {"Cookie": "myversion=v2"}, None),
        ("cookie version", {"Version": "v2"}, None),
    ],
)
def test_a_request_may_name_its_backend(by: str, fields: dict[str, str], backend: str | None) -> None:
    handler, _ = splitting(parse({SPLIT: "v1=1 v2=0 whoami=0", BY: by}))
    assert backends_of(handler, 3, fields) == ["v1" if backend is None else backend] * 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("a=1", "1"),
        ("b=2; a=1", "1"),
        ("b=2;a=1", "1"),
        ("a=1; a=2", "1"),
        ("a=", ""),
        ("a=1 ; b=2", "1"),
        ("aa=1", None),
        ("b=a=1", None),
        ("", None),
    ],
)
def test_cookies(field: str, value: str | None) -> None:
    assert find_cookie("a")(FakeRequest(fields={"Cookie": field}).headers) == value


def given_cookie(handler: Handler) -> tuple[str, str]:
    """Send a request without a cookie; return its backend and the cookie that came back."""
    request = FakeRequest()
    response = run(handler(request))
    return request.backend, response.headers.get("set-cookie") or ""


def test_a_client_stays_with_its_backend() -> None:
    options = parse({SPLIT: "v1=1 v2=1", STICKY: "1h"})
    handler, _ = splitting(options)
    for _ in range(4):
        backend, cookie = given_cookie(handler)
        pair, *attributes = cookie.split("; ")
        assert attributes == ["Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=3600"]
        assert re.fullmatch(r"svcmesh-split-[0-9a-f]{8}=[0-9a-f]{16}", pair)
        other_node, _ = splitting(options, fraction=0.5)
        for somewhere in (handler, other_node):
            request = FakeRequest(fields={"Cookie": f"session=1; {pair}"})
            assert run(somewhere(request)).headers.get("set-cookie") is None
            assert request.backend == backend


def test_those_who_stay_do_not_take_turns() -> None:
    handler, _ = splitting(parse({SPLIT: "v1=1 v2=1", STICKY: "true"}))
    _, cookie = given_cookie(handler)
    backends_of(handler, 7, {"Cookie": cookie.partition(";")[0]})
    assert Counter(backends_of(handler, 9)) == {"v1": 4, "v2": 5}


def test_as_long_as_the_browser_runs() -> None:
    _, cookie = given_cookie(splitting(parse({SPLIT: "v1=1", STICKY: "true"}))[0])
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax")


def test_a_backend_that_left_keeps_nobody_one_without_weight_does() -> None:
    _, cookie = given_cookie(splitting(parse({SPLIT: "v2=1", STICKY: "true"}))[0])
    pair = {"Cookie": cookie.partition(";")[0]}
    draining, _ = splitting(parse({SPLIT: "v1=1 v2=0", STICKY: "true"}))
    assert backends_of(draining, 2, pair) == ["v2", "v2"]
    without, _ = splitting(parse({SPLIT: "v1=1 v3=0", STICKY: "true"}))
    request = FakeRequest(fields=pair)
    assert run(without(request)).headers.get("set-cookie")
    assert request.backend == "v1"


def test_cookies_of_other_services_and_forged_ones_mean_nothing() -> None:
    other = FakeContext()
    other.service = "default/other"
    _, cookie = given_cookie(splitting(parse({SPLIT: "v2=1", STICKY: "true"}), context=other)[0])
    handler, _ = splitting(parse({SPLIT: "v1=1 v2=0", STICKY: "true"}))
    name = given_cookie(handler)[1].partition("=")[0]
    for pair in (cookie.partition(";")[0], f"{name}=v2", f"{name}=", f"{name}={'0' * 16}"):
        assert backends_of(handler, 1, {"Cookie": pair}) == ["v1"]


def test_a_backend_that_fails_keeps_nobody() -> None:
    handler, _ = splitting(parse({SPLIT: "v1=1", STICKY: "true"}), 503, ConnectFailed("refused"), 404)
    assert given_cookie(handler) == ("v1", "")
    assert status_of(handler(FakeRequest())) == "connect_failed"
    assert given_cookie(handler)[1]


def test_who_names_a_backend_is_not_kept_there() -> None:
    handler, _ = splitting(parse({SPLIT: "v1=1 v2=0", STICKY: "true", BY: "header x-version"}))
    _, cookie = given_cookie(handler)
    request = FakeRequest(fields={"X-Version": "v2", "Cookie": cookie.partition(";")[0]})
    assert run(handler(request)).headers.get("set-cookie") is None
    assert request.backend == "v2"


def test_it_looks_at_what_the_client_sent_and_chooses_once() -> None:
    names = [middleware.name for middleware in registry.MIDDLEWARES]
    assert names.index("split") < names.index("headers") < names.index("retry")


@pytest.mark.parametrize("row", rows(page("split"), "| the request says | goes to |"), ids=lambda row: row[0])
def test_what_the_page_says(row: list[str]) -> None:
    says, goes_to = row
    name, _, value = says.strip("`").partition(": ")
    handler, _ = splitting(options_of_example(MIDDLEWARE))
    counts = Counter(backends_of(handler, 100, {name: value} if value else None))
    expected = {
        "`catalog` 90, `catalog-v2` 10": {"catalog": 90, "catalog-v2": 10},
        "`catalog-v2`": {"catalog-v2": 100},
    }
    assert counts == expected[goes_to]
