"""`make smoke` and `make demo`, as a person runs them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hack.kit.proc import children, family, lives

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "hack.demo"]
READY = "Ctrl-C ends the demo"
GENEROUS = 90.0


class Demo:
    """The interactive demo, ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.guide = ""
        for line in process.stdout:
            self.guide += line
            if READY in line:
                break
        assert READY in self.guide, self.guide
        self.processes = set(family(process.pid)[1:])
        found = re.search(r"Kubernetes YAML: +(\S+)/cluster/", self.guide)
        assert found is not None
        self.folder = ROOT / found[1]
        assert (self.folder / "cluster" / "web.yaml").exists()

    def agent(self) -> int:
        """Return the process that has processes of its own."""
        (pid,) = (pid for pid in self.processes if children(pid))
        return pid

    def end(self) -> tuple[int, str]:
        """Wait for its end; return the exit status and what it said."""
        said, _ = self.process.communicate(timeout=GENEROUS)
        return self.process.returncode, said

    def left(self) -> list[str]:
        """Return what is left of it."""
        processes = [f"process {pid}" for pid in self.processes if lives(pid)]
        return [*processes, *([str(self.folder)] if self.folder.exists() else [])]


@contextmanager
def running() -> Iterator[Demo]:
    process = subprocess.Popen(
        COMMAND, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    too_long = threading.Timer(GENEROUS, process.kill)
    too_long.start()
    try:
        yield Demo(process)
    finally:
        too_long.cancel()
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=GENEROUS)


@pytest.mark.timeout(240)
def test_smoke_finds_everything_right() -> None:
    smoke = subprocess.run(
        [*COMMAND, "--smoke"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    assert smoke.returncode == 0, smoke.stdout
    assert "FAILED" not in smoke.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_the_demo_and_all_of_it(number: signal.Signals) -> None:
    with running() as demo:
        assert len(demo.processes) > 10
        demo.process.send_signal(number)
        status, said = demo.end()
        assert status == 0, said
        assert "is removed" in said
        assert demo.left() == []


def test_the_demo_ends_with_its_agent_and_takes_the_workers_along() -> None:
    with running() as demo:
        os.kill(demo.agent(), signal.SIGKILL)
        status, said = demo.end()
        assert status == 1, said
        assert "the agent ended by itself: killed by SIGKILL" in said
        assert demo.left() == []


def test_two_demos_do_not_meet() -> None:
    with running() as first, running() as second:
        assert first.folder != second.folder
        addresses = [set(re.findall(r"127\.96\.\d+\.\d+:\d+", demo.guide)) for demo in (first, second)]
        assert addresses[0]
        assert not addresses[0] & addresses[1]
        assert "because 10053 is taken" in second.guide
