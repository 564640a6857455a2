"""A whole agent as a process, in loopback capture, with real servers behind it. For tests without a loop."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode

from hack.kit import manifests
from hack.kit.manifests import Endpoint, Port, endpoint_slice, render, replace_file
from hack.kit.ports import LOCALHOST, free_port, free_ports, listens
from hack.kit.proc import children
from hack.kit.waiting import until
from tests.ranges import next_range

HTTP = Port(18080, 18080, "http")


class Whoami:
    """A real HTTP server that says its name; `stop` is graceful."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "hack.samples.whoami",
                "--listen",
                f"127.0.0.1:{self.port}",
                "--name",
                name,
            ]
        )
        until(lambda: listens(LOCALHOST, self.port))

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(20) == 0


def service(name: str, annotations: Mapping[str, str]) -> str:
    document = manifests.service(
        name, [HTTP], namespace="shop", cluster_ip="10.96.7.10", annotations=annotations
    )
    return render(document)


def endpoints(name: str, ports: list[int]) -> str:
    """Return slices: one for each endpoint, because each has a port of its own on a laptop."""
    here = [Endpoint(LOCALHOST)]
    slices = [
        endpoint_slice(name, [Port(18080, port, "http")], here, namespace="shop", name=f"{name}-{port}")
        for port in ports
    ]
    return "---\n" + render(*slices)


class Agent:
    """`nodeagent run` on a mesh range of its own; `cluster` is the folder it watches."""

    def __init__(self, cluster: Path, *arguments: str) -> None:
        self.cluster = cluster
        self.range = f"{next_range()}.0.0/16"
        self.dns_port, self.admin_port = free_ports(2)
        self.arguments = arguments
        self.log = cluster.parent / "agent.log"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            error = self.standard_error()
            self.process = subprocess.Popen(
                [
                    *self.prefix(),
                    *(*self.program(), "run", "--source", f"file:{self.cluster}"),
                    *("--capture", "loopback", "--mesh-range", self.range, "--workers", "1"),
                    *("--dns-listen", f"127.0.0.1:{self.dns_port}"),
                    *("--admin-listen", f"127.0.0.1:{self.admin_port}", "--log-format", "json"),
                    *("--drain-timeout", "10s", *self.arguments),
                ],
                stderr=log if error is None else error,
            )
        return self.process

    def standard_error(self) -> int | None:
        """Return the descriptor that the log goes to; None: the file."""
        return None

    def prefix(self) -> list[str]:
        """Return what the agent is started by."""
        return []

    def program(self) -> list[str]:
        """Return the command that is `nodeagent`."""
        return [sys.executable, "-m", "nodeagent"]

    def write(self, name: str, text: str) -> None:
        """Replace a file of the cluster in one step."""
        replace_file(self.cluster / name, text)

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.admin("/readyz")[0] == 200
        except OSError:
            return False

    def admin(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metric(self, series: str) -> float:
        for line in self.admin("/metrics")[1].splitlines():
            if line.startswith(series):
                return float(line.rpartition(" ")[2])
        return 0.0

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return the log lines of these events, oldest first; one that is half written is not there yet."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] in names]

    def resolve(self, name: str, kind: str = "A", zone: str = "svc.mesh") -> tuple[str, list[str]]:
        """Return the response code and the answers."""
        query = dns.message.make_query(f"{name}.{zone}.", kind)
        answer = dns.query.udp(query, "127.0.0.1", port=self.dns_port, timeout=5)
        texts = [item.to_text() for rrset in answer.answer for item in rrset]
        return dns.rcode.to_text(answer.rcode()), texts

    def address(self, name: str, zone: str = "svc.mesh") -> str:
        """Wait until the name resolves, and return its address."""
        return str(until(lambda: self.resolve(name, zone=zone)[1])[0])

    def connect(self, name: str = "web.shop", port: int = 18080) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address(name), port, timeout=20)

    def ask(self, name: str = "web.shop", port: int = 18080) -> dict[str, Any]:
        """Send one request on a connection of its own; return the JSON that whoami answers."""
        connection = self.connect(name, port)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            answer: dict[str, Any] = json.loads(body)
            return answer
        finally:
            connection.close()

    def workers(self) -> list[int]:
        """Return the processes of this agent's workers."""
        return children(self.process.pid)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def load(agent: Agent, connections: int = 8) -> Iterator[dict[str, int]]:
    """Keep requests coming over keep-alive connections; the dict counts `ok` and `failed` at the end."""
    outcome = {"ok": 0, "failed": 0}
    stop = threading.Event()
    lock = threading.Lock()
    address = agent.address("web.shop")

    def run() -> None:
        connection = http.client.HTTPConnection(address, 18080, timeout=20)
        while not stop.is_set():
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                response.read()
                good = response.status == 200
            except (OSError, http.client.HTTPException):
                good = False
                connection.close()
            with lock:
                outcome["ok" if good else "failed"] += 1
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield outcome
    finally:
        stop.set()
        for thread in threads:
            thread.join()
