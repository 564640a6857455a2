"""A whole agent on a real API server, with a real server behind a Service, for tests without a loop."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hack.kit.ports import free_port, listens
from hack.kit.waiting import until
from hack.kube.client import Client
from hack.kube.control_plane import ControlPlane
from tests.agent.harness import Agent
from tests.kube.gate import Gate
from tests.kube.link import private_link
from tests.kube.objects import endpoint_slice, namespace, service

RIGHT_AGAIN = 10.0
"""Seconds; generous, as machines are slow. What is measured is printed and is in docs/failure.md."""


class Mesh:
    """An agent that reads the API server through a gate, and serves `shop/web`."""

    def __init__(self, cluster: ControlPlane, gate: Gate, agent: Agent) -> None:
        self.cluster = cluster
        self.gate = gate
        self.agent = agent
        self._count = 0

    @property
    def admin(self) -> Client:
        return self.cluster.admin

    def add(self) -> str:
        """Add a Service and return its mesh name."""
        self._count += 1
        name = f"s{self._count}"
        self.admin.apply(service(name))
        return f"{name}.shop"

    def remove(self, name: str) -> None:
        self.admin.delete(service(name.partition(".")[0]))

    def serves(self, name: str) -> bool:
        return bool(self.agent.resolve(name)[1])

    def right_after(self, what: str, since: float, *, there: list[str], gone: list[str]) -> None:
        """Wait until these names are served and those are not, and print how long it took."""
        until(lambda: all(map(self.serves, there)) and not any(map(self.serves, gone)), seconds=RIGHT_AGAIN)
        print(f"\n{what}: right {time.monotonic() - since:.2f} s after the server was")

    def stale(self) -> bool:
        return self.agent.metric("svcmesh_source_stale ") == 1.0


def failures(agent: Agent, kind: str) -> list[str]:
    """Return the reasons of the requests to the API server that failed in this way."""
    return [line["reason"] for line in agent.events("source_error") if line["kind"] == kind]


@contextmanager
def whoami_outside() -> Iterator[tuple[str, int]]:
    """A whoami in a network namespace of its own, on an address that Kubernetes takes for an endpoint's."""
    with private_link() as link:
        port = free_port()
        listen = ["--listen", f"{link.far}:{port}", "--name", "web"]
        process = subprocess.Popen(
            ["ip", "netns", "exec", link.name, sys.executable, "-m", "hack.samples.whoami", *listen]
        )

        try:
            until(lambda: listens(link.far, port))
            yield link.far, port
        finally:
            process.kill()
            process.wait()


@contextmanager
def running_mesh(
    cluster: ControlPlane, folder: Path, monkeypatch: pytest.MonkeyPatch, user: dict[str, str] | None = None
) -> Iterator[Mesh]:
    """An agent as this user of a kubeconfig (else the administrator), ready, with `web.shop` served."""
    (folder / "cluster").mkdir()
    admin_user = json.loads(Path(cluster.kubeconfig).read_text())["users"][0]["user"]
    cluster.admin.apply(namespace("shop"))
    with whoami_outside() as (address, port), Gate(cluster.port) as gate:
        cluster.admin.apply(service("web", port=18080))
        cluster.admin.apply(endpoint_slice("web", address=address, port=port))
        monkeypatch.setenv("KUBECONFIG", cluster.write_kubeconfig("agent", user or admin_user, gate.port))
        agent = Agent(folder / "cluster", "--source", "kube", "--node-name", "node-1")
        try:
            until(agent.ready)
            mesh = Mesh(cluster, gate, agent)
            until(lambda: mesh.serves("web.shop"))
            yield mesh
        finally:
            agent.stop()
