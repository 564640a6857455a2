"""Spans on their way to a collector: what they say, and what happens if it is away, busy, or refuses them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2
from structlog.testing import capture_logs

from discovery.model import ServiceKey
from middleware.grpc import GrpcStatus
from nodeagent.agent import otlp, traces, zipkin
from nodeagent.agent.spans import Span, spans_of
from nodeagent.agent.traces import TraceExporter, keep_exemplars
from nodeagent.control.messages import SourcePod, Traces
from nodeagent.settings import TraceCollector
from nodeagent.stats.exemplars import Exemplar, Exemplars
from tests.recorded import recorded

POD = SourcePod("shop", "web-1-x", "deployment/web")
RESOURCE = {"service.name": "svcmesh", "k8s.node.name": "n1"}


def spans(number: int = 1, pod: SourcePod | None = None, **changes: object) -> list[Span]:
    return list(spans_of(recorded(number, **changes), "svc.mesh", pod, 1_000_000.0))


def test_a_request_is_a_span_with_its_stages_below() -> None:
    server, connect, first, backoff, second = spans(pod=POD)
    assert (server.kind, server.name, server.failed) == ("SERVER", "GET", False)
    assert (server.start, server.end) == (1_000_100_000_000_000, 1_000_101_000_000_000)
    assert server.attributes["server.address"] == "cart.shop.svc.mesh"
    assert server.attributes["source.k8s.deployment.name"] == "web"
    assert [one.kind for one in (connect, first, backoff, second)] == [
        "INTERNAL",
        "CLIENT",
        "INTERNAL",
        "CLIENT",
    ]
    assert {one.parent_id for one in (connect, first, backoff, second)} == {server.span_id}
    assert len({one.span_id for one in spans()}) == 5
    assert (first.failed, first.attributes["error.type"]) == (True, "503")
    assert second.attributes["http.request.resend_count"] == 1
    assert (second.attributes["server.address"], second.attributes["server.port"]) == ("10.1.0.2", 8080)


def test_a_call_of_grpc() -> None:
    server = spans(
        method="POST", path="/shop.Cart/Add", grpc_status=GrpcStatus.UNAVAILABLE, failure="UNAVAILABLE"
    )[0]
    assert (server.name, server.failed) == ("shop.Cart/Add", True)
    assert server.attributes["rpc.service"] == "shop.Cart"
    assert server.attributes["rpc.method"] == "Add"
    assert server.attributes["rpc.grpc.status_code"] == 14


def test_what_the_client_speaks() -> None:
    server = spans(http_version="1.0")[0]
    assert server.attributes["network.protocol.name"] == "http"
    assert server.attributes["network.protocol.version"] == "1.0"


def test_a_client_cannot_make_names_of_spans() -> None:
    server = spans(method="BREW")[0]
    assert (server.name, server.attributes["http.request.method"]) == ("HTTP", "_OTHER")
    assert server.attributes["http.request.method_original"] == "BREW"


def test_what_was_not_sampled_says_why_it_is_here() -> None:
    assert spans(sampled=False)[0].attributes["svcmesh.sampled_because"] == "slow"
    failed = spans(sampled=False, failure="503")[0]
    assert failed.attributes["svcmesh.sampled_because"] == "failed"


def test_otlp_is_what_the_official_messages_read() -> None:
    message = ExportTraceServiceRequest.FromString(otlp.encode(spans(pod=POD), RESOURCE))
    (of_resource,) = message.resource_spans
    assert {one.key: one.value.string_value for one in of_resource.resource.attributes} == RESOURCE
    (of_scope,) = of_resource.scope_spans
    server, _, first, *_ = of_scope.spans
    assert server.kind == trace_pb2.Span.SPAN_KIND_SERVER
    assert server.trace_id == (1001).to_bytes(16)
    assert first.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    assert server.status.code == trace_pb2.Status.STATUS_CODE_UNSET


def test_zipkin() -> None:
    server, connect, *_ = msgspec.json.decode(zipkin.encode(spans(), RESOURCE))
    assert (server["traceId"], server["id"]) == (f"{1001:032x}", f"{1:016x}")
    assert "parentId" not in server
    assert (server["kind"], server["duration"]) == ("SERVER", 1_000_000)
    assert (connect["parentId"], connect.get("kind")) == (server["id"], None)
    assert server["localEndpoint"] == {"serviceName": "svcmesh"}
    assert server["tags"]["http.response.status_code"] == "200"


class Collector:
    """One that answers as it is told, with 200 when it is told nothing more."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.got: list[ExportTraceServiceRequest] = []
        self.changed = asyncio.Event()
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.got.append(ExportTraceServiceRequest.FromString(body))
        self.changed.set()
        return web.Response(status=status)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        application = web.Application()
        application.router.add_post("/v1/traces", self.answer)
        server = TestServer(application, port=self.port)
        await server.start_server()
        self.port = server.port or 0
        try:
            yield
        finally:
            await server.close()


@contextlib.asynccontextmanager
async def exporting(collector: Collector, most_waiting: int = 1000) -> AsyncIterator[TraceExporter]:
    exporter = TraceExporter(
        TraceCollector("otlp", f"http://127.0.0.1:{collector.port}/v1/traces"),
        RESOURCE,
        "svc.mesh",
        lambda _: POD,
        most_waiting,
    )
    task = asyncio.create_task(exporter.run())
    try:
        yield exporter
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 several things change what it looks at
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(traces, "LONGEST_PAUSE", 0.02)


async def test_all_that_comes_is_sent() -> None:
    collector = Collector()
    async with collector.serving(), exporting(collector) as exporter:
        exporter.take(Traces(tuple(recorded(number) for number in range(1, 251)), 2))
        await until(lambda: exporter.state.sent == 250 * 5)
        assert exporter.state.waiting == 0
        assert dict(exporter.state.dropped) == {"worker": 2, "queue_full": 0, "refused": 0, "broken": 0}


async def test_a_collector_that_is_busy_is_asked_again() -> None:
    collector = Collector()
    collector.statuses = [503, 429]
    with capture_logs() as logs:
        async with collector.serving(), exporting(collector) as exporter:
            exporter.take(Traces((recorded(),), 0))
            await until(lambda: exporter.state.sent == 5)
    assert len(collector.got) == 1
    assert [line["event"] for line in logs] == ["traces_not_sent", "traces_sent_again"]


async def test_what_it_refuses_is_dropped() -> None:
    collector = Collector()
    collector.statuses = [400]
    async with collector.serving(), exporting(collector) as exporter:
        exporter.take(Traces((recorded(),), 0))
        await until(lambda: exporter.state.dropped["refused"] == 1)
        exporter.take(Traces((recorded(2),), 0))
        await until(lambda: exporter.state.sent == 5)


async def test_a_collector_that_is_away_takes_no_more_memory_than_the_queue() -> None:
    collector = Collector()
    async with collector.serving():
        pass  # its port is free again
    with capture_logs() as logs:
        async with exporting(collector, most_waiting=10) as exporter:
            for _ in range(5):
                exporter.take(Traces(tuple(recorded(number) for number in range(1, 5)), 0))
            await until(lambda: bool(logs))
            assert exporter.state.waiting == 10
            assert exporter.state.dropped["queue_full"] == 10
            async with collector.serving():
                await until(lambda: exporter.state.sent == 10 * 5)
    assert [line["event"] for line in logs] == ["traces_not_sent", "traces_sent_again"]


async def test_what_is_left_at_the_end_is_sent() -> None:
    collector = Collector()
    async with collector.serving():
        async with exporting(collector) as exporter:
            await asyncio.sleep(0)
            exporter.take(Traces((recorded(),), 0))
        assert exporter.state.sent == 5


async def test_a_bug_costs_a_lot_and_not_the_agent() -> None:
    collector = Collector()
    with capture_logs() as logs:
        async with collector.serving(), exporting(collector) as exporter:
            exporter.take(Traces((recorded(path="\ud800"),), 0))
            await until(lambda: exporter.state.dropped["broken"] == 1)
            exporter.take(Traces((recorded(2),), 0))
            await until(lambda: exporter.state.sent == 5)
    assert [line["event"] for line in logs] == ["traces_broken"]


async def test_requests_whose_traces_are_sent_are_exemplars() -> None:
    exporter = TraceExporter(
        TraceCollector("otlp", "http://127.0.0.1:1/v1/traces"),
        RESOURCE,
        "svc.mesh",
        lambda _: None,
        most_waiting=2,
    )
    lot = Traces(
        tuple(recorded(number, start=100.0, end=100.0 + 0.003 * number) for number in (1, 10, 100)),
        0,
        ("shop/deployment/web", "/unknown", "/node"),
    )
    exemplars = Exemplars()
    keep_exemplars(exemplars, lot, exporter.take(lot), 1_000_000.0)
    key = (ServiceKey("shop", "cart"), 80)
    assert exemplars.by_series(lambda *edge: edge) == {
        (key, "shop/deployment/web"): {3: Exemplar(recorded(1).trace_id.hex(), 0.003, 1_000_100.003)},
        (key, "/unknown"): {6: Exemplar(recorded(10).trace_id.hex(), 0.03, 1_000_100.03)},
    }, "there was no room for the third"
