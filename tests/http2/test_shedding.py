"""A worker without memory for further requests, as clients of HTTP/2 and of gRPC see it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodeagent.stats import columns
from tests.exchange.script import client
from tests.http2.wire import HELLO, Http2Stage, asks

Wires = Callable[..., Http2Stage]


@pytest.mark.parametrize(
    ("fields", "answer"),
    [((), ": 503 "), ((("content-type", "application/grpc"), ("te", "trailers")), "grpc-status=14")],
    ids=["http", "grpc"],
)
def test_a_new_request_is_refused_and_the_connection_stays(
    wires: Wires, fields: tuple[tuple[str, str], ...], answer: str
) -> None:
    stage = wires()
    stage.plane.runtime.shed(True)
    said = stage.does(client >> HELLO + asks(1, "POST", "/", *fields))
    assert answer in said["client"][0], said
    assert "worker_overloaded" in said["client"][0]
    said = stage.does(client >> asks(3, "POST", "/", *fields))
    assert answer in said["client"][0], "on the same connection"
    plane = stage.plane
    assert plane.cells[plane.layout.base(columns.WORKER_SLOT) + columns.WORKER_REQUESTS_SHED] == 2
