"""The cache with HTTP/2 on either side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.exchange.http1 import http, ok
from tests.exchange.script import a, a1, client
from tests.http2.wire import BACK, HELLO, Http2Stage, answers, asks, data

Wires = Callable[..., Http2Stage]
ON = {"svc.mesh/cache": "on"}
KEPT = "Cache-Control: max-age=60"


def test_a_client_of_http2(wires: Wires) -> None:
    stage = wires(http1="endpoint", annotations=ON)
    stage.play(client >> HELLO)
    stage.does(client >> asks(1), a >> "accepts")
    said = stage.does(a1 >> ok(b"hi", KEPT))
    stored = "cache-status=svc.mesh; fwd=uri-miss; fwd-status=200; stored"
    assert said["client"] == [f"1: 200 content-length=2 cache-control=max-age=60 {stored}", '1: "hi" end']
    said = stage.does(client >> asks(3))
    kept = "cache-control=max-age=60 age=0 cache-status=svc.mesh; hit; ttl=60"
    signed = 'proxy-status=svc.mesh; details="cached"'
    assert said == {"client": [f"3: 200 {kept} {signed} content-length=2", '3: "hi" end']}
    assert stage.does(client >> asks(5, "HEAD"))["client"] == [f"5: 200 {kept} {signed} content-length=2 end"]
    not_modified = stage.does(client >> asks(7, "GET", "/", ("if-none-match", "*")))["client"]
    assert not_modified == [f"7: 304 {kept} {signed} end"]


def test_streams_of_one_connection_wait_for_one_response(wires: Wires) -> None:
    stage = wires(http1="endpoint", annotations=ON)
    stage.play(client >> HELLO)
    said = stage.does(client >> asks(1) + asks(3) + asks(5), a >> "accepts")
    assert len(said["a1"]) == 1
    said = stage.does(a1 >> http("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", KEPT, body=b"2\r\nhi\r\n"))
    assert [str(what)[0] for what in said["client"]] == ["1", "1"]
    said = stage.does(a1 >> b"0\r\n\r\n")
    bodies = [what for what in said["client"] if str(what).endswith('"hi" end')]
    assert bodies == ['3: "hi" end', '5: "hi" end']


@pytest.mark.parametrize("sized", [True, False])
def test_an_endpoint_of_http2(wires: Wires, sized: bool) -> None:
    stage = wires(upstream="http2", annotations=ON)
    stage.play(client >> HELLO)
    stage.does(client >> asks(1), a >> "accepts")
    fields: list[tuple[str, str]] = [("cache-control", "max-age=60")]
    if sized:
        fields.append(("content-length", "2"))
    stage.does(a1 >> BACK + answers(1, 200, *fields, end=False))
    said: dict[str, list[Any]] = stage.does(a1 >> data(1, b"hi"))
    assert said["client"][-1] == '1: "hi" end'
    said = stage.does(client >> asks(3))
    assert said.keys() == {"client"}
    assert "age=0" in said["client"][0]
    assert said["client"][-1] == '3: "hi" end'
