"""The running demo: the shop's servers, their YAML and the agent, from `open` to `close`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hack.demo.exchange import fetch
from hack.demo.manifests import Target, render_manifest, replace_file
from hack.demo.ports import choose_port, claim_block
from hack.demo.processes import Child
from hack.demo.shop import SHOP, Offer
from hack.kit.ports import free_port
from nodeagent.capture.loopback import first_bindable_port
from nodeagent.cli.flags import ADMIN_PORT, LAPTOP_DNS_PORT, LOCALHOST
from nodeagent.settings import LOW_PORT_SHIFT

PROGRAMS = {"http": "hack.samples.whoami", "tcp": "hack.samples.echo"}
START_TIME = 20.0
DRAIN_TIME = 5
"""Seconds that open connections get when the demo ends."""
WORKERS = 2


class StageError(Exception):
    """The demo cannot run; the message says why."""


class Server(msgspec.Struct, frozen=True):
    """A running sample server."""

    child: Child
    address: str
    port: int

    @property
    def name(self) -> str:
        """What it calls itself, as a pod does: `web-1`."""
        return self.child.name

    @property
    def target(self) -> Target:
        """It as an endpoint."""
        return Target(self.name, self.address)


class Stall:
    """A Service of the shop with what is chosen for it on this machine, and its servers."""

    def __init__(self, offer: Offer, block: int) -> None:
        self.offer = offer
        self.block = block
        self.servers: list[Server] = []
        self.port = _service_port(offer, block)
        self.target_port = free_port()

    def manifest(
        self, annotations: Mapping[str, str] | None = None, targets: Sequence[Target] | None = None
    ) -> str:
        """Return its YAML: as the shop wants it, or with other annotations or endpoints."""
        return render_manifest(
            self.offer,
            self.block,
            self.port,
            self.target_port,
            self.offer.annotations if annotations is None else annotations,
            [server.target for server in self.servers] if targets is None else targets,
        )


def _service_port(offer: Offer, block: int) -> int:
    """Return the port to give the Service, so that it can be listened on at its mesh address."""
    shift = LOW_PORT_SHIFT if offer.port < first_bindable_port() else 0
    mesh_address = offer.cluster_ip(block).replace("10.", "127.", 1)
    return choose_port(mesh_address, offer.port + shift) - shift


class Stage:
    """The demo while it runs. `agent_log` takes the agent's log instead of this process's standard error."""

    def __init__(self, folder: str, agent_log: str | None = None) -> None:
        self._folder = folder
        self._agent_log = agent_log
        self._claim: socket.socket | None = None
        self.directory = Path()
        self.notes: list[str] = []
        """What differs from the usual setup, for the person."""
        self.stalls: dict[str, Stall] = {}
        self.agent: Child | None = None
        self.dns_port = 0
        self.admin_port = 0

    @property
    def cluster(self) -> Path:
        """The folder of YAML."""
        return self.directory / "cluster"

    @property
    def children(self) -> list[Child]:
        """Every process that was started."""
        servers = [server.child for stall in self.stalls.values() for server in stall.servers]
        return [*([self.agent] if self.agent else []), *servers]

    async def open(self) -> None:
        """Start everything and wait until the agent is ready.

        Raises:
            StageError: a process ended, or was not ready in time.
            NothingFree: this machine has no port left.
        """
        block = self._claim_directory()
        self.dns_port = self._choose("DNS", LAPTOP_DNS_PORT, block)
        self.admin_port = self._choose("the admin page", ADMIN_PORT, block)
        for offer in SHOP:
            stall = self.stalls[offer.name] = Stall(offer, block)
            if stall.port != offer.port:
                self.notes.append(f"{offer.name} is at port {stall.port}, because {offer.port} is taken")
        await asyncio.gather(
            *(
                self.start_server(stall, number)
                for stall in self.stalls.values()
                for number in range(1, stall.offer.servers + 1)
            )
        )
        for stall in self.stalls.values():
            stall.servers.sort(key=lambda server: server.name)
            self.write(stall.offer.name)
        await self._start_agent()

    async def close(self) -> list[str]:
        """End every process and remove every file; return what did not end as it should."""
        awry = []
        if self.agent is not None and not await self.agent.stop(DRAIN_TIME + 5):
            awry.append("the agent did not end by itself")
        servers = [server for stall in self.stalls.values() for server in stall.servers]
        await asyncio.gather(*(server.child.stop(3) for server in servers))
        if self._claim is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.directory.parent.rmdir()  # if it was made for this
            self._claim.close()
        return awry

    async def start_server(self, stall: Stall, number: int) -> Server:
        """Start one more server of a Service and wait until it listens; its YAML is not touched."""
        offer = stall.offer
        name, address = f"{offer.name}-{number}", offer.server_address(number)
        command = [
            sys.executable,
            "-m",
            PROGRAMS[offer.protocol],
            "--listen",
            f"{address}:{stall.target_port}",
        ]
        command += ["--name", name, *(["--banner"] if offer.protocol == "tcp" else [])]
        log = self.directory / f"{name}.log"
        server = Server(await Child.start(name, command, log), address, stall.target_port)
        stall.servers.append(server)
        await self._until(lambda: _listens(address, stall.target_port), server.child, log)
        return server

    def write(
        self,
        name: str,
        annotations: Mapping[str, str] | None = None,
        targets: Sequence[Target] | None = None,
    ) -> None:
        """Write the YAML of a Service, with other annotations or endpoints if given."""
        replace_file(self.cluster / f"{name}.yaml", self.stalls[name].manifest(annotations, targets))

    async def read_admin(self, path: str) -> str:
        """Return a page of the agent's admin server."""
        return (await fetch(LOCALHOST, self.admin_port, path)).body.decode()

    async def plan(self) -> dict[str, Any]:
        """Return what the agent does now."""
        plan: dict[str, Any] = json.loads(await self.read_admin("/plan"))
        return plan

    def _claim_directory(self) -> int:
        block, self._claim = claim_block()
        self.directory = Path("build") / (f"{self._folder}-{block + 1}" if block else self._folder)
        shutil.rmtree(
            self.directory, ignore_errors=True
        )  # left by one that was killed: no other process has our number
        self.cluster.mkdir(parents=True)
        return block

    def _choose(self, what: str, preferred: int, block: int) -> int:
        # Demos that start at the same moment see the same ports free: each tries others.
        port = choose_port(LOCALHOST, preferred + block)
        if port != preferred:
            self.notes.append(f"{what} is at port {port}, because {preferred} is taken")
        return port

    async def _start_agent(self) -> None:
        command = [sys.executable, "-m", "nodeagent", "run", "--source", f"file:{self.cluster}"]
        command += ["--capture", "loopback", "--workers", str(WORKERS)]
        command += ["--dns-listen", f"{LOCALHOST}:{self.dns_port}"]
        command += ["--admin-listen", f"{LOCALHOST}:{self.admin_port}", "--drain-timeout", f"{DRAIN_TIME}s"]
        command += ["--log-format", "console", "--access-log", "all"]
        log = self.directory / self._agent_log if self._agent_log else None
        self.agent = await Child.start("agent", command, log)
        await self._until(self._ready, self.agent, log)

    async def _ready(self) -> bool:
        try:
            return (await fetch(LOCALHOST, self.admin_port, "/readyz")).status == 200
        except OSError:
            return False

    async def _until(self, condition: Callable[[], Awaitable[bool]], child: Child, log: Path | None) -> None:
        """Wait until the condition holds while the process lives."""
        try:
            async with asyncio.timeout(START_TIME):
                while not await condition():
                    if child.ended:
                        raise StageError(f"{child.name} ended: {await child.wait()}{_tail(log)}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise StageError(f"{child.name} was not ready in {START_TIME:g} s{_tail(log)}") from None


async def _listens(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    return True


def _tail(log: Path | None, lines: int = 15) -> str:
    if log is None or not log.exists():
        return ""
    return "\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
