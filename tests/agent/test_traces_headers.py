"""A collector that wants a token: as the exporter sends it, rotates it, and keeps it to itself."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hpack import NeverIndexedHeaderTuple
from opentelemetry.proto.trace.v1 import trace_pb2
from structlog.testing import capture_logs

from hack.kit.waiting import until as until_blocking
from nodeagent.agent import delivery
from nodeagent.agent.grpc_sender import GrpcSender
from nodeagent.agent.traces import TraceExporter, make_exporter
from nodeagent.agent.traces import delivery as delivery_to
from nodeagent.cli.flags import Given, resolve_settings
from nodeagent.cli.flagvalues import parse_collector
from nodeagent.control.messages import Traces
from nodeagent.settings import Settings, TraceCollector
from tests.agent.collectors import Refusal, Serving, grpc_collector
from tests.agent.harness import Whoami
from tests.agent.test_trace_exporter import until
from tests.agent.test_tracing import SAMPLED, get, running
from tests.certificates import NEEDS_OPENSSL, make_certificate, serve_tls
from tests.recorded import recorded

OLD, NEW = "Bearer s3cr3t-of-yesterday", "Bearer s3cr3t-of-today"


@contextlib.asynccontextmanager
async def exporting(form: str, url: str, fields_file: Path) -> AsyncIterator[TraceExporter]:
    to = TraceCollector(form, url, str(fields_file))  # type: ignore[arg-type]
    exporter = TraceExporter(to, {"service.name": "svcmesh"}, "svc.mesh", lambda _: None)
    task = asyncio.create_task(exporter.run())
    try:
        yield exporter
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE", 0.02)


@contextlib.asynccontextmanager
async def guarded(
    wanted: list[str], path: str = "/v1/traces", tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Yield the URL of a collector over HTTP that takes what has the last token of `wanted`."""

    async def answer(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "")
        if given == wanted[-1]:
            assert request.headers["X-Scope-OrgID"] == "shop"
            return web.Response()
        return web.Response(status=401, body=b"\x12" + bytes((len(given),)) + given.encode())

    application = web.Application()
    application.router.add_post(path, answer)
    server = TestServer(application)
    await server.start_server(ssl=tls)
    try:
        yield f"{'https' if tls is not None else 'http'}://127.0.0.1:{server.port}"
    finally:
        await server.close()


def write(path: Path, token: str) -> None:
    """Put a token into the file as the kubelet does: by another file of this name."""
    fresh = path.with_suffix(".new")
    fresh.write_text(f"Authorization: {token}\nX-Scope-OrgID: shop\n")
    fresh.replace(path)


@pytest.mark.parametrize(("form", "path"), [("otlp", "/v1/traces"), ("zipkin", "/api/v2/spans")])
async def test_a_token_over_http_that_is_changed(tmp_path: Path, form: str, path: str) -> None:
    fields = tmp_path / "headers"
    write(fields, OLD)
    wanted = [OLD]
    with capture_logs() as logs:
        async with guarded(wanted, path) as url, exporting(form, url + path, fields) as exporter:
            exporter.take(Traces((recorded(1),), 0))
            await until(lambda: exporter.state.sent == 5)
            wanted.append(NEW)
            exporter.take(Traces((recorded(2),), 0))
            await until(lambda: exporter.state.dropped["refused"] == 1)
            write(fields, NEW)
            exporter.take(Traces((recorded(3),), 0))
            await until(lambda: exporter.state.sent == 10)
    assert [line["event"] for line in logs] == ["traces_not_sent", "traces_sent_again"]
    assert logs[0]["reason"] == ("it answered 401: ***" if form == "otlp" else "it answered 401")
    assert "s3cr3t" not in str(logs)


async def test_a_token_over_grpc_that_is_changed(tmp_path: Path) -> None:
    fields = tmp_path / "headers"
    write(fields, OLD)
    with grpc_collector() as collector, capture_logs() as logs:
        async with exporting("otlp-grpc", f"http://127.0.0.1:{collector.port}", fields) as exporter:
            exporter.take(Traces((recorded(1),), 0))
            await until(lambda: exporter.state.sent == 5)
            assert collector.metadata["authorization"] == OLD
            assert collector.metadata["x-scope-orgid"] == "shop"
            collector.answers = [Refusal(grpc.StatusCode.UNAUTHENTICATED, f"{OLD} has ended")]
            exporter.take(Traces((recorded(2),), 0))
            await until(lambda: exporter.state.dropped["refused"] == 1)
            write(fields, NEW)
            exporter.take(Traces((recorded(3),), 0))
            await until(lambda: exporter.state.sent == 10)
            assert collector.metadata["authorization"] == NEW
    assert logs[0]["reason"] == "it answered UNAUTHENTICATED: *** has ended"
    assert "s3cr3t" not in str(logs)


@pytest.mark.parametrize("form", ["otlp", "otlp-grpc"])
async def test_without_a_usable_file_nothing_is_sent_and_nothing_lost(tmp_path: Path, form: str) -> None:
    fields = tmp_path / "headers"
    with grpc_collector() as collector, capture_logs() as logs:
        async with guarded([NEW]) as url:
            to = f"http://127.0.0.1:{collector.port}" if form == "otlp-grpc" else f"{url}/v1/traces"
            async with exporting(form, to, fields) as exporter:
                exporter.take(Traces((recorded(),), 0))
                await until(lambda: bool(logs))
                fields.write_text("s3cr3t\n")
                exporter.take(Traces((recorded(2),), 0))
                assert collector.got == []
                assert exporter.state.waiting == 2
                write(fields, NEW)
                await until(lambda: exporter.state.sent == 10)
    assert [line["event"] for line in logs] == ["traces_not_sent", "traces_sent_again"]
    assert logs[0]["reason"] == f"header fields: {fields} is not there, or is not a file"
    assert "s3cr3t" not in str(logs)


async def test_nobody_on_the_way_may_keep_a_token_in_a_table() -> None:
    serving = Serving()
    async with serving.running() as port:
        sender = GrpcSender(f"http://127.0.0.1:{port}", "svcmesh/1", 10.0)
        assert (await sender.send(b"spans", (("authorization", NEW),))).fate == "taken"
        await sender.close()
    (head,) = serving.heads
    assert [field for field in head if isinstance(field, NeverIndexedHeaderTuple)] == [
        (b"authorization", NEW.encode())
    ]


@NEEDS_OPENSSL
async def test_the_ca_of_a_collector_over_http_that_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = make_certificate(tmp_path, "right"), make_certificate(tmp_path, "wrong")
    trusted = tmp_path / "ca.crt"
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    async with guarded([NEW], tls=serve_tls(right)) as url:
        _, sender = delivery_to(TraceCollector("otlp", f"{url}/v1/traces"))
        token = (("authorization", NEW), ("x-scope-orgid", "shop"))
        for pair, taken in ((wrong, False), (right, True), (right, True), (wrong, False)):
            trusted.write_bytes(pair[0].read_bytes())
            if taken:
                assert (await sender.send(b"", token)).fate == "taken"
            else:
                with pytest.raises(OSError, match="certificate verify failed"):
                    await sender.send(b"", token)
        await sender.close()


def test_an_agent_and_a_collector_that_wants_a_token(tmp_path: Path) -> None:
    fields, whoami = tmp_path / "headers", Whoami("cart-1")
    write(fields, NEW)
    with grpc_collector() as collector:
        options = ("--traces-headers-file", str(fields))
        with running(tmp_path, [whoami.port], collector.url, *options, tracing="0%") as agent:
            assert get(agent, SAMPLED)[0] == 200
            until_blocking(lambda: len(collector.of_kind(trace_pb2.Span.SPAN_KIND_SERVER)) == 1)
            assert collector.metadata["authorization"] == NEW
            assert "s3cr3t" not in str([agent.admin(page) for page in ("/plan", "/metrics", "/stats")])
            assert "s3cr3t" not in agent.log.read_text()
    whoami.stop()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("otlp+http://10.96.0.50", True),
        ("otlp+grpc://collector", True),
        ("otlp+grpcs://10.96.0.50", False),
        ("otlp+http://127.0.0.1", False),
        ("zipkin+http://localhost", False),
        ("otlp+grpc://[::1]", False),
    ],
)
def test_it_is_said_that_the_fields_are_not_encrypted(url: str, said: bool) -> None:
    with capture_logs() as logs:
        make_exporter(resolved(url, "/headers"), lambda _: None)
        make_exporter(resolved(url, ""), lambda _: None)
    assert [line["event"] for line in logs] == ["traces_headers_not_encrypted"] * said


def resolved(url: str, fields_file: str) -> Settings:
    given = Given(source="file:x", capture="loopback", traces=parse_collector(url))
    return resolve_settings(msgspec.structs.replace(given, traces_headers_file=fields_file))


def test_settings() -> None:
    collector = resolved("zipkin+http://localhost", "/p").traces
    assert collector == TraceCollector("zipkin", "http://localhost:9411/api/v2/spans", "/p")
    with pytest.raises(ValueError, match="--traces-headers-file has no meaning without --traces"):
        resolve_settings(Given(source="file:x", capture="loopback", traces_headers_file="/p"))
