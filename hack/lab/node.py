"""A node of the lab, its pods and the agent on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hack.kit.manifests import Endpoint
from hack.kit.processes import wait_until
from hack.lab.namespace import POLL, LabProcess, NetworkNamespace
from hack.lab.sandbox import Sandbox
from hack.lab.topology import NodeSpec

ADMIN = "127.0.0.1:15000"


class Agent:
    """A running `nodeagent`."""

    def __init__(self, node: Node, process: LabProcess, admin: str) -> None:
        self.process = process
        self._node = node
        self._admin = admin

    @property
    def log(self) -> str:
        """What it has logged until now."""
        assert self.process.log is not None
        return self.process.log.read_text()

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of its admin page; status 0 if it does not answer."""
        done = self._node.run(
            ["curl", "-s", "--max-time", "5", "-w", "\n%{http_code}", f"http://{self._admin}{path}"]
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body

    def metrics(self) -> str:
        """Return its metrics as Prometheus text."""
        return self.get("/metrics")[1]

    def plan(self) -> Any:
        """Return what it does now, as `/plan` says."""
        return json.loads(self.get("/plan")[1])

    def wait_ready(self) -> None:
        """Wait until `/readyz` is 200.

        Raises:
            ProcessFailed: it ended, or is not ready in time; the message has the end of its log.
        """
        wait_until(lambda: self.get("/readyz")[0] == 200, self.process, every=POLL)

    def stop(self, timeout: float = 40.0) -> int:
        """Send SIGTERM, wait until it has drained, and return its exit code."""
        self.process.terminate()
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Kill the agent process alone with SIGKILL; its workers are not told."""
        self.process.kill()
        self.process.wait(10)


class Pod(NetworkNamespace):
    """A pod: its `/etc/resolv.conf` names the mesh DNS of its node."""

    @property
    def endpoint(self) -> Endpoint:
        """It as an endpoint of a Service."""
        return Endpoint(self.address, pod=self.name, node=self.name.partition("p")[0])


class Node(NetworkNamespace):
    """A node: a namespace that forwards for its pods, and may run an agent."""

    def __init__(self, sandbox: Sandbox, directory: Path, spec: NodeSpec, resolver: Path) -> None:
        super().__init__(sandbox, directory, spec.name, spec.address)
        self.spec = spec
        self.pods = tuple(Pod(sandbox, directory, pod.name, pod.address, resolver) for pod in spec.pods)

    def start_agent(
        self, source: Path, *options: str, admin: str = ADMIN, wait: bool = True, workers: int = 1
    ) -> Agent:
        """Start `nodeagent run --capture nftables` on the YAML files of a folder, and wait until it is ready.

        Raises:
            ProcessFailed: it does not become ready; the message has the end of its log.
        """
        process = self.start(
            [
                *(sys.executable, "-m", "nodeagent", "run"),
                *("--source", f"file:{source}", "--capture", "nftables", "--node-name", self.name),
                *("--admin-listen", admin, "--workers", str(workers), *options),
            ],
            name="agent",
        )
        agent = Agent(self, process, admin)
        if wait:
            agent.wait_ready()
        return agent
