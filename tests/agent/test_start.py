"""Starts that cannot succeed: one clear sentence, exit status 1, and nothing was started or changed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from hack.kit.ports import free_ports
from hack.kit.waiting import until
from nodeagent.agent import app
from nodeagent.agent.app import Agent as AgentProcess
from nodeagent.agent.preflight import StartError, check_ports
from nodeagent.capture.loopback import LoopbackCapture
from nodeagent.settings import DNS_PORT, Settings
from tests.agent.harness import Agent
from tests.plan.builders import LAPTOP, SETTINGS

NO_URL = """
kind: Config
current-context: a
contexts: [{name: a, context: {cluster: c}}]
clusters: [{name: c, cluster: {server: nonsense}}]
"""


def said_by(agent: Agent) -> str:
    """Wait until the agent has given up; return why, and make sure that it had begun nothing."""
    assert agent.process.wait(20) == 1
    (line,) = agent.events("agent_failed")
    assert agent.events("worker_started", "agent_started", "agent_draining", "dns_listening") == []
    return str(line["reason"])


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    folder = tmp_path / "cluster"
    folder.mkdir()
    return folder


@contextmanager
def taken(kind: socket.SocketKind, port: int, address: str = "127.0.0.1") -> Iterator[None]:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind((address, port))
        if kind == socket.SOCK_STREAM:
            other.listen()
        yield


def test_a_folder_that_does_not_exist(cluster: Path) -> None:
    cluster.rmdir()
    said = said_by(Agent(cluster))
    assert (
        said
        == f"--source file:{cluster}: {cluster} does not exist: create it, or name another file or folder"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(cluster: Path) -> None:
    cluster.chmod(0)
    assert "Permission denied" in said_by(Agent(cluster))


def test_what_is_neither_a_file_nor_a_folder(cluster: Path) -> None:
    said = said_by(Agent(cluster, "--source", "file:/dev/null"))
    assert said == "--source file:/dev/null: /dev/null is neither a file nor a folder: name one of those"


def test_a_cluster_that_nobody_has_named(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(cluster))
    said = said_by(Agent(cluster, "--source", "kube"))
    assert said.startswith("--source kube: no Kubernetes API server is known")
    assert said.endswith(". To read Services from files instead: --source file:PATH")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "kind: Config\nclusters: []\n",
        NO_URL,
    ],
    ids=["missing", "empty", "no YAML", "no context", "no URL"],
)
def test_a_kubeconfig_that_cannot_be_used(
    cluster: Path, text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cluster / "kubeconfig"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    said = said_by(Agent(cluster, "--source", "kube"))
    assert said.startswith(f"--source kube: kubeconfig {path}")


def test_a_plugin_that_takes_its_time_holds_nothing_up(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cluster / "kubeconfig"
    path.write_text(
        "kind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:9'}}]\n"
        "users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: sleep, "
        "args: ['600'], interactiveMode: Never}}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(path))
    agent = Agent(cluster, "--source", "kube")
    try:
        until(lambda: agent.events("agent_started"))
    finally:
        assert agent.stop() == 0


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
def test_an_admin_port_that_is_taken(cluster: Path, bound: str) -> None:
    port, dns = free_ports(2)
    with taken(socket.SOCK_STREAM, port, bound):
        said = said_by(
            Agent(cluster, "--admin-listen", f"127.0.0.1:{port}", "--dns-listen", f"127.0.0.1:{dns}")
        )
    assert said.startswith(f"--admin-listen 127.0.0.1:{port} (TCP): Address already in use: ")
    assert f"(process {os.getpid()}) listens on {bound}:{port}" in said
    assert said.endswith("; stop that program, or choose another address with --admin-listen")


@pytest.mark.parametrize(
    ("kind", "name"), [(socket.SOCK_DGRAM, "UDP"), (socket.SOCK_STREAM, "TCP")], ids=["UDP", "TCP"]
)
def test_a_dns_port_that_is_taken(cluster: Path, kind: socket.SocketKind, name: str) -> None:
    (port,) = free_ports(1)
    with taken(kind, port):
        said = said_by(Agent(cluster, "--dns-listen", f"127.0.0.1:{port}"))
    assert said.startswith(f"--dns-listen 127.0.0.1:{port} ({name}): Address already in use: ")
    assert said.endswith("; stop that program, or choose another address with --dns-listen")


def test_another_agent_s_dns_port_on_a_laptop(agent: Agent, tmp_path: Path) -> None:
    """Each would answer some of the questions, with its own names."""
    (tmp_path / "second").mkdir()
    second = Agent(tmp_path / "second", "--dns-listen", f"127.0.0.1:{agent.dns_port}")
    assert second.process.wait(20) == 1
    (line,) = agent.events("agent_failed")
    assert f"--dns-listen 127.0.0.1:{agent.dns_port}" in line["reason"]
    assert f"(process {agent.process.pid})" in line["reason"]


def test_an_address_of_another_machine(cluster: Path) -> None:
    said = said_by(Agent(cluster, "--admin-listen", "192.0.2.1:15000"))
    assert said == (
        "--admin-listen 192.0.2.1:15000 (TCP): Cannot assign requested address; choose an address of this "
        "machine with --admin-listen"
    )


class CountedCapture(LoopbackCapture):
    started = 0

    async def start(self) -> None:
        self.started += 1


@pytest.mark.parametrize("wrong", ["source", "admin"])
async def test_capture_is_not_touched(cluster: Path, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    admin, dns = free_ports(2)
    settings: Settings = msgspec.structs.replace(
        LAPTOP,
        source=f"file:{cluster}" if wrong != "source" else "file:/no/such/folder",
        admin_listen=("127.0.0.1", admin),
        dns_listen=("127.0.0.1", dns),
    )
    capture = CountedCapture(settings)
    monkeypatch.setattr(app, "make_capture", lambda _: capture)
    with taken(socket.SOCK_STREAM, admin), pytest.raises(StartError):
        await AgentProcess(settings).run(asyncio.Event())
    assert capture.started == 0


def test_a_predecessor_on_a_node_shares_its_ports(cluster: Path) -> None:
    admin, dns = free_ports(2)
    settings = msgspec.structs.replace(
        SETTINGS,
        mesh_range="127.200.0.0/16",
        admin_listen=("127.0.0.1", admin),
        dns_listen=("127.0.0.1", dns),
    )
    check_ports(settings)
    with ExitStack() as predecessor:
        for kind, port in (
            (socket.SOCK_STREAM, admin),
            (socket.SOCK_STREAM, dns),
            (socket.SOCK_DGRAM, dns),
        ):
            opened = predecessor.enter_context(socket.socket(type=kind))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            opened.bind(("127.0.0.1", port))
            if kind == socket.SOCK_STREAM:
                opened.listen()
        check_ports(settings)
    with taken(socket.SOCK_DGRAM, dns), pytest.raises(StartError, match=r"\(UDP\): Address already in use"):
        check_ports(settings)
    with taken(socket.SOCK_STREAM, dns), pytest.raises(StartError, match=r"\(TCP\): Address already in use"):
        check_ports(settings)
    with taken(socket.SOCK_STREAM, DNS_PORT, "0.0.0.0"), pytest.raises(StartError) as caught:
        check_ports(settings)
    assert str(caught.value).startswith(
        f"the DNS address of the mesh range 127.200.0.53:{DNS_PORT} (TCP): Address already in use: "
    )
    assert str(caught.value).endswith("; stop that program, or choose another with --mesh-range")
