"""Session affinity over HTTP/2: to clients and to endpoints, and for calls of gRPC."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from nodeagent.plan.model import Affinity
from tests.exchange.script import a, a1, b, b1, client
from tests.http2.wire import BACK, HELLO, Http2Stage, answers, asks

Wires = Callable[..., Http2Stage]
GRPC = ("content-type", "application/grpc")
COOKIE = re.compile(r"set-cookie=(shop=[0-9a-f]{24}); Path=/; HttpOnly; SameSite=Lax")


@pytest.mark.parametrize("fields", [(), (GRPC, ("te", "trailers"))], ids=["http", "grpc"])
def test_a_client_stays_with_its_endpoint(wires: Wires, fields: tuple[tuple[str, str], ...]) -> None:
    stage = wires(endpoints="ab", affinity=Affinity("shop"))
    said = stage.does(client >> HELLO + asks(1, "POST", "/", *fields), a >> "accepts", a1 >> BACK)
    assert said["a1"][0].startswith("1: POST /")
    answer = answers(1, 200, *((GRPC, ("grpc-status", "0")) if fields else ()))
    said = stage.does(a1 >> answer)
    match = COOKIE.search(said["client"][0])
    assert match, said
    crumbs = (("cookie", "theme=dark"), ("cookie", match[1]))
    for stream in (3, 5):
        said = stage.does(client >> asks(stream, "POST", "/", *fields, *crumbs))
        assert said["a1"][0].startswith(f"{stream}: POST /"), "without the cookie it would be b's turn"
        said = stage.does(a1 >> answers(stream, 200, *((GRPC, ("grpc-status", "0")) if fields else ())))
        assert "set-cookie" not in said["client"][0]
    said = stage.does(client >> asks(7, "POST", "/", *fields), b >> "accepts", b1 >> BACK)
    assert said["b1"][0].startswith("1: POST /")
