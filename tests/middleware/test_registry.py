from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from middleware import custom, registry, retry
from middleware.contract import (
    Annotation,
    Context,
    Handler,
    Layer,
    Metric,
    Middleware,
    Request,
    Response,
)
from middleware.testing import FakeConnection, FakeContext, FakeRequest, FakeResponse, handler_of, status_of

ROOT = Path(__file__).parents[2]


class Options(msgspec.Struct, frozen=True):
    pass


class Thawed(msgspec.Struct):
    pass


def parse(_annotations: Mapping[str, str]) -> Options:
    return Options()


def build(_options: Options, _context: Context) -> Layer:
    return lambda handler: handler


def break_down(_options: Options, _context: Context) -> Layer:
    raise RuntimeError("no more")


OWN = Middleware(
    name="own",
    annotations=(Annotation("svc.mesh/own", "anything", "", "A user's own.", "svc.mesh/own: yes"),),
    options=Options,
    parse=parse,
    build=build,
    metrics=(Metric("svcmesh_own", "Counts."),),
)


class FakeEntryPoint:
    def __init__(self, loaded: Any, name: str = "own") -> None:
        self.name = name
        self.value = f"package.{name}:MIDDLEWARE"
        self._loaded = loaded

    def load(self) -> Any:
        if isinstance(self._loaded, BaseException):
            raise self._loaded
        return self._loaded


def test_the_order_is_one_list() -> None:
    assert registry.installed().middlewares[: len(registry.MIDDLEWARES)] == registry.MIDDLEWARES


def test_the_list_is_in_the_order_of_scopes() -> None:
    places = [registry.SCOPES.index(middleware.scope) for middleware in registry.MIDDLEWARES]
    assert places == sorted(places)


def test_by_name() -> None:
    assert registry.by_name("retry") is retry.MIDDLEWARE
    known = ", ".join(middleware.name for middleware in registry.MIDDLEWARES)
    with pytest.raises(LookupError, match=f"known are {known}"):
        registry.by_name("retries")


def test_a_users_middleware_comes_after_ours_of_its_scope() -> None:
    second = msgspec.structs.replace(OWN, name="second", annotations=(), metrics=())
    gate = msgspec.structs.replace(second, name="gate", scope="connection")
    seer = msgspec.structs.replace(second, name="seer", scope="request")
    innermost = msgspec.structs.replace(second, name="innermost", scope="try")
    entry_points = [
        FakeEntryPoint(innermost, "d"),
        FakeEntryPoint(gate, "c"),
        FakeEntryPoint(seer, "e"),
        FakeEntryPoint(second, "b"),
        FakeEntryPoint(OWN, "a"),
    ]
    installed = registry.load(entry_points)
    assert installed.problems == ()
    ours = {
        scope: [middleware.name for middleware in registry.MIDDLEWARES if middleware.scope == scope]
        for scope in registry.SCOPES
    }
    theirs = {"connection": ["gate"], "request": ["seer"], "rule": ["own", "second"], "try": ["innermost"]}
    assert [middleware.name for middleware in installed.middlewares] == [
        name for scope in registry.SCOPES for name in ours[scope] + theirs.get(scope, [])
    ]
    (own,) = [middleware for middleware in installed.middlewares if middleware.name == "own"]
    assert own.parse({}) is None
    assert own.parse({"svc.mesh/middleware": "second own"}) == Options()
    handler, _ = handler_of(own.build(Options(), FakeContext()))
    assert status_of(handler(FakeRequest())) == 200


@pytest.mark.parametrize(
    ("loaded", "reason"),
    [
        (ImportError("no such module"), "cannot be loaded: ImportError: no such module"),
        (SystemExit(3), "cannot be loaded: SystemExit: 3"),
        (None, "is a NoneType, not a middleware.contract.Middleware"),
        (registry, "is a module, not a middleware.contract.Middleware"),
        (msgspec.structs.replace(OWN, options=Thawed), "its options are not frozen"),
        (msgspec.structs.replace(OWN, options=dict), "its options are not a msgspec.Struct"),
        (
            msgspec.structs.replace(OWN, scope="pod"),
            "its scope is 'pod', which is not one of connection, request, listener, rule, backend, try",
        ),
        (
            msgspec.structs.replace(OWN, annotations=7),
            "cannot be loaded: TypeError: 'int' object is not iterable",
        ),
        (msgspec.structs.replace(OWN, name="retry"), "the name retry is taken by retry"),
        (
            msgspec.structs.replace(OWN, annotations=retry.MIDDLEWARE.annotations[:1]),
            "the annotation svc.mesh/retry-attempts is taken by retry",
        ),
        (
            msgspec.structs.replace(OWN, metrics=retry.MIDDLEWARE.metrics[:1]),
            "the metric svcmesh_retries is taken by retry",
        ),
        (
            msgspec.structs.replace(OWN, metrics=(Metric("own", ""),)),
            "its metric own does not start with svcmesh_",
        ),
        (
            msgspec.structs.replace(OWN, annotations=(Annotation("example.com/own", "", "", "", ""),)),
            "its annotation example.com/own does not start with svc.mesh/",
        ),
    ],
)
def test_a_broken_entry_point_is_reported_and_left_out(loaded: Any, reason: str) -> None:
    installed = registry.load([FakeEntryPoint(loaded, "broken")])
    assert [one for one in installed.middlewares if not one.custom] == [*registry.MIDDLEWARES]
    (broken,) = [one for one in installed.middlewares if one.custom]
    assert broken.parse({}) is None
    options = broken.parse({"svc.mesh/middleware": "broken"})
    handler, scripted = handler_of(broken.build(options, FakeContext()), 200)
    assert status_of(handler(FakeRequest())) == "middleware_broken"
    assert scripted.requests == []
    assert installed.problems == (registry.LoadProblem("broken = package.broken:MIDDLEWARE", reason),)


def test_problems_of_installed_entry_points_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [FakeEntryPoint(ImportError(group))]
    )
    monkeypatch.setattr(registry, "found_here", registry.found_here.__wrapped__)
    with structlog.testing.capture_logs() as logs:
        installed = registry.installed.__wrapped__()
    assert [one for one in installed.middlewares if not one.custom] == [*registry.MIDDLEWARES]
    assert [(line["event"], line["entry_point"]) for line in logs] == [
        ("middleware_not_loaded", "own = package.own:MIDDLEWARE")
    ]
    assert "svcmesh.middleware" in logs[0]["reason"]


def test_a_users_middleware_that_cannot_be_built_refuses_its_port_alone() -> None:
    installed = registry.load([FakeEntryPoint(msgspec.structs.replace(OWN, build=break_down))])
    (own,) = [middleware for middleware in installed.middlewares if middleware.name == "own"]
    with structlog.testing.capture_logs() as logs:
        handler, scripted = handler_of(own.build(Options(), FakeContext()))
    assert status_of(handler(FakeRequest())) == "middleware_broken"
    assert scripted.requests == []
    assert [(line["event"], line["service"], line["port"]) for line in logs] == [
        ("middleware_broken", "default/whoami", 80)
    ]


def test_a_users_gate_that_cannot_be_built_refuses_connections() -> None:
    broken = msgspec.structs.replace(OWN, build=break_down, scope="connection")
    installed = registry.load([FakeEntryPoint(broken)])
    (own,) = [middleware for middleware in installed.middlewares if middleware.name == "own"]
    with structlog.testing.capture_logs():
        gate = own.build(Options(), FakeContext())
    with pytest.raises(custom.Broken):
        gate(FakeConnection())


class Alternating:
    """Every request fails at the first endpoint and is answered by the second."""

    def __init__(self) -> None:
        self.tries = 0

    async def __call__(self, _request: Request) -> Response:
        self.tries += 1
        return FakeResponse(502 if self.tries % 2 else 200)


def test_breakers_see_what_clients_see_and_limits_see_each_request_once() -> None:
    annotations = {
        "svc.mesh/rate-limit": "20/h burst=20",
        "svc.mesh/circuit-breaker": "NetworkErrorRatio() > 0.3",
        "svc.mesh/retry-attempts": "1",
        "svc.mesh/retry-on": "502",
    }
    context, endpoints = FakeContext(), Alternating()
    handler: Handler = endpoints
    for middleware in reversed(registry.MIDDLEWARES):
        options = middleware.parse(annotations)
        handler = middleware.build(options, context)(handler) if options is not None else handler
    statuses = []
    for _ in range(25):
        context.time += 1
        statuses.append(status_of(handler(FakeRequest())))
    assert statuses == [200] * 20 + ["rate_limited"] * 5
    assert endpoints.tries == 40
    assert context.metrics["svcmesh_circuit_breaker_opened"] == 0


@pytest.mark.parametrize("middleware", registry.MIDDLEWARES, ids=lambda middleware: middleware.name)
def test_every_middleware_has_its_four_files(middleware: Middleware) -> None:
    page = middleware.page or middleware.name
    module = page.replace("-", "_")
    assert (ROOT / f"middleware/{module}.py").is_file()
    assert (ROOT / f"tests/middleware/test_{module}.py").is_file()
    assert (ROOT / f"docs/middleware/{page}.md").is_file()
    constants = vars(importlib.import_module(f"middleware.{module}"))
    (constant,) = [name for name, value in constants.items() if value is middleware]
    assert f"    {module}.{constant},\n" in (ROOT / "middleware/registry.py").read_text()


@pytest.mark.parametrize("middleware", registry.MIDDLEWARES, ids=lambda middleware: middleware.name)
def test_every_middleware_keeps_the_contract(middleware: Middleware) -> None:
    assert registry.unusable(middleware, [m for m in registry.MIDDLEWARES if m is not middleware]) == ""
    assert middleware.parse({}) is None
    assert middleware.parse({"svc.mesh/enabled": "true", "svc.mesh/protocol": "http"}) is None
    for metric in middleware.metrics:
        assert not metric.name.endswith("_total")
        assert metric.help.endswith(".")
    for annotation in middleware.annotations:
        assert annotation.example.startswith(f"{annotation.name}: ")
        assert annotation.summary.endswith(".")
