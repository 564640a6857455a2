"""Process 1 of a container: what it does about an agent that ends, and a real one in a PID namespace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.kit.manifests import ENABLED
from hack.kit.proc import children
from hack.kit.waiting import until
from nodeagent.init import DEATHS, SETTLED, WINDOW, Death, starts_anew
from tests.agent.harness import Agent, Whoami, endpoints, load, service

KILLED = int(signal.SIGKILL)
FAILED = 1 << 8


@pytest.mark.parametrize(
    ("status", "lived", "anew"),
    [
        (KILLED, 0.1, True),
        (KILLED, 1000.0, True),
        (FAILED, SETTLED, True),
        (FAILED, SETTLED - 1, False),  # a wrong flag, say: the same would happen again
        (0, 1000.0, False),
    ],
)
def test_only_what_died_is_started_anew(status: int, lived: float, anew: bool) -> None:
    assert starts_anew(Death(status, lived), [], 100.0, leaving=False) is anew
    assert not starts_anew(Death(status, lived), [], 100.0, leaving=True)


def test_an_agent_that_dies_again_and_again_is_left_to_the_kubelet() -> None:
    death = Death(KILLED, 1.0)
    before = [100.0 + number for number in range(DEATHS - 1)]
    assert starts_anew(death, before[:-1], before[-1], leaving=False)
    assert not starts_anew(death, before, before[-1] + 1, leaving=False)
    assert starts_anew(death, before, before[0] + WINDOW, leaving=False)


def test_what_is_said_of_a_death() -> None:
    assert (Death(KILLED, 1.0).reason, Death(KILLED, 1.0).exit_code) == ("killed by SIGKILL", 137)
    assert (Death(3 << 8, 1.0).reason, Death(3 << 8, 1.0).exit_code) == ("exit status 3", 3)
    assert Death(KILLED, 1.0, hung=True).reason == "hung: no sign of life for 20s"


KEEP = """
import os, signal, sys
from nodeagent.init import keep
def agent(kept):
    print("started", os.getpid(), kept.died, flush=True)
    if kept.died:
        os._exit(0)
    BEFORE
    os.write(kept.pulse, b".")
    HANG
sys.exit(keep(agent, hung=2))
"""


@pytest.mark.parametrize("hang", ["signal.pause()", "os.kill(os.getpid(), signal.SIGSTOP)"])
def test_an_agent_without_a_pulse_is_killed_and_followed_by_another(hang: str) -> None:
    script = KEEP.replace("HANG", hang).replace("BEFORE", "")
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    first, second = done.stdout.splitlines()
    assert second.endswith("hung: no sign of life for 20s")
    assert first.split()[1] != second.split()[1]


def test_an_agent_that_has_had_no_pulse_yet_is_given_its_time() -> None:
    script = KEEP.replace("BEFORE", "signal.sigtimedwait([], 4); os._exit(7)").replace("HANG", "")
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert (done.returncode, len(done.stdout.splitlines())) == (7, 1)


def unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a PID namespace: root, or user namespaces")
    return command


class Container(Agent):
    """An agent whose command line is process 1 of a PID namespace."""

    def prefix(self) -> list[str]:
        return unshare()

    def first(self) -> int:
        """Process 1, by its number outside."""
        return int(until(lambda: children(self.process.pid))[0])

    def agent(self) -> int:
        """The agent that it started last."""
        return int(until(lambda: [pid for pid in children(self.first()) if not is_worker(pid)])[-1])


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def is_worker(pid: int) -> bool:
    return b"nodeagent.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture
def container(tmp_path: Path, start_whoami: Callable[[str], Whoami]) -> Iterator[Container]:
    cluster = tmp_path / "cluster"
    cluster.mkdir()
    (cluster / "web.yaml").write_text(service("web", ENABLED) + endpoints("web", [start_whoami("a").port]))
    container = Container(cluster)
    until(container.ready)
    yield container
    if container.process.poll() is None:
        os.kill(container.first(), signal.SIGTERM)
        assert container.process.wait(20) == 0


def test_an_agent_that_is_killed_is_followed_by_another_and_no_request_fails(container: Container) -> None:
    first, agent = container.first(), container.agent()
    (worker,) = children(agent)
    with load(container, connections=2) as outcome:
        os.kill(agent, signal.SIGKILL)
        until(lambda: container.events("agent_died"))
        assert is_worker(worker)
        until(lambda: len(container.events("agent_ready")) == 2)
        until(lambda: not Path(f"/proc/{worker}").exists())
    assert (outcome["failed"], outcome["ok"] > 0) == (0, True)
    assert container.events("agent_died")[0]["reason"] == "killed by SIGKILL"
    assert container.first() == first
    assert container.agent() != agent


def test_an_agent_that_is_stopped_is_followed_by_another_and_no_request_fails(container: Container) -> None:
    agent = container.agent()
    with load(container, connections=2) as outcome:
        os.kill(agent, signal.SIGSTOP)
        until(lambda: container.events("agent_died"), seconds=60)
        until(lambda: len(container.events("agent_ready")) == 2)
    assert (outcome["failed"], outcome["ok"] > 0) == (0, True)
    assert container.events("agent_died")[0]["reason"].startswith("hung")


def test_an_orphaned_worker_leaves_when_it_is_told_to(container: Container) -> None:
    """The agent that would tell it is stopped, so nobody else does."""
    (worker,) = children(container.agent())
    os.kill(worker, signal.SIGTERM)
    assert container.ask()["name"] == "a", "while it has an agent it obeys nobody else"
    first, agent = container.first(), container.agent()
    os.kill(first, signal.SIGSTOP)
    os.kill(agent, signal.SIGKILL)
    until(lambda: container.events("agent_lost"))
    os.kill(worker, signal.SIGTERM)
    until(lambda: container.events("worker_draining"))
    until(lambda: is_zombie(worker))
    os.kill(first, signal.SIGCONT)
    until(lambda: len(container.events("agent_ready")) == 2)


def test_sigterm_reaches_the_agent_and_ends_all(container: Container) -> None:
    first = container.first()
    os.kill(first, signal.SIGTERM)
    assert container.process.wait(20) == 0
    assert container.events("agent_stopped")
    assert not container.events("agent_died")


def test_an_agent_that_cannot_start_is_not_tried_again() -> None:
    command = [*unshare(), sys.executable, "-m", "nodeagent", "run", "--source", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("nonsense") == 1
