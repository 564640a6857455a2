"""Health checks as an owner has them: an agent, its workers, and endpoints that are well for a while."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest

from hack.kit.manifests import ENABLED
from hack.kit.ports import LOCALHOST
from hack.kit.waiting import until
from tests.agent.harness import Agent, endpoints, service

PORT = 'service="web",namespace="shop",port="18080"'
QUICK = "interval=1s unhealthy=1"


class Web:
    """An HTTP server that says its name, and at `/healthz` how it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.well = True
        self.probes = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"name": server.name}).encode()
                probed = self.path == "/healthz"
                server.probes += probed
                self.send_response(503 if probed and not server.well else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        self._server = ThreadingHTTPServer((LOCALHOST, 0), Handler)
        self.port = int(self._server.server_address[1])
        Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Rpc(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A gRPC server that says its name, and by its health service how it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.well = True
        self._pool = ThreadPoolExecutor(4)
        self._server = grpc.server(self._pool)
        self._server.add_generic_rpc_handlers((self,))
        self.port = int(self._server.add_insecure_port(f"{LOCALHOST}:0"))
        self._server.start()

    def service(self, details: Any) -> Any:
        return {
            "/test/Name": grpc.unary_unary_rpc_method_handler(lambda _request, _context: self.name.encode()),
            "/grpc.health.v1.Health/Check": grpc.unary_unary_rpc_method_handler(
                lambda _request, _context: b"\x08\x01" if self.well else b"\x08\x02"
            ),
        }.get(details.method)

    def stop(self) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()


def written(annotations: Mapping[str, str], servers: list[Any]) -> str:
    return service("web", {**ENABLED, **annotations}) + endpoints("web", [one.port for one in servers])


@contextmanager
def serving(folder: Path, annotations: Mapping[str, str], servers: list[Any]) -> Iterator[Agent]:
    cluster = folder / "cluster"
    cluster.mkdir()
    (cluster / "web.yaml").write_text(written(annotations, servers))
    agent = Agent(cluster)
    try:
        until(agent.ready)
        yield agent
    finally:
        agent.stop()
        for one in servers:
            one.stop()


@pytest.fixture
def webs() -> list[Web]:
    return [Web("a"), Web("b")]


@pytest.fixture
def agent(tmp_path: Path, webs: list[Web]) -> Iterator[Agent]:
    annotations = {"svc.mesh/health-check": f"http path=/healthz {QUICK}"}
    with serving(tmp_path, annotations, list(webs)) as agent:
        yield agent


def names(agent: Agent) -> set[str]:
    return {agent.ask()["name"] for _ in range(8)}


def shown(agent: Agent) -> dict[str, str]:
    """The endpoints of the plan that are unhealthy, with the reason."""
    (backend,) = json.loads(agent.admin("/plan")[1])["services"]["shop/web"]["backends"]
    return {one["address"]: one["unhealthy"] for one in backend["endpoints"] if "unhealthy" in one}


def test_an_endpoint_leaves_circulation_and_comes_back(agent: Agent, webs: list[Web]) -> None:
    a, b = webs
    until(lambda: a.probes and b.probes)
    assert names(agent) == {"a", "b"}
    assert shown(agent) == {}
    a.well = False
    until(lambda: names(agent) == {"b"})
    assert shown(agent) == {f"{LOCALHOST}:{a.port}": "status 503"}
    assert agent.metric(f"svcmesh_endpoints_unhealthy{{{PORT}}}") == 1
    assert agent.metric(f"svcmesh_endpoint_ejections_total{{{PORT}}}") == 1
    (line,) = agent.events("endpoint_unhealthy")
    assert (line["service"], line["port"], line["endpoint"]) == ("shop/web", 18080, f"{LOCALHOST}:{a.port}")
    assert (line["reason"], line["healthy"]) == ("status 503", 1)
    a.well = True
    until(lambda: names(agent) == {"a", "b"})
    assert shown(agent) == {}
    assert agent.metric(f"svcmesh_endpoints_unhealthy{{{PORT}}}") == 0
    assert agent.metric(f"svcmesh_endpoint_ejections_total{{{PORT}}}") == 1
    assert agent.metric('svcmesh_health_checks_total{result="passed"}') >= 2
    assert agent.metric('svcmesh_health_checks_total{result="failed"}') >= 1
    (line,) = agent.events("endpoint_healthy")
    assert line["healthy"] == 2


def test_all_are_used_when_none_is_healthy(agent: Agent, webs: list[Web]) -> None:
    for one in webs:
        one.well = False
    until(lambda: len(shown(agent)) == 2)
    until(lambda: names(agent) == {"a", "b"})
    assert agent.events("endpoint_unhealthy")[-1]["healthy"] == 0


def test_a_worker_that_starts_later_knows_it(agent: Agent, webs: list[Web]) -> None:
    webs[0].well = False
    until(lambda: names(agent) == {"b"})
    (pid,) = agent.workers()
    os.kill(pid, signal.SIGKILL)

    def answers() -> set[str]:
        try:
            return names(agent)
        except OSError:
            return set()

    until(lambda: pid not in agent.workers())
    assert until(answers) == {"b"}


def test_probes_stop_with_the_check_and_with_the_endpoint(agent: Agent, webs: list[Web]) -> None:
    a, b = webs
    a.well = False
    until(lambda: names(agent) == {"b"})
    checked = {"svc.mesh/health-check": f"http path=/healthz {QUICK}"}
    agent.write("web.yaml", written(checked, [b]))
    until(lambda: agent.metric("svcmesh_health_check_endpoints") == 1)
    assert shown(agent) == {}
    agent.write("web.yaml", written({}, [a, b]))
    until(lambda: agent.metric("svcmesh_health_check_endpoints") == 0)
    until(lambda: names(agent) == {"a", "b"})


def test_grpc(tmp_path: Path) -> None:
    a, b = Rpc("a"), Rpc("b")
    annotations = {"svc.mesh/protocol": "grpc", "svc.mesh/health-check": f"grpc {QUICK}"}
    with serving(tmp_path, annotations, [a, b]) as agent:
        with grpc.insecure_channel(f"{agent.address('web.shop')}:18080") as channel:
            ask = channel.unary_unary("/test/Name")

            def answered() -> set[bytes]:
                return {ask(b"", timeout=10) for _ in range(8)}

            until(lambda: agent.metric('svcmesh_health_checks_total{result="passed"}') >= 2)
            assert answered() == {b"a", b"b"}
            b.well = False
            until(lambda: answered() == {b"a"})
            assert shown(agent) == {f"{LOCALHOST}:{b.port}": "NOT_SERVING"}
            b.well = True
            until(lambda: answered() == {b"a", b"b"})
        assert agent.metric('svcmesh_health_checks_total{result="failed"}') >= 1
