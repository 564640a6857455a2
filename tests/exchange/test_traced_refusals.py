"""Requests that are refused before any layer: they have spans where the Service is traced."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from middleware.contract import Handler, Request, Response, TracedRequest
from nodeagent.plan.model import Match
from tests.exchange.http1 import Http1Stage, Own, ok
from tests.exchange.layers import layer
from tests.exchange.script import a, a1, client, client2

Wires = Callable[..., Http1Stage]

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
API = Match(path="/api")
NO_RULE = Own(404, "no_rule")


class Kept:
    """Remembers what is recorded."""

    def __init__(self) -> None:
        self.requests: list[TracedRequest] = []

    def keep(self, request: TracedRequest) -> None:
        self.requests.append(request)


def get(path: str, sampled: bool | None) -> bytes:
    context = "" if sampled is None else f"traceparent: 00-{TRACE}-{SPAN}-0{int(sampled)}\r\n"
    return f"GET {path} HTTP/1.1\r\nHost: web\r\n{context}\r\n".encode()


@pytest.fixture
def kept() -> Kept:
    return Kept()


def traced(wires: Wires, kept: Kept, options: str) -> Http1Stage:
    stage = wires(annotations={"svc.mesh/tracing": options}, traces=kept)
    stage.plane.takes_only(API)
    return stage


def test_a_request_that_no_rule_takes(wires: Wires, kept: Kept) -> None:
    stage = traced(wires, kept, "0%")
    stage.play(client >> get("/other?card=4711", True), client << NO_RULE)
    (one,) = kept.requests
    assert (one.trace_id.hex(), one.parent_id.hex()) == (TRACE, SPAN)
    assert (one.status, one.failure, one.path, one.method) == (404, "no_rule", "/other", "GET")
    assert one.service == "default/web"
    assert one.stages == ()
    assert [ended.status for ended in stage.plane.watcher.ends] == [404], "it is told once"


def test_what_its_client_does_not_sample_is_recorded_only_as_a_failure(wires: Wires, kept: Kept) -> None:
    stage = traced(wires, kept, "0%")
    stage.play(client >> get("/other", False), client << NO_RULE)
    assert kept.requests == []
    stage = traced(wires, kept, "0% errors=on")
    stage.play(client >> get("/other", False), client << NO_RULE)
    assert [(one.failure, one.sampled) for one in kept.requests] == [("no_rule", False)]


def test_the_connection_serves_on_and_what_is_served_is_recorded_once(wires: Wires, kept: Kept) -> None:
    stage = traced(wires, kept, "100%")
    stage.play(client >> get("/other", None), client << NO_RULE)
    said = stage.does(client >> get("/api", True), a >> "accepts", a1 >> ok(b"served"))
    assert b"".join(said["client"]).endswith(b"served")
    assert [one.status for one in kept.requests] == [404, 200]


def test_a_worker_without_memory(wires: Wires, kept: Kept) -> None:
    stage = traced(wires, kept, "0%")
    stage.plane.runtime.shed(True)
    stage.play(client >> get("/api", True), client << Own(503, "worker_overloaded"))
    stage.play(client2 >> get("/api", None), client2 << Own(503, "worker_overloaded"))
    assert [(one.status, one.failure) for one in kept.requests] == [(503, "worker_overloaded")]


def test_other_layers_do_not_see_it(wires: Wires, kept: Kept) -> None:
    async def sees(request: Request, handler: Handler) -> Response:
        raise AssertionError("a layer was called")

    stage = wires(
        annotations={"svc.mesh/tracing": "100%", "svc.mesh/rate-limit": "1/h burst=1"},
        layers=[("listener", layer(sees))],
        traces=kept,
    )
    stage.plane.takes_only(API)
    for one in (client, client2):
        stage.play(one >> get("/other", True), one << NO_RULE)
    assert len(kept.requests) == 2
    assert stage.plane.watcher.bugs == []


def test_a_service_that_is_not_traced(wires: Wires, kept: Kept) -> None:
    stage = wires(traces=kept)
    stage.plane.takes_only(API)
    assert stage.plane.listener.on_request == ()
    stage.play(client >> get("/other", True), client << NO_RULE)
    assert kept.requests == []
