"""Pods in the folder name the clients at their addresses, and changing them changes nothing else."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.kit.manifests import ENABLED, render
from hack.kit.waiting import until
from tests.agent.harness import HTTP, Agent, Whoami, endpoints, service

CLIENT = "127.0.0.9"
WEB_POD = {
    "source": CLIENT,
    "source_pod": "shop/web-5d89bdfbf9-x7k2p",
    "source_workload": "shop/deployment/web",
}


def pod(name: str, address: str = CLIENT, **metadata: Any) -> str:
    return render(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", **metadata},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        }
    )


def web_pod() -> str:
    replica_set = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d89bdfbf9", "uid": "1"}
    return pod(
        "web-5d89bdfbf9-x7k2p",
        labels={"pod-template-hash": "5d89bdfbf9"},
        ownerReferences=[{**replica_set, "controller": True}],
    )


@pytest.fixture
def agent(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> Iterator[Agent]:
    """An agent that serves `shop/web`, and `shop/none` without an endpoint, and logs every request."""
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    (cluster / "web.yaml").write_text(service("web", ENABLED) + endpoints("web", [start_whoami("a").port]))
    (cluster / "none.yaml").write_text(service("none", ENABLED).replace("10.96.7.10", "10.96.7.11"))
    (cluster / "pod.yaml").write_text(web_pod())
    agent = Agent(cluster, "--access-log", "all", "--log-level", "debug")
    try:
        until(agent.ready)
        yield agent
    finally:
        agent.stop()


def log_of(agent: Agent, act: Callable[[], object]) -> dict[str, Any]:
    """Do something that makes one line of the access log, and return it."""
    events = ("request", "request_failed", "request_refused")
    before = len(agent.events(*events))
    act()
    (line,) = until(lambda: agent.events(*events)[before:])
    return line


def request_line(agent: Agent, client: str = CLIENT, name: str = "web.shop") -> dict[str, Any]:
    """Send a request from this address and return its line of the access log."""

    def ask() -> None:
        connection = http.client.HTTPConnection(
            agent.address(name), HTTP.port, timeout=20, source_address=(client, 0)
        )
        with contextlib.closing(connection):
            connection.request("GET", "/")
            connection.getresponse().read()

    return log_of(agent, ask)


def refused_line(agent: Agent) -> dict[str, Any]:
    """Send what is no request, and return its line."""

    def babble() -> None:
        address = (agent.address("web.shop"), HTTP.port)
        with socket.create_connection(address, timeout=20, source_address=(CLIENT, 0)) as connection:
            connection.sendall(b"what is this?\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 400")

    return log_of(agent, babble)


def source_keys(line: dict[str, Any]) -> dict[str, str]:
    assert 0 < line["source_port"] < 65536
    return {key: value for key, value in line.items() if key.startswith("source") and key != "source_port"}


def test_a_line_names_the_pod_with_the_client_s_address(agent: Agent) -> None:
    assert source_keys(request_line(agent)) == WEB_POD
    failed = request_line(agent, name="none.shop")
    assert (failed["event"], source_keys(failed)) == ("request_failed", WEB_POD)
    refused = refused_line(agent)
    assert (refused["event"], source_keys(refused)) == ("request_refused", WEB_POD)
    assert source_keys(request_line(agent, client="127.0.0.10")) == {"source": "127.0.0.10"}


def test_pods_that_come_and_go_are_followed_and_no_plan_is_made_for_them(agent: Agent) -> None:
    plans = len(agent.events("plan_applied"))
    agent.write("pod.yaml", pod("debug"))
    named = {"source": CLIENT, "source_pod": "shop/debug", "source_workload": "shop/pod/debug"}
    until(lambda: source_keys(request_line(agent)) == named)
    (agent.cluster / "pod.yaml").unlink()
    until(lambda: source_keys(request_line(agent)) == {"source": CLIENT})
    assert len(agent.events("plan_applied")) == len(agent.events("plan_timing")) == plans
    agent.write("more.yaml", service("more", ENABLED).replace("10.96.7.10", "10.96.7.12"))
    agent.address("more.shop")
    versions = [line["plan_version"] for line in agent.events("plan_applied")]
    assert versions == list(range(1, plans + 2))


def test_the_worker_that_takes_another_s_place_knows_them(agent: Agent) -> None:
    (old,) = agent.workers()
    os.kill(old, signal.SIGKILL)
    until(lambda: agent.workers() not in ([old], []))
    until(lambda: agent.events("worker_died"))
    until(lambda: agent.metric("svcmesh_workers ") == 1)
    assert source_keys(until(lambda: answered(agent))) == WEB_POD


def answered(agent: Agent) -> dict[str, Any]:
    """Return the line of a request; empty while the new worker does not listen yet (on a laptop)."""
    try:
        return request_line(agent)
    except ConnectionRefusedError:
        return {}
