"""Fixtures: real servers, and an agent that serves them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.kit.manifests import ENABLED
from hack.kit.waiting import until
from tests.agent.harness import Agent, Whoami, endpoints, service


@pytest.fixture
def start_whoami() -> Iterator[Callable[[str], Whoami]]:
    servers: list[Whoami] = []

    def start(name: str) -> Whoami:
        servers.append(Whoami(name))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


@pytest.fixture
def agent(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> Iterator[Agent]:
    """An agent that serves `shop/web` with two endpoints named `a` and `b`."""
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    ports = [start_whoami(name).port for name in ("a", "b")]
    (cluster / "web.yaml").write_text(service("web", ENABLED) + endpoints("web", ports))
    agent = Agent(cluster)
    workers: list[int] = []
    try:
        until(agent.ready)
        workers = agent.workers()
        yield agent
    finally:
        agent.stop()
        for pid in workers:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
