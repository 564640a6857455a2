"""The environment of a soak: the agent, its folder of YAML, good endpoints (pods) and bad ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hack.demo.exchange import fetch
from hack.kit.admin import is_ready
from hack.kit.manifests import Endpoint, Port, endpoint_slice, render, replace_file, service
from hack.kit.ports import LOCALHOST, claim_number, free_ports, listens
from hack.kit.processes import Process, wait_until
from hack.kit.waiting import until_async
from hack.soak.services import BY_NAME, NAMESPACE, PODS, PORT, SERVICES, Annotations, Bad, SoakService, Speaks

WORKERS = 2
DRAIN_TIME = 5
POD_GRACE = 30.0
"""Seconds that a pod that was told to leave may take: a little more than it gives its own requests."""
BLOCKS = 25
"""Soaks that may run at the same time. Each has addresses of its own, for the mesh and for endpoints: two
agents with the same ones would share the connections."""
FIRST_MESH = 228
"""Mesh addresses are 127.228.0.0/16 and up, above those of the benchmark."""
_BAD_HOSTS: Mapping[Bad, int] = {"refuse": 1, "reset": 2, "stall": 3}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Pod:
    """A good endpoint of every Service: processes for HTTP/1, for HTTP/2 and for TCP, at one address."""

    def __init__(self, number: int, address: str, *processes: Process) -> None:
        self.number = number
        self.address = address
        self.processes = processes
        self.leaving = False
        """Listed as terminating, so that it gets nothing new."""

    @property
    def endpoint(self) -> Endpoint:
        """It as an endpoint."""
        leaving = self.leaving
        return Endpoint(self.address, f"pod-{self.number}", ready=not leaving, terminating=leaving)


class Files(msgspec.Struct):
    """What the folder of YAML says now."""

    annotations: dict[str, Annotations]
    bad: dict[str, tuple[Bad, ...]]
    pods: list[Pod]


class Stage:
    """Everything that runs, from `open` to `close`. Its files are in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._block, self._claim = claim_number("svcmesh-soak", BLOCKS)
        self.directory = directory
        self.cluster = directory / "cluster"
        self.agent_log = directory / "agent.log"
        self.served = directory / "served.log"
        """Where endpoints write down which requests they have had."""
        self.files = Files({one.name: one.annotations for one in SERVICES}, {}, [])
        self.agent: Process | None = None
        self.dns_port, self._admin_port, *ports = free_ports(2 + len(SERVICES))
        self._ports = {one.name: port for one, port in zip(SERVICES, ports, strict=True)}
        self._pods = 0
        self._leaving: set[Process] = set()
        self._bad_servers: list[asyncio.Server] = []
        self._held: set[asyncio.StreamWriter] = set()
        """Connections to bad endpoints."""

    async def open(self, pods: int) -> None:
        """Start everything and wait until the agent serves it."""
        self.cluster.mkdir(parents=True)
        for one in SERVICES:
            for kind in one.bad:
                if kind != "refuse":
                    await self._serve_badly(kind, self._ports[one.name])
        self.files.pods += await asyncio.gather(*(self.start_pod() for _ in range(pods)))
        for one in SERVICES:
            self.write(one.name)
        command = [sys.executable, "-m", "nodeagent", "run", "--source", f"file:{self.cluster}"]
        command += ["--capture", "loopback", "--mesh-range", self._mesh_range, "--workers", str(WORKERS)]
        command += ["--dns-listen", f"{LOCALHOST}:{self.dns_port}", "--drain-timeout", f"{DRAIN_TIME}s"]
        command += ["--admin-listen", f"{LOCALHOST}:{self._admin_port}", "--log-format", "json"]
        self.agent = self._start("agent", command, self.agent_log)
        wait_until(lambda: is_ready(self._admin_port), self.agent)

    async def close(self) -> list[str]:
        """End everything; return what did not end as it should."""
        self.close_bad()
        awry = []
        agent, self.agent = self.agent, None
        if agent is not None and not await asyncio.to_thread(agent.stop, DRAIN_TIME + 10.0):
            awry.append(f"the agent did not end by itself: {agent.ending}")
        await self.stop_pods()
        self._claim.close()
        return awry

    def close_bad(self) -> None:
        """End the bad endpoints, and all connections to them."""
        for server in self._bad_servers:
            server.close()
        for writer in list(self._held):
            break_off(writer)

    async def stop_pods(self) -> None:
        """End all pods, those too that are about to leave."""
        pods, self.files.pods = self.files.pods, []
        processes = [*(process for pod in pods for process in pod.processes), *self._leaving]
        await asyncio.gather(*(asyncio.to_thread(process.stop, 3.0) for process in processes))

    def kill(self) -> None:
        """End everything at once, without an order: the last resort."""
        pods = [process for pod in self.files.pods for process in pod.processes]
        for process in (*pods, *self._leaving, *([self.agent] if self.agent else [])):
            process.stop(0)
        self._claim.close()

    async def start_pod(self) -> Pod:
        """Start one more pod and wait until it listens; no file is touched."""
        self._pods += 1
        number = self._pods
        address = f"127.{1 + self._block}.{1 + number // 250 % 250}.{number % 250 + 1}"
        web, http2, grpc = (self._ports_of(protocol) for protocol in ("http", "http2", "grpc"))
        (tcp,) = self._ports_of("tcp")
        name = f"pod-{number}"
        http_command = [sys.executable, "-m", "hack.soak.pod", "--address", address, "--name", name]
        http_command += ["--ports", _listed(web)]
        tcp_command = [sys.executable, "-m", "hack.samples.echo", "--listen", f"{address}:{tcp}"]
        tcp_command += ["--name", name, "--banner"]
        http2_command = [sys.executable, "-m", "hack.soak.pod2", "--address", address, "--name", name]
        http2_command += ["--http2", _listed(http2), "--grpc", _listed(grpc), "--served", str(self.served)]
        pod = Pod(
            number,
            address,
            self._start(name, http_command, self.directory / "pods.log"),
            self._start(f"{name}-http2", http2_command, self.directory / "pods.log"),
            self._start(f"{name}-tcp", tcp_command, self.directory / "echo.log"),
        )
        self._leaving.update(pod.processes)  # so that it is ended, should this be broken off

        def up() -> bool:
            for process in pod.processes:
                process.check()
            return all(listens(address, port) for port in (*web, *http2, *grpc, tcp))

        await until_async(up, 30.0, 0.05)
        self._leaving.difference_update(pod.processes)
        return pod

    async def dismiss(self, pod: Pod) -> None:
        """Tell a pod that gets nothing new any more to leave, and wait until it has."""
        self._leaving.update(pod.processes)
        await asyncio.gather(*(asyncio.to_thread(process.stop, POD_GRACE) for process in pod.processes))
        self._leaving.difference_update(pod.processes)

    def _ports_of(self, protocol: Speaks) -> list[int]:
        return [self._ports[one.name] for one in SERVICES if one.protocol == protocol]

    def target_port(self, name: str) -> int:
        """Return the port of a Service's endpoints."""
        return self._ports[name]

    def mesh_address(self, name: str) -> str:
        """Return the mesh address of a Service."""
        return f"127.{FIRST_MESH + self._block}.4.{BY_NAME[name].number}"

    @property
    def _mesh_range(self) -> str:
        return f"127.{FIRST_MESH + self._block}.0.0/16"

    def _bad_address(self, kind: Bad) -> str:
        return f"127.{1 + self._block}.0.{_BAD_HOSTS[kind]}"

    def _start(self, name: str, command: list[str], log: Path) -> Process:
        """Start a process; while it lives, no other soak gets the addresses of this one."""
        return Process(name, command, log, pass_fds=(self._claim.fileno(),))

    def manifest(self, name: str) -> str:
        """Return the YAML of a Service as it is to be now."""
        one: SoakService = BY_NAME[name]
        ports = [Port(PORT, self._ports[name], one.port_name)]
        endpoints = [pod.endpoint for pod in self.files.pods]
        places = ",".join(f"{pod.address}:{self._ports[name]}" for pod in self.files.pods if not pod.leaving)
        annotations = {
            annotation: places if value == PODS else value
            for annotation, value in self.files.annotations[name].items()
        }
        endpoints += [Endpoint(self._bad_address(kind), kind) for kind in self.files.bad.get(name, ())]
        return render(
            service(
                name,
                ports,
                namespace=NAMESPACE,
                cluster_ip=one.cluster_ip,
                annotations=annotations,
                selector={"app": "soak"},
            ),
            endpoint_slice(name, ports, endpoints, namespace=NAMESPACE),
        )

    def path(self, name: str) -> Path:
        """Return the file of a Service."""
        return self.cluster / f"{name}.yaml"

    def write(self, name: str) -> None:
        """Write the file of a Service."""
        replace_file(self.path(name), self.manifest(name))

    async def read_admin(self, path: str) -> str:
        """Return a page of the agent's admin server."""
        return (await fetch(LOCALHOST, self._admin_port, path)).body.decode()

    async def plan(self) -> dict[str, Any]:
        """Return what the agent does now."""
        plan: dict[str, Any] = json.loads(await self.read_admin("/plan"))
        return plan

    async def _serve_badly(self, kind: Bad, port: int) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._held.add(writer)
            try:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    if kind == "reset":
                        await reader.readuntil(b"\r\n\r\n")
                    while kind == "stall" and await reader.read(65536):
                        pass
            finally:
                self._held.discard(writer)
                break_off(writer)

        self._bad_servers.append(await asyncio.start_server(serve, self._bad_address(kind), port))


def _listed(ports: Iterable[int]) -> str:
    return ",".join(map(str, ports))


def break_off(writer: asyncio.StreamWriter) -> None:
    """Close with a reset."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
