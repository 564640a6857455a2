"""Calls of gRPC through a whole agent: what its page of metrics and its log say of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from hack.kit.manifests import ENABLED
from hack.kit.waiting import until
from tests.agent.harness import Agent, endpoints, service

PORT = 'service="web",namespace="shop",port="18080"'


def add(request: bytes, context: Any) -> bytes:
    if not request:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "nothing to add")
    return request


class Shop(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(add) if details.method == "/shop.Cart/Add" else None


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent that logs all requests, and serves a `shop/web` of gRPC."""
    server = grpc.server(ThreadPoolExecutor(2), handlers=(Shop(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    annotations = {**ENABLED, "svc.mesh/protocol": "grpc"}
    (cluster / "web.yaml").write_text(service("web", annotations) + endpoints("web", [port]))
    agent = Agent(cluster, "--access-log", "all")
    try:
        until(agent.ready)
        yield agent
    finally:
        agent.stop()
        server.stop(None).wait()


def status(agent: Agent, method: str, request: bytes) -> str:
    with grpc.insecure_channel(f"{agent.address('web.shop')}:18080") as channel:
        try:
            channel.unary_unary(method)(request, timeout=20, wait_for_ready=True)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


def counted(agent: Agent, grpc_status: str, method: str = "") -> float:
    family = "svcmesh_grpc_method_calls_total" if method else "svcmesh_grpc_calls_total"
    of_method = f',method="{method}"' if method else ',source_namespace="",source_workload="node"'
    return agent.metric(f'{family}{{{PORT}{of_method},grpc_status="{grpc_status}"}}')


def test_calls_are_counted_and_logged(agent: Agent) -> None:
    assert status(agent, "/shop.Cart/Add", b"x") == "OK"
    assert status(agent, "/shop.Cart/Add", b"") == "INVALID_ARGUMENT"
    assert status(agent, "/shop.Cart/Nothing", b"") == "UNIMPLEMENTED"
    assert counted(agent, "OK", "shop.Cart/Add") == counted(agent, "OK") == 1
    assert counted(agent, "INVALID_ARGUMENT", "shop.Cart/Add") == counted(agent, "INVALID_ARGUMENT") == 1
    assert counted(agent, "UNIMPLEMENTED", "other") == counted(agent, "UNIMPLEMENTED") == 1
    until(lambda: len(agent.events("request", "request_failed")) == 3)
    assert [line["grpc_status"] for line in agent.events("request", "request_failed")] == [
        "OK",
        "INVALID_ARGUMENT",
        "UNIMPLEMENTED",
    ]


def test_the_next_worker_goes_on_counting(agent: Agent) -> None:
    assert status(agent, "/shop.Cart/Add", b"x") == "OK"
    (pid,) = agent.workers()
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in agent.workers() and len(agent.workers()) == 1)
    assert status(agent, "/shop.Cart/Add", b"x") == "OK"
    assert counted(agent, "OK", "shop.Cart/Add") == counted(agent, "OK") == 2
