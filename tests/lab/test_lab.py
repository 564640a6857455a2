"""The lab itself: what it builds, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hack.kit.processes import ProcessFailed
from hack.kit.waiting import until
from hack.lab.folder import PREFIX, LabFolder
from hack.lab.lab import Lab

OWNER = """
import signal
from hack.lab.folder import PREFIX, LabFolder
from hack.lab.lab import Lab
with Lab(nodes=1, pods=1) as lab:
    lab.pods[0].start(["sleep", "1000"])
    print(lab.node(1)._sandbox.holder, flush=True)
    signal.pause()
"""


@pytest.mark.lab
def test_pods_reach_each_other_across_nodes(lab_possible: None) -> None:
    with Lab(nodes=2, pods=2) as lab:
        here, there = lab.node(1).pods[0], lab.node(2).pods[1]
        there.start_sample("whoami", 8080)
        for client in (here, lab.node(2).pods[0], lab.node(1)):
            answer = json.loads(
                client.run(["curl", "-s", f"http://{there.address}:8080/"], check=True).stdout
            )
            assert (answer["name"], answer["peer"]) == ("n2p2", client.address)


@pytest.mark.lab
def test_a_pod_resolves_by_its_node_and_the_host_does_not(lab: Lab) -> None:
    host = Path("/etc/resolv.conf").read_text()
    assert "nameserver 240.0.0.53" in lab.pods[0].run(["cat", "/etc/resolv.conf"], check=True).stdout
    assert lab.node(1).run(["cat", "/etc/resolv.conf"], check=True).stdout == host
    assert Path("/etc/resolv.conf").read_text() == host


@pytest.mark.lab
def test_signals_reach_the_program(lab: Lab) -> None:
    server = lab.pods[0].start_sample("whoami", 8080)
    server.terminate()
    assert server.wait(20) == 0
    sleeper = lab.pods[0].start(["sleep", "1000"])
    sleeper.kill()
    assert sleeper.wait(20) in (-signal.SIGKILL, 128 + signal.SIGKILL)


@pytest.mark.lab
def test_a_program_that_fails_says_so(lab: Lab) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        lab.pods[0].run(["false"], check=True)
    with pytest.raises(subprocess.TimeoutExpired):
        lab.pods[0].run(["sleep", "1000"], timeout=0.2)
    with pytest.raises(ProcessFailed, match=r"(?s)n1p1: whoami ended .*invalid int value"):
        lab.pods[0].start_sample("whoami", 8080, "--status", "fine")


@pytest.mark.lab
def test_two_labs_at_once(lab: Lab) -> None:
    with Lab(nodes=1, pods=1) as other:
        other.pods[0].start_sample("whoami", 8080)
        refused = lab.pods[0].run(["curl", "-s", f"http://{other.pods[0].address}:8080/"])
        assert lab.pods[0].address == other.pods[0].address
        assert refused.returncode == 7
    assert lab.pods[0].run(["true"]).returncode == 0


@pytest.mark.lab
def test_nothing_stays_after_an_exception(lab_possible: None) -> None:
    lab = Lab(nodes=1, pods=1)
    seen = []

    def fail() -> None:
        with lab:
            seen.append((lab.directory, lab.pods[0].start(["sleep", "1000"])))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    [(directory, sleeper)] = seen
    assert sleeper.returncode is not None
    assert not directory.exists()
    assert "n1p1" not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


@pytest.mark.lab
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_runs_on_when_the_owner_is_killed(lab_possible: None, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as owner:
        assert owner.stdout is not None
        try:
            holder = int(owner.stdout.readline())
            assert Path(f"/proc/{holder}").exists()
            os.kill(owner.pid, number)
            owner.wait(20)
        finally:
            owner.kill()
    until(lambda: not Path(f"/proc/{holder}").exists())


def test_the_folder_of_a_killed_lab_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    abandoned = tmp_path / f"{PREFIX}dead"
    (abandoned / "cluster").mkdir(parents=True)
    first = LabFolder(tmp_path)
    second = LabFolder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([first.path, second.path])
    first.remove()
    assert list(tmp_path.iterdir()) == [second.path]
    second.remove()
