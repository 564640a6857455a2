"""A client that does not read holds back whichever endpoint is asked next."""

from __future__ import annotations

from collections.abc import Callable

from tests.exchange.http1 import Http1Stage, get, http, ok
from tests.exchange.script import a, a1, b, b1, client, passes

HINT = http("HTTP/1.1 103 Early Hints", f"Link: <{'x' * 500}>")


def test_the_next_try_of_a_request_is_held_back_too(wires: Callable[..., Http1Stage]) -> None:
    stage = wires(
        endpoints="ab", annotations={"svc.mesh/retry-attempts": "1", "svc.mesh/per-try-timeout": "3s"}
    )
    stage.does(client >> "connects", client >> "stops reading", client >> get(), a >> "accepts", a1 >> HINT)
    assert stage.held("a1")
    stage.does(passes(4.0), b >> "accepts", b1 >> ok(b"ok"))
    assert stage.held("b1")
    stage.does(client >> "reads")
    assert not stage.held("b1")
    assert bytes(stage.wire("client").received).endswith(b"\r\n\r\nok")
