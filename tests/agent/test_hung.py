"""Workers that stop without dying, and a log that nobody reads: neither stops the mesh."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.kit.manifests import ENABLED
from hack.kit.waiting import until
from tests.agent.harness import Agent, Whoami, endpoints, service

BAD_REQUESTS = 1500
"""Each makes a line of more than 200 bytes: together several times what a pipe holds."""


def test_a_stopped_worker_is_replaced(agent: Agent) -> None:
    agent.ask()
    (worker,) = agent.workers()
    os.kill(worker, signal.SIGSTOP)
    until(lambda: not agent.ready())
    assert "[-] workers" in agent.admin("/readyz?verbose")[1]
    assert "workers: 0 of 1 serve" in agent.admin("/readyz?verbose")[1]
    until(lambda: not Path(f"/proc/{worker}").exists())
    until(agent.ready)
    assert agent.ask()["name"] in "ab"
    assert agent.events("worker_hung")[0]["pid"] == worker
    assert agent.events("worker_died")[0]["reason"] == "killed by SIGKILL"
    assert "workers: 1 of 1 serve" in agent.admin("/readyz?verbose")[1]
    assert agent.metric("svcmesh_ready ") == 1


@pytest.fixture
def cluster(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> Path:
    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "web.yaml").write_text(service("web", ENABLED) + endpoints("web", [start_whoami("a").port]))
    return folder


@pytest.fixture
def two_workers(cluster: Path) -> Iterator[Agent]:
    agent = Agent(cluster, "--workers", "2")
    try:
        until(agent.ready)
        yield agent
    finally:
        status = agent.stop()
    assert status == 0


def test_changes_do_not_wait_again_and_again_for_a_worker_that_is_behind(two_workers: Agent) -> None:
    agent = two_workers
    os.kill(agent.workers()[0], signal.SIGSTOP)
    text = (agent.cluster / "web.yaml").read_text()
    for retries in ("1", "2", "3"):
        agent.write(
            "web.yaml",
            text.replace("svc.mesh/enabled", f'svc.mesh/retry-attempts: "{retries}"\n    svc.mesh/enabled'),
        )
        until(lambda retries=retries: f'"svc.mesh/retry-attempts": "{retries}"' in agent.admin("/plan")[1])  # type: ignore[misc]
    # One of them waits for it, until it is given up or replaced; none waits after another.
    assert len(agent.events("worker_slow")) <= 1
    until(lambda: agent.events("worker_hung"))


class Unread(Agent):
    """An agent whose standard error is a small pipe that nobody reads."""

    def __init__(self, cluster: Path) -> None:
        self._reader, self._writer = os.pipe()
        fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, 4096)
        super().__init__(cluster)
        os.close(self._writer)

    def standard_error(self) -> int:
        return self._writer

    def hang_up(self) -> None:
        """Close the reading end: writing fails from now on."""
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1


@pytest.fixture
def unread(cluster: Path) -> Iterator[Unread]:
    agent = Unread(cluster)
    try:
        until(agent.ready)
        yield agent
    finally:
        status = agent.stop()
        agent.hang_up()
    assert status == 0


class Closed(Agent):
    """An agent that is started with standard input, output and error closed."""

    def prefix(self) -> list[str]:
        return ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh"]


def test_closed_standard_files_are_never_somebody_elses(cluster: Path) -> None:
    agent = Closed(cluster)
    try:
        until(agent.ready)
        for process in (agent.process.pid, *agent.workers()):
            files = [os.readlink(f"/proc/{process}/fd/{number}") for number in (0, 1, 2)]
            assert set(files) == {os.devnull}
        assert agent.ask()["name"] == "a"
    finally:
        status = agent.stop()
    assert status == 0


def send_bad_requests(agent: Agent) -> None:
    """Send malformed requests, each answered with 400 and, within the budget, logged."""
    address = (agent.address("web.shop"), 18080)
    for _ in range(BAD_REQUESTS):
        with socket.create_connection(address, timeout=20) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost : space\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 400")


def test_a_log_that_nobody_reads_stops_nothing(unread: Unread) -> None:
    send_bad_requests(unread)
    assert unread.ask()["name"] == "a"
    for number in range(200):
        unread.write("noise.yaml", service(f"noise-{number}", {"svc.mesh/enabled": "x" * 200}))
        until(lambda name=f"noise-{number}": name in unread.admin("/plan")[1])  # type: ignore[misc]
    assert unread.ask()["name"] == "a"


def test_a_closed_log_stops_nothing_and_what_is_lost_is_counted(unread: Unread) -> None:
    unread.hang_up()
    send_bad_requests(unread)
    assert unread.ask()["name"] == "a"
    until(lambda: unread.metric('svcmesh_log_lines_lost_total{process="workers"}') > 10)
    unread.write("noise.yaml", service("noise", {"svc.mesh/enabled": "x"}))
    until(lambda: unread.metric('svcmesh_log_lines_lost_total{process="agent"}') > 0)
