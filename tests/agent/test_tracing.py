"""Tracing through a whole agent: a collector made of OpenTelemetry's own messages gets what happened."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from hack.kit.manifests import ENABLED
from hack.kit.ports import free_port
from hack.kit.waiting import until
from tests.agent.collectors import GrpcCollector, HttpCollector, grpc_collector, http_collector
from tests.agent.harness import Agent, Whoami, endpoints, service

Collector = HttpCollector | GrpcCollector
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "rojo=1"}


@pytest.fixture(params=[http_collector, grpc_collector], ids=["http", "grpc"])
def collector(request: pytest.FixtureRequest) -> Iterator[Collector]:
    with request.param() as collector:
        yield collector


@pytest.fixture
def whoami() -> Iterator[Whoami]:
    server = Whoami("cart-1")
    yield server
    server.stop()


@contextmanager
def running(folder: Path, ports: list[int], url: str, *options: str, **annotations: str) -> Iterator[Agent]:
    cluster = folder / "cluster"
    cluster.mkdir()
    asked = {**ENABLED, **{f"svc.mesh/{name}": value for name, value in annotations.items()}}
    (cluster / "cart.yaml").write_text(service("cart", asked) + endpoints("cart", ports))
    agent = Agent(cluster, "--traces", url, *options)
    try:
        until(agent.ready)
        yield agent
    finally:
        agent.stop()


def get(agent: Agent, fields: Mapping[str, str]) -> tuple[int, str]:
    connection = http.client.HTTPConnection(agent.address("cart.shop"), 18080, timeout=20)
    try:
        connection.request("GET", "/headers?card=4711", headers=dict(fields))
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def values(span: Span) -> dict[str, str | int]:
    return {
        one.key: one.value.int_value if one.value.HasField("int_value") else one.value.string_value
        for one in span.attributes
    }


def test_a_sampled_request_and_its_try(tmp_path: Path, whoami: Whoami, collector: Collector) -> None:
    with running(tmp_path, [whoami.port], collector.url, tracing="0%") as agent:
        status, body = get(agent, SAMPLED)
        assert status == 200
        until(lambda: len(collector.of_kind(Span.SPAN_KIND_SERVER)) == 1)
        (server,) = collector.of_kind(Span.SPAN_KIND_SERVER)
        (client,) = collector.of_kind(Span.SPAN_KIND_CLIENT)
        assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
        assert f"00-{TRACE}-{server.span_id.hex()}-01" in body, "the endpoint's parent is the mesh's span"
        assert client.parent_span_id == server.span_id
        told = values(server)
        assert told["http.request.method"] == "GET"
        assert told["http.response.status_code"] == 200
        assert told["url.path"] == "/headers"
        assert told["server.address"] == "cart.shop.svc.mesh"
        assert values(client)["server.port"] == whoami.port
        assert not any("4711" in str(value) for span in collector.spans for value in values(span).values())
        until(lambda: agent.metric("svcmesh_trace_spans_sent_total") >= 2)


def test_what_is_not_sampled_leaves_no_span_unless_it_fails(
    tmp_path: Path, whoami: Whoami, collector: Collector
) -> None:
    with running(tmp_path, [whoami.port], collector.url, tracing="0% errors=on") as agent:
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        status, body = get(agent, unsampled)
        assert status == 200
        assert unsampled["traceparent"] in body
        agent.write("cart.yaml", service("cart", {**ENABLED, "svc.mesh/tracing": "0% errors=on"}))
        until(lambda: get(agent, unsampled)[0] == 503)
        until(lambda: bool(collector.spans))
        assert {span.status.code for span in collector.of_kind(Span.SPAN_KIND_SERVER)} == {
            Status.STATUS_CODE_ERROR
        }


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_collector_that_is_away_slows_nobody(tmp_path: Path, whoami: Whoami, scheme: str) -> None:
    url = f"otlp+{scheme}://127.0.0.1:{free_port()}"
    with running(tmp_path, [whoami.port], url, tracing="100%") as agent:
        assert all(get(agent, {})[0] == 200 for _ in range(20))
        until(lambda: bool(agent.events("traces_not_sent")))
        assert agent.metric("svcmesh_traced_requests_waiting") > 0
        assert all(get(agent, {})[0] == 200 for _ in range(20))
        assert len(agent.events("traces_not_sent")) == 1


def test_a_collector_that_hangs_slows_nobody(tmp_path: Path, whoami: Whoami) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"otlp+grpc://127.0.0.1:{silent.getsockname()[1]}"
        with running(tmp_path, [whoami.port], url, tracing="100%") as agent:
            for _ in range(3):
                assert all(get(agent, {})[0] == 200 for _ in range(20))
            until(lambda: agent.metric("svcmesh_traced_requests_waiting") == 60)
            until(lambda: bool(agent.events("traces_not_sent")))
            (line,) = agent.events("traces_not_sent")
            assert line["reason"] == "it has not answered within 10 seconds"
            assert get(agent, {})[0] == 200
