"""Requests over HTTP/2, and calls of gRPC, that are refused before any layer: they have spans too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from middleware.contract import TracedRequest
from middleware.grpc import GrpcStatus
from nodeagent.plan.model import Match
from tests.exchange.script import client
from tests.http2.wire import HELLO, Http2Stage, asks

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GRPC = (("content-type", "application/grpc"), ("te", "trailers"))


class Kept:
    """Remembers what is recorded."""

    def __init__(self) -> None:
        self.requests: list[TracedRequest] = []

    def keep(self, request: TracedRequest) -> None:
        self.requests.append(request)


@pytest.mark.parametrize(
    ("fields", "answer", "grpc_status"),
    [((), ": 404 ", None), (GRPC, "grpc-status=12", GrpcStatus.UNIMPLEMENTED)],
    ids=["http", "grpc"],
)
def test_a_request_that_no_rule_takes(
    wires: Callable[..., Http2Stage],
    fields: tuple[tuple[str, str], ...],
    answer: str,
    grpc_status: GrpcStatus | None,
) -> None:
    kept = Kept()
    stage = wires(annotations={"svc.mesh/tracing": "0%"}, traces=kept)
    stage.plane.takes_only(Match(path="/api"))
    context = ("traceparent", f"00-{TRACE}-{SPAN}-01")
    said = stage.does(client >> HELLO + asks(1, "POST", "/shop.Cart/Add", *fields, context))
    assert answer in said["client"][0], said
    (one,) = kept.requests
    assert (one.trace_id.hex(), one.parent_id.hex()) == (TRACE, SPAN)
    assert (one.failure, one.grpc_status) == ("no_rule", grpc_status)
