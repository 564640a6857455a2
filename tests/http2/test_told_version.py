"""The version of HTTP that is told of a request is the client's, whatever its endpoint speaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nodeagent.plan.model import UpstreamProtocol
from tests.exchange.http1 import http, ok
from tests.exchange.script import a, a1, client
from tests.http2.wire import BACK, HELLO, Http2Stage, answers, asks

Wires = Callable[..., Http2Stage]


def version(stage: Http2Stage) -> str:
    (ended,) = stage.plane.watcher.ends
    return ended.http_version


@pytest.mark.parametrize("told", ["1.0", "1.1"])
@pytest.mark.parametrize("upstream", ["http1", "http2"])
def test_a_client_of_http1(wires: Wires, told: str, upstream: UpstreamProtocol) -> None:
    stage = wires(http1="client endpoint" if upstream == "http1" else "client", upstream=upstream)
    stage.does(client >> http(f"GET / HTTP/{told}", "Host: web"), a >> "accepts")
    stage.does(a1 >> (ok() if upstream == "http1" else BACK + answers(1)))
    assert version(stage) == told


@pytest.mark.parametrize("annotations", [{}, {"svc.mesh/cache": "on"}], ids=["plain", "collected"])
@pytest.mark.parametrize("fields", [(), (("content-type", "application/grpc"),)], ids=["http", "grpc"])
def test_a_client_of_http2(wires: Wires, annotations: dict[str, str], fields: tuple[Any, ...]) -> None:
    stage = wires(http1="endpoint", annotations=annotations)
    stage.does(client >> HELLO + asks(1, "GET", "/", *fields), a >> "accepts")
    kept = ("Transfer-Encoding: chunked", "Cache-Control: max-age=60")
    stage.does(a1 >> http("HTTP/1.1 200 OK", *kept, body=b"2\r\nhi\r\n0\r\n\r\n"))
    assert version(stage) == "2"


def test_requests_of_one_connection_may_differ(wires: Wires) -> None:
    stage = wires(http1="client endpoint")
    for told in ("1.1", "1.0"):
        stage.does(client >> http(f"GET / HTTP/{told}", "Host: web"))
        if told == "1.1":
            stage.does(a >> "accepts")
        stage.does(a1 >> ok())
    assert [ended.http_version for ended in stage.plane.watcher.ends] == ["1.1", "1.0"]
