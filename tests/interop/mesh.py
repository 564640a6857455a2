"""A whole agent with Services of every kind of back end, for peers that are real programs of others."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from hack.kit.manifests import ENABLED, Endpoint, Port, endpoint_slice, render, service
from hack.kit.ports import LOCALHOST
from hack.kit.waiting import until
from tests.agent.harness import Agent

BIN = Path(os.environ.get("SVCMESH_TOOLS", "") or Path.home() / ".cache" / "svcmesh" / "bin")
PEERS = BIN.parent / "peers"
"""The environment of Python's servers."""
PORT = 18080
NODE_PEER = str(Path(__file__).with_name("node_peer.js"))


def built(name: str) -> str:
    """Return the path of a program of hack/interop, or skip."""
    path = BIN / name
    if path.is_file():
        return str(path)
    pytest.skip(f"{path} is not there: `make interop-tools` builds it (needs Go)")


def installed(name: str, package: str) -> str:
    """Return the path of a program of this machine, or skip."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: {package})")
    return path


def peer_python() -> str:
    """Return the interpreter that has Python's servers, or skip."""
    path = PEERS / "bin" / "python"
    if (PEERS / ".installed").is_file():
        return str(path)
    pytest.skip(f"{PEERS} is not there: `make interop-peers` installs gunicorn, uvicorn, cheroot and aiohttp")


def run(*command: str, seconds: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; what it says is text, more or less."""
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
    )
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


class InteropMesh:
    """An agent, and the Services that tests add to it."""

    def __init__(self, folder: Path) -> None:
        self.cluster = folder / "cluster"
        self.cluster.mkdir()
        self.agent = Agent(self.cluster)
        self._names: dict[str, str] = {}
        until(self.agent.ready)

    def serve(
        self, port: int, protocol: str, annotations: Mapping[str, str] | None = None
    ) -> tuple[str, int]:
        """Add a Service with one endpoint, at a port of 127.0.0.1; return the address that clients use."""
        number = len(self._names) + 1
        name = f"service-{number}"
        ports = [Port(PORT, port, "web")]
        asked = service(
            name,
            ports,
            namespace="interop",
            cluster_ip=f"10.96.7.{number}",
            annotations={**ENABLED, "svc.mesh/protocol": protocol, **(annotations or {})},
        )
        slices = endpoint_slice(name, ports, [Endpoint(LOCALHOST)], namespace="interop")
        self.agent.write(f"{name}.yaml", render(asked, slices))
        address = self.agent.address(f"{name}.interop")
        self._names[address] = name
        return address, PORT

    def at_rest(self, address: str) -> bool:
        """Whether nobody is connected to this address any more."""
        labels = f'{{service="{self._names[address]}",'
        assert self.agent.metric(f"svcmesh_connections_total{labels}"), "nobody ever was"
        return not self.agent.metric(f"svcmesh_connections_active{labels}")

    def close(self) -> None:
        """End the agent; its workers end with it."""
        self.agent.stop()
