"""The agent's spans, sent to a real OpenTelemetry Collector over gRPC and over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from hack.kit.waiting import until
from nodeagent.agent import otlp, traces
from nodeagent.agent.delivery import Verdict
from nodeagent.agent.gzipped import compressed
from nodeagent.agent.spans import spans_of
from nodeagent.settings import TraceCollector
from tests.agent.collectors import http_collector
from tests.agent.harness import Whoami
from tests.agent.otelcol import otelcol
from tests.agent.test_tracing import PARENT, SAMPLED, TRACE, get, running, values
from tests.certificates import NEEDS_OPENSSL, make_certificate
from tests.recorded import recorded

BODY = otlp.encode(list(spans_of(recorded(), "svc.mesh", None, 1_000_000.0)), {"service.name": "svcmesh"})


async def send(url: str, form: str, body: bytes = BODY) -> Verdict:
    path = "/v1/traces" if form == "otlp" else ""
    _, sender = traces.delivery(TraceCollector(form, url + path))  # type: ignore[arg-type]
    try:
        return await sender.send(body)
    finally:
        await sender.close()


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_an_agent_a_collector_and_what_it_passes_on(tmp_path: Path, scheme: str) -> None:
    whoami = Whoami("cart-1")
    with http_collector() as backend, otelcol(tmp_path, backend.port) as ports:
        url = f"otlp+{scheme}://127.0.0.1:{ports.grpc if scheme == 'grpc' else ports.http}"
        with running(tmp_path, [whoami.port], url, tracing="0%") as agent:
            assert get(agent, SAMPLED)[0] == 200
            until(lambda: len(backend.of_kind(Span.SPAN_KIND_SERVER)) == 1)
            (server,) = backend.of_kind(Span.SPAN_KIND_SERVER)
            (client,) = backend.of_kind(Span.SPAN_KIND_CLIENT)
            assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
            assert client.parent_span_id == server.span_id
            assert values(server)["http.response.status_code"] == 200
            assert values(server)["server.address"] == "cart.shop.svc.mesh"
            (of_resource, *_) = backend.got[0].resource_spans
            names = {one.key: one.value.string_value for one in of_resource.resource.attributes}
            assert names["service.name"] == "svcmesh"
            until(lambda: agent.metric("svcmesh_trace_spans_sent_total") >= len(backend.spans))
            assert not agent.events("traces_not_sent")
            assert agent.metric("svcmesh_trace_spans_rejected_total") == 0
    whoami.stop()


@pytest.mark.parametrize("form", ["otlp", "otlp-grpc"])
async def test_what_a_real_collector_answers(tmp_path: Path, form: str) -> None:
    assert await compressed(BODY) is not None, "all of this goes there as gzip"
    with http_collector() as backend, otelcol(tmp_path, backend.port) as ports:
        url = f"http://127.0.0.1:{ports.http if form == 'otlp' else ports.grpc}"
        backend.statuses = [503, 400, 429]
        fates = [(await send(url, form)).fate for _ in range(5)]
        # Over gRPC it says RESOURCE_EXHAUSTED in the place of 429, and not when to come back.
        assert fates == ["later", "refused", "later" if form == "otlp" else "refused", "taken", "taken"]
        assert (await send(url, form, b"\xff\xff")).fate == "refused"
        assert len(backend.got) == 2


@NEEDS_OPENSSL
@pytest.mark.parametrize("form", ["otlp", "otlp-grpc"])
async def test_a_collector_with_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    pair = make_certificate(tmp_path, "collector")
    with http_collector() as backend, otelcol(tmp_path, backend.port, pair) as ports:
        place = f"127.0.0.1:{ports.http if form == 'otlp' else ports.grpc}"
        with pytest.raises(OSError, match="certificate verify failed"):
            await send(f"https://{place}", form)
        monkeypatch.setenv("SSL_CERT_FILE", str(pair[0]))
        assert await send(f"https://{place}", form) == Verdict("taken")
        if form == "otlp-grpc":
            with pytest.raises(OSError, match=r"TLS here|reset by peer|closed the connection|Broken pipe"):
                await send(f"http://{place}", form)
