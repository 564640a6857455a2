"""Our own agent as it is measured: loopback capture, one worker, metrics on, a folder of YAML as source."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hack.bench.processes import ProcessGroup
from hack.kit.admin import is_ready
from hack.kit.manifests import ENABLED, Endpoint, Port, endpoint_slice, render, service
from hack.kit.ports import LOCALHOST, free_port
from hack.kit.processes import Process, wait_until
from nodeagent.plan.addresses import format_ipv4, parse_ipv4

# Of this run alone: agents on one range would share its ports, and the load.
MESH_RANGE = f"127.{128 + os.getpid() % 100}.0.0/16"
PORT = 18080
NAMESPACE = "bench"
ZONE = "svc.mesh"


class Spec(msgspec.Struct, frozen=True):
    """A Service as it will be written; `number` makes its addresses and is unique in a folder."""

    name: str
    number: int
    endpoints: tuple[str, ...]
    target_port: int
    protocol: str = "http"
    annotations: Mapping[str, str] = {}

    @property
    def address(self) -> str:
        """Its mesh address: the range's prefix and the low bits of its ClusterIP."""
        offset = self.number + 1024
        return format_ipv4((parse_ipv4(MESH_RANGE.partition("/")[0]) or 0) + offset)

    def render(self) -> str:
        """Return its YAML: the Service and one EndpointSlice."""
        ports = [Port(PORT, self.target_port, self.protocol)]
        asked = service(
            self.name,
            ports,
            namespace=NAMESPACE,
            cluster_ip=format_ipv4((parse_ipv4("10.96.0.0") or 0) + self.number + 1024),
            annotations={**ENABLED, **self.annotations},
            selector={"app": self.name},
        )
        endpoints = [
            Endpoint(address, pod=f"{self.name}-{number}", node=f"node-{number % 3}")
            for number, address in enumerate(self.endpoints)
        ]
        return render(asked, endpoint_slice(self.name, ports, endpoints, namespace=NAMESPACE))


def many_specs(count: int) -> list[Spec]:
    """Return `count` Services with ten endpoints each that nobody listens at."""
    return [
        Spec(
            f"service-{number:04}",
            number,
            tuple(format_ipv4((10 << 24) + (244 << 16) + number * 10 + n + 1) for n in range(10)),
            8080,
        )
        for number in range(count)
    ]


def write_folder(folder: Path, specs: Sequence[Spec]) -> None:
    """Write one file for each Service."""
    folder.mkdir()
    for spec in specs:
        (folder / f"{spec.name}.yaml").write_text(spec.render())


class Agent:
    """A running agent and what it listens on.

    `compiled` is a directory for Python's byte code: a container image contains it, so the time and memory of
    a start must not include compiling. `options` are further ones of `nodeagent run`.
    """

    def __init__(
        self,
        group: ProcessGroup,
        folder: Path,
        core: int,
        name: str = "agent",
        compiled: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.dns_port = free_port()
        self.admin_port = free_port()
        self.command = [sys.executable, "-m", "nodeagent", "run", "--source", f"file:{folder}"]
        self.command += ["--capture", "loopback", "--mesh-range", MESH_RANGE, "--workers", "1"]
        self.command += ["--dns-listen", f"{LOCALHOST}:{self.dns_port}", "--drain-timeout", "1s"]
        self.command += ["--admin-listen", f"{LOCALHOST}:{self.admin_port}", "--log-format", "json", *options]
        environment = None
        if compiled is not None:
            environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled)}
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.process: Process = group.start(name, self.command, core, environment)

    def wait_ready(self) -> None:
        """Wait until `/readyz` answers 200."""
        wait_until(lambda: is_ready(self.admin_port), self.process)
