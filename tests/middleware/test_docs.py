"""The pages of docs/middleware say what is so: their examples and tables are played."""

from __future__ import annotations

import contextlib
import importlib
import random
import re
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import msgspec
import pytest
import yaml

from hack.annotations import render
from middleware import (
    circuit_breaker_options,
    max_requests,
    rate_limit,
    registry,
    retry,
    retry_options,
    retry_rules,
    timeout,
)
from middleware.contract import (
    Annotation,
    ConnectFailed,
    ExchangeError,
    Middleware,
    NoEndpoint,
    Problem,
    Response,
    UpstreamProtocolError,
    UpstreamReset,
)
from middleware.grpc import GrpcStatus, http_code, of_http, of_reply
from middleware.testing import (
    FakeConnection,
    FakeContext,
    FakeRequest,
    FakeResponse,
    Outcome,
    handler_of,
    run,
    sent_over,
    status_of,
)
from middleware.values import format_duration
from tests.middleware.pages import DOCS, blocks, options_of_example, page, page_of, rows


@pytest.mark.parametrize("middleware", registry.MIDDLEWARES, ids=lambda middleware: middleware.name)
def test_the_example_of_every_page_is_right(middleware: Middleware) -> None:
    options = options_of_example(middleware)
    assert isinstance(options, middleware.options)
    assert sent_over(options) == options
    random.seed(0)  # layers that draw lots draw the same ones in every run
    built = middleware.build(options, FakeContext())
    if middleware.scope == "connection":
        built(FakeConnection())
    elif middleware.scope == "request":
        built(FakeRequest())
    else:
        handler, _ = handler_of(built, 200)
        assert status_of(handler(FakeRequest())) == 200


@pytest.mark.parametrize("middleware", registry.MIDDLEWARES, ids=lambda middleware: middleware.name)
def test_the_example_of_every_annotation_is_right(middleware: Middleware) -> None:
    examples: dict[str, str] = {}
    for annotation in middleware.annotations:
        examples |= yaml.safe_load(annotation.example)
    assert set(examples) == {annotation.name for annotation in middleware.annotations}
    assert isinstance(middleware.parse(examples), middleware.options)


@pytest.mark.parametrize("middleware", registry.MIDDLEWARES, ids=lambda middleware: middleware.name)
def test_every_page_names_annotations_and_metrics(middleware: Middleware) -> None:
    text = page_of(middleware)
    for annotation in middleware.annotations:
        assert annotation.name in text
    for metric in middleware.metrics:
        assert f"`{metric.name}{'_total' if metric.kind == 'counter' else ''}`" in text


ERRORS = (
    ConnectFailed,
    UpstreamReset,
    timeout.TryTimedOut,
    timeout.RequestTimedOut,
    UpstreamProtocolError,
    NoEndpoint,
)


@pytest.mark.parametrize("row", rows(page("retry"), "| first answer | GET | POST |"), ids=lambda row: row[0])
def test_what_happens_with_retries(row: list[str]) -> None:
    first, *expected = row
    errors: dict[str, type[ExchangeError]] = {error.reason: error for error in ERRORS}
    for method, outcome in zip(("GET", "POST"), expected, strict=True):
        layer = retry.build(options_of_example(retry.MIDDLEWARE), FakeContext())
        answer = int(first) if first.isdigit() else errors[first]("")
        handler, _ = handler_of(layer, answer, 200)
        assert str(status_of(handler(FakeRequest(method)))) == outcome


def test_how_long_retries_wait() -> None:
    (value,) = re.findall(r"With `svc.mesh/retry-backoff: ([^`]*)` there is", page("retry"))
    options = retry_options.parse({retry_options.RETRY_ATTEMPTS: "6", retry_options.RETRY_BACKOFF: value})
    assert isinstance(options, retry_options.Options)
    assert options.base is not None
    waits = [retry_rules.full_jitter(number, 1.0, options.base, options.limit) for number in range(1, 7)]
    assert rows(page("retry"), "| retry | waits up to |") == [
        [str(number), format_duration(wait)] for number, wait in enumerate(waits, 1)
    ]


@pytest.mark.parametrize(
    "row", rows(page("retry"), "| first answer to a call | the caller gets |"), ids=lambda row: row[0]
)
def test_what_happens_with_retries_of_calls(row: list[str]) -> None:
    first, expected = row
    errors: dict[str, type[ExchangeError]] = {error.reason: error for error in ERRORS}
    answer: Outcome
    if match := re.fullmatch(r"status (\w+)(?: behind (its head|a message))?", first):
        status, early = GrpcStatus[match[1]], match[2] == "its head"
        answer = FakeResponse(early=status) if early else FakeResponse(grpc_status=status)
        if match[2] == "a message":
            answer = FakeResponse()
    elif first.startswith("HTTP "):
        code = int(first.removeprefix("HTTP "))
        answer = FakeResponse(code, grpc_status=of_http(code))
    else:
        answer = errors[first]("")
    (value,) = re.findall(r"With `svc.mesh/retry-on: ([^`]*)`, if the first", page("retry"))
    options = retry_options.parse({retry_options.RETRY_ATTEMPTS: "1", retry_options.RETRY_ON: value})
    assert isinstance(options, retry_options.Options)
    handler, scripted = handler_of(
        retry.build(options, FakeContext()), answer, FakeResponse(grpc_status=GrpcStatus.OK)
    )
    got: GrpcStatus | None
    try:
        got = run(handler(FakeRequest("POST", grpc=True))).grpc_status
    except ExchangeError as error:
        got = of_reply(error.status)
    if got is None:
        assert len(scripted.requests) == 1, "the message is passed on, and the status behind it"
        assert first == f"status {expected} behind a message"
    else:
        assert got is GrpcStatus[expected]


def test_the_codes_of_grpc_in_the_circuit_breakers_page() -> None:
    table = {code: names.split(", ") for code, names in rows(page("circuit-breaker"), "| code | statuses |")}
    codes = {name: int(code) for code, names in table.items() for name in names}
    assert codes == {status.name: http_code(200, status) for status in GrpcStatus}


@pytest.mark.parametrize("row", rows(page("rate-limit"), "| requests at once | served | 429 |"))
def test_what_happens_at_the_limit(row: list[str]) -> None:
    what, served, refused = row
    match = re.fullmatch(r"(\d+)(?:, then after (\d+) ms (\d+) more)?", what)
    assert match
    context = FakeContext()
    handler, _ = handler_of(rate_limit.build(options_of_example(rate_limit.MIDDLEWARE), context), 200)
    statuses = [status_of(handler(FakeRequest())) for _ in range(int(match[1]))]
    if match[2]:
        context.time += int(match[2]) / 1000
        statuses += [status_of(handler(FakeRequest())) for _ in range(int(match[3]))]
    assert (statuses.count(200), statuses.count("rate_limited")) == (int(served), int(refused))


def test_the_fields_that_say_what_is_left() -> None:
    text = page("rate-limit")
    (value,) = re.findall(r"With `(svc.mesh/rate-limit: .*headers=on)`", text)
    (fields,) = blocks(text, "http")
    options = rate_limit.parse(yaml.safe_load(value))
    assert isinstance(options, rate_limit.Options)
    handler, _ = handler_of(rate_limit.build(options, FakeContext()), FakeResponse(200))
    headers = run(handler(FakeRequest())).headers
    assert "".join(f"{name}: {value}\n" for name, value in headers) == fields


@pytest.mark.parametrize(
    "row", rows(page("max-requests"), "| requests at once | in progress | waiting | 503 |")
)
async def test_what_happens_to_requests_at_once(row: list[str]) -> None:
    requests, in_progress, waiting, refused = map(int, row)
    context = FakeContext()
    handler, scripted = handler_of(max_requests.build(options_of_example(max_requests.MIDDLEWARE), context))
    calls = [cast("Coroutine[Any, Any, Response]", handler(FakeRequest())) for _ in range(requests)]
    for call in calls:
        with contextlib.suppress(StopIteration, max_requests.ConcurrencyLimited):
            call.send(None)
    assert (len(scripted.requests), context.metrics[max_requests.QUEUED.name]) == (in_progress, waiting)
    assert context.metrics[max_requests.LIMITED.name] == refused
    for call in calls:
        call.close()


def test_the_figures_of_the_circuit_breakers_page_are_all_there_are() -> None:
    names = [row[0].strip("`").partition("(")[0] for row in rows(page("circuit-breaker"), FIGURES)]
    assert names == ["NetworkErrorRatio", "ResponseCodeRatio", "LatencyAtQuantileMS", "RequestThreshold"]
    for name in names:
        found = circuit_breaker_options.parse({circuit_breaker_options.CIRCUIT_BREAKER: f"{name}!"})
        assert isinstance(found, Problem)
        assert found.expected.startswith(f"( after {name}")


FIGURES = "| figure | over the last ten seconds |"


@pytest.fixture
def delay(tmp_path: Path) -> Iterator[tuple[ModuleType, ModuleType]]:
    """The first module of `writing-one.md` and its test, imported as what the page calls them."""
    module, test, line, *_ = blocks(page("writing-one"), "python")
    assert "delay.MIDDLEWARE," in line
    with imported(tmp_path, delay=module, page_test_delay=test) as (middleware, tests):
        yield middleware, tests


@contextlib.contextmanager
def imported(folder: Path, **sources: str) -> Iterator[list[ModuleType]]:
    """Import these modules from files; `middleware.<name>` means them, too."""
    aliases = [f"middleware.{name}" for name in sources]
    sys.path.insert(0, str(folder))
    modules = []
    try:
        for name, alias in zip(sources, aliases, strict=True):
            (folder / f"{name}.py").write_text(sources[name])
            sys.modules[alias] = importlib.import_module(name)
            modules.append(sys.modules[alias])
        yield modules
    finally:
        sys.path.remove(str(folder))
        for name in (*sources, *aliases):
            sys.modules.pop(name, None)


def test_the_middleware_of_writing_one_keeps_the_contract(delay: tuple[ModuleType, ModuleType]) -> None:
    module, test = delay
    assert registry.unusable(module.MIDDLEWARE, registry.MIDDLEWARES) == ""
    assert play(test) >= 4
    options = module.parse({"svc.mesh/delay": "1ms"})
    assert sent_over(options) == options


async def test_it_holds_requests_up(delay: tuple[ModuleType, ModuleType]) -> None:
    module, _ = delay
    context = FakeContext()
    handler, _ = handler_of(module.build(module.Options(0.001), context), 200)
    response = await handler(FakeRequest())
    assert response.status == 200
    assert context.metrics == {"svcmesh_delayed": 1}


def play(test: ModuleType) -> int:
    """Run the tests of a module; return how many there are."""
    tests = [function for name, function in vars(test).items() if name.startswith("test_")]
    for function in tests:
        function()
    return len(tests)


def test_the_layers_of_writing_one_do_what_they_say(tmp_path: Path) -> None:
    *_, layers, test, _, _ = blocks(page("writing-one"), "python")
    with imported(tmp_path, layers=layers, page_test_layers=test) as (_, tests):
        assert play(tests) == 8


def test_the_window_of_writing_one_is_that_of_all_workers(tmp_path: Path) -> None:
    *_, layer, test = blocks(page("writing-one"), "python")
    with imported(tmp_path, spare=layer, page_test_spare=test) as (_, tests):
        assert play(tests) == 1


def test_the_scopes_of_writing_one_are_all_there_are() -> None:
    header = "| scope | runs around | `build` returns |"
    names = [row[0].split("`")[1].strip('"') for row in rows(page("writing-one"), header)]
    assert tuple(names) == registry.SCOPES


def test_the_table_of_annotations_is_up_to_date() -> None:
    assert (DOCS / "annotations.md").read_text() == render(), "run `make docs`"


def test_middlewares_of_one_page_are_one_section() -> None:
    timeout = annotated("timeout", "svc.mesh/timeout", page="")
    retry = annotated("retry", "svc.mesh/retry", page="")
    per_try = annotated("per-try-timeout", "svc.mesh/per-try-timeout", page="timeout")
    text = render((timeout, retry, per_try))
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "The mesh",
        "Connections",
        "Load balancing",
        "Health check",
        "Outlier detection",
        "Locality",
        "Failover",
        "Access log",
        "Objective",
        "Own middleware",
        "Timeout",
        "Retry",
    ]
    assert text.count("(middleware/timeout.md)") == 1
    assert text.index("`svc.mesh/per-try-timeout`") < text.index("## Retry")


def annotated(name: str, annotation: str, page: str) -> Middleware:
    return Middleware(
        name=name,
        annotations=(Annotation(annotation, "", "", "", ""),),
        options=msgspec.Struct,
        parse=lambda _annotations: None,
        build=lambda _options, _context: None,
        page=page,
    )
