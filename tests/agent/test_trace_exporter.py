"""Spans on their way to a collector: what they say, and what happens if it is away, busy, or refuses them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import grpc
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2
from structlog.testing import capture_logs

from discovery.model import ServiceKey
from middleware.grpc import GrpcStatus
from nodeagent.agent import delivery, otlp, traces, zipkin
from nodeagent.agent.delivery import Verdict
from nodeagent.agent.spans import Span, spans_of
from nodeagent.agent.traces import TraceExporter, keep_exemplars
from nodeagent.control.messages import SourcePod, Traces
from nodeagent.settings import TraceCollector
from nodeagent.stats.exemplars import Exemplar, Exemplars
from tests.agent.collectors import GrpcCollector, Refusal, Serving, grpc_collector
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
        self.answer_with: tuple[bytes, dict[str, str]] = (b"", {})
        """Body and fields of all answers."""
        self.asked = 0
        self.got: list[ExportTraceServiceRequest] = []
        self.codings: list[str] = []
        """Of all that came."""
        self.changed = asyncio.Event()
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        self.asked += 1
        self.codings.append(request.headers.get("Content-Encoding", ""))
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.got.append(ExportTraceServiceRequest.FromString(body))
        self.changed.set()
        answer, fields = self.answer_with
        return web.Response(status=status, body=answer, headers=fields)

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
async def exporting(
    collector: Collector | GrpcCollector | Serving, most_waiting: int = 1000
) -> AsyncIterator[TraceExporter]:
    url = f"http://127.0.0.1:{collector.port}"
    to = TraceCollector("otlp-grpc", url)
    if isinstance(collector, Collector):
        to = TraceCollector("otlp", f"{url}/v1/traces")
    exporter = TraceExporter(
        to,
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
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE", 0.02)


async def test_all_that_comes_is_sent() -> None:
    collector = Collector()
    async with collector.serving(), exporting(collector) as exporter:
        exporter.take(Traces(tuple(recorded(number) for number in range(1, 251)), 2))
        await until(lambda: exporter.state.sent == 250 * 5)
        assert exporter.state.waiting == 0
        assert dict(exporter.state.dropped) == {"worker": 2, "queue_full": 0, "refused": 0, "broken": 0}


async def test_all_that_comes_is_sent_by_grpc() -> None:
    with grpc_collector() as collector:
        async with exporting(collector) as exporter:
            exporter.take(Traces(tuple(recorded(number) for number in range(1, 251)), 0))
            await until(lambda: exporter.state.sent == 250 * 5)
        assert [len(one.resource_spans[0].scope_spans[0].spans) for one in collector.got] == [500, 500, 250]


async def test_lots_that_would_be_too_large_are_sent_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_BYTES", 20_000)
    with grpc_collector() as collector:
        async with exporting(collector) as exporter:
            exporter.take(Traces(tuple(recorded(number) for number in range(1, 101)), 0))
            exporter.take(Traces((recorded(101, path="/" + "x" * 5000),), 0))
            await until(lambda: exporter.state.sent == 101 * 5)
        assert max(one.ByteSize() for one in collector.got) <= 20_000
        assert {span.trace_id for span in collector.spans} == {(1000 + n).to_bytes(16) for n in range(1, 102)}


async def test_one_request_that_is_too_large_by_itself_is_sent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_BYTES", 10)
    with grpc_collector() as collector:
        async with exporting(collector) as exporter:
            exporter.take(Traces(tuple(recorded(number) for number in range(1, 4)), 0))
            await until(lambda: exporter.state.sent == 15)
        assert len(collector.got) == 3


def refusing(spans: int) -> ExportTraceServiceResponse:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = spans
    response.partial_success.error_message = "too old"
    return response


async def test_what_it_takes_in_part_is_said_once_and_never_sent_again() -> None:
    with grpc_collector() as collector, capture_logs() as logs:
        collector.answers = [refusing(2), refusing(3)]
        async with exporting(collector) as exporter:
            exporter.take(Traces((recorded(1),), 0))
            await until(lambda: exporter.state.rejected == 2)
            exporter.take(Traces((recorded(2),), 0))
            await until(lambda: exporter.state.rejected == 5)
            exporter.take(Traces((recorded(3),), 0))
            await until(lambda: exporter.state.sent == 15 - 5)
        assert len(collector.got) == 3
    (line,) = logs
    assert (line["event"], line["rejected"], line["reason"]) == ("traces_taken_in_part", 2, "too old")


async def test_what_it_takes_in_part_over_http() -> None:
    collector = Collector()
    collector.answer_with = (refusing(2).SerializeToString(), {"Content-Type": "application/x-protobuf"})
    with capture_logs() as logs:
        async with collector.serving(), exporting(collector) as exporter:
            exporter.take(Traces((recorded(),), 0))
            await until(lambda: exporter.state.rejected == 2)
    assert [line["event"] for line in logs] == ["traces_taken_in_part"]


@pytest.mark.parametrize("size", [100_000, 10_000_000])
async def test_an_enormous_answer_over_http_is_not_kept(size: int) -> None:
    collector = Collector()
    collector.answer_with = (bytes(size), {})
    async with collector.serving(), exporting(collector) as exporter:
        for number in (1, 2):
            exporter.take(Traces((recorded(number),), 0))
            await until(lambda number=number: exporter.state.sent == 5 * number)  # type: ignore[misc]


async def test_a_collector_says_when_it_is_to_be_asked_again() -> None:
    collector = Collector()
    collector.statuses = [503]
    collector.answer_with = (b"\x12\x04busy", {"Retry-After": "250"})
    with capture_logs() as logs:
        async with collector.serving():
            sender = traces.delivery(TraceCollector("otlp", f"http://127.0.0.1:{collector.port}/v1/traces"))[
                1
            ]
            assert await sender.send(b"") == Verdict("later", "it answered 503: busy", pause=250.0)
            await sender.close()
        async with collector.serving():
            collector.statuses = [503]
            async with exporting(collector) as exporter:
                exporter.take(Traces((recorded(),), 0))
                await until(lambda: bool(logs))
                assert exporter.state.waiting == 1
    assert collector.asked == 3, "the agent's end does not wait for the pause"


async def test_a_redirection_is_not_followed() -> None:
    elsewhere, collector = Collector(), Collector()
    async with elsewhere.serving(), collector.serving():
        collector.statuses = [302]
        collector.answer_with = (b"", {"Location": f"http://127.0.0.1:{elsewhere.port}/v1/traces"})
        async with exporting(collector) as exporter:
            exporter.take(Traces((recorded(),), 0))
            await until(lambda: exporter.state.dropped["refused"] == 1)
    assert elsewhere.asked == 0


async def test_lots_are_compressed() -> None:
    collector = Collector()
    async with collector.serving(), exporting(collector) as exporter:
        exporter.take(Traces((recorded(),), 0))
        await until(lambda: exporter.state.sent == 5)
    assert collector.codings == ["gzip"]


async def test_a_collector_that_does_not_take_gzip_is_sent_the_same_without() -> None:
    collector = Collector()
    collector.statuses = [415]
    with capture_logs() as logs:
        async with collector.serving(), exporting(collector) as exporter:
            for number in (1, 2):
                exporter.take(Traces((recorded(number),), 0))
                await until(lambda number=number: exporter.state.sent == 5 * number)  # type: ignore[misc]
    assert collector.codings == ["gzip", "", ""]
    assert logs == []


async def test_a_collector_that_takes_nothing_of_this_kind() -> None:
    collector = Collector()
    collector.statuses = [415, 415, 503]
    async with collector.serving(), exporting(collector) as exporter:
        exporter.take(Traces((recorded(),), 0))
        await until(lambda: exporter.state.dropped["refused"] == 1)
        exporter.take(Traces((recorded(2),), 0))
        await until(lambda: exporter.state.sent == 5)
    assert collector.codings == ["gzip", "", "gzip", "gzip"], "it was not gzip that it did not take"


async def test_what_a_collector_says_is_cut_off() -> None:
    with grpc_collector() as collector, capture_logs() as logs:
        collector.answers = [Refusal(grpc.StatusCode.INVALID_ARGUMENT, "x" * 1000)]
        async with exporting(collector) as exporter:
            exporter.take(Traces((recorded(),), 0))
            await until(lambda: exporter.state.dropped["refused"] == 1)
    assert len(logs[0]["reason"]) == 303


async def test_a_collector_that_hangs_is_given_up_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "PATIENCE", 0.1)
    serving = Serving(lambda peer, stream: None)
    with capture_logs() as logs:
        async with serving.running(), exporting(serving, most_waiting=10) as exporter:
            exporter.take(Traces(tuple(recorded(number) for number in range(1, 21)), 0))
            await until(lambda: bool(logs))
            monkeypatch.setattr(traces, "PATIENCE", 20.0)
            await until(lambda: exporter.state.sent == 50)
            assert exporter.state.dropped["queue_full"] == 10
    assert [line["event"] for line in logs] == ["traces_not_sent", "traces_sent_again"]
    assert logs[0]["reason"] == "it has not answered within 0.1 seconds"


async def test_a_collector_of_grpc_that_is_busy_is_asked_again() -> None:
    with grpc_collector() as collector, capture_logs() as logs:
        collector.answers = [
            Refusal(grpc.StatusCode.UNAVAILABLE, "no"),
            Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "no", 0.05),
        ]
        async with exporting(collector) as exporter:
            exporter.take(Traces((recorded(),), 0))
            await until(lambda: exporter.state.sent == 5)
    assert [line["event"] for line in logs] == ["traces_not_sent", "traces_sent_again"]


async def test_what_a_collector_of_grpc_refuses_is_dropped() -> None:
    with grpc_collector() as collector:
        collector.answers = [Refusal(grpc.StatusCode.INVALID_ARGUMENT, "no")]
        async with exporting(collector) as exporter:
            exporter.take(Traces((recorded(),), 0))
            await until(lambda: exporter.state.dropped["refused"] == 1)
            exporter.take(Traces((recorded(2),), 0))
            await until(lambda: exporter.state.sent == 5)


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
