"""A worker whose memory fills with requests that are held: it refuses new ones, and recovers."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.kit.manifests import ENABLED
from hack.kit.waiting import until
from tests.agent.harness import Agent, Whoami, endpoints, service

MIB = 1024 * 1024
BUDGET = 96 * MIB
PIECE = b"x" * 60 * 1024
"""Of each upload, which the worker keeps so that it could send the request again."""
UPLOAD = b"PUT / HTTP/1.1\r\nHost: slow.shop\r\nContent-Length: 1000000\r\n\r\n" + PIECE
MOST = 3000
"""Uploads; a third of them is more than the worker may hold."""
GROUP = 50


@pytest.fixture
def _descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def slow() -> Iterator[socket.socket]:
    """An endpoint whose kernel takes connections and what is sent on them, and which never looks."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        yield listening


@pytest.fixture
def crowded(tmp_path: Path, slow: socket.socket, start_whoami: Callable[[str], Whoami]) -> Iterator[Agent]:
    """An agent with `shop/slow` and `shop/web`, whose worker may take little memory."""
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    (cluster / "web.yaml").write_text(service("web", ENABLED) + endpoints("web", [start_whoami("a").port]))
    (cluster / "slow.yaml").write_text(
        service("slow", ENABLED).replace("10.96.7.10", "10.96.7.11")
        + endpoints("slow", [slow.getsockname()[1]])
    )
    agent = Agent(cluster, "--worker-memory", "96Mi")
    try:
        until(agent.ready)
        yield agent
    finally:
        status = agent.stop()
    assert status == 0


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Uploads:
    """Clients that each send a piece of a body, and then nothing more."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.address = agent.address("slow.shop")
        self.sockets: list[socket.socket] = []

    def begin(self, number: int) -> None:
        for _ in range(number):
            one = socket.create_connection((self.address, 18080))
            self.sockets.append(one)
            with contextlib.suppress(ConnectionError):  # it may be refused before all is sent
                one.sendall(UPLOAD)

    def leave(self) -> None:
        for one in self.sockets:
            one.close()

    def arrived(self) -> bool:
        """Whether the worker has them all, as it has counted a moment ago."""
        return self.agent.metric("svcmesh_worker_client_connections") >= len(self.sockets)

    def refused(self) -> int:
        return int(self.agent.metric("svcmesh_requests_shed_total"))


def status(agent: Agent) -> tuple[int, str]:
    connection = agent.connect("web.shop")
    connection.request("GET", "/")
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, response.getheader("Proxy-Status", "")


@pytest.mark.usefixtures("_descriptors")
def test_uploads_that_fill_the_memory(crowded: Agent) -> None:
    agent, uploads = crowded, Uploads(crowded)
    assert status(agent)[0] == 200
    (worker,) = agent.workers()
    while not agent.events("worker_shedding"):
        assert len(uploads.sockets) < MOST
        uploads.begin(GROUP)
        until(lambda: uploads.arrived() or uploads.refused())
    code, why = status(agent)
    assert (code, "worker_overloaded" in why) == (503, True), "a request of another client, at once"
    full = resident(worker)
    before = uploads.refused()
    uploads.begin(500)
    until(lambda: uploads.refused() >= before + 500)
    assert resident(worker) < full + 16 * MIB
    assert resident(worker) < BUDGET
    assert agent.metric('svcmesh_worker_shedding{worker="0"}') == 1
    uploads.leave()
    until(lambda: status(agent)[0] == 200)
    assert len(agent.events("worker_shedding")) == 1
    (ended,) = until(lambda: agent.events("worker_shedding_ended"))
    assert ended["refused"] >= 501
    assert not agent.events("source_broken_off")
    assert agent.workers() == [worker]
