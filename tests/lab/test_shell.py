"""`make lab` as a person uses it: a prompt, and commands that are printed and work."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.kit.waiting import until
from hack.lab.__main__ import write_entrance
from hack.lab.lab import Lab

PROMPT = "svcmesh-lab:n1p1$ "
PATIENCE = 60.0


class Terminal:
    """A lab's shell on a terminal of its own, with everything it has shown."""

    def __init__(self, home: Path) -> None:
        self._ours, theirs = pty.openpty()
        environment = {**os.environ, "HOME": str(home), "TERM": "dumb", "PROMPT_COMMAND": "PS1='mine> '"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hack.lab", "shell", "--nodes", "1", "--pods", "2"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            preexec_fn=lambda: os.login_tty(theirs),  # noqa: PLW1509 nothing else runs in this process
        )
        os.close(theirs)
        self.shown = ""

    def read(self, end: str) -> str:
        """Return what is shown from now on until `end`, without it."""
        deadline = time.monotonic() + PATIENCE
        while end not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self._ours], [], [], 1)[0]:
                try:
                    self.shown += os.read(self._ours, 65536).decode().replace("\r", "")
                except OSError:  # the other end is closed
                    pytest.fail(self.shown)
        before, _, self.shown = self.shown.partition(end)
        return before

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def is_busy(self) -> bool:
        """Whether the shell has given the terminal to a program."""
        foreground = os.tcgetpgrp(self._ours)
        return Path(f"/proc/{foreground}/comm").read_text() == "sleep\n"

    def run(self, command: str) -> str:
        """Type a command; return what it shows."""
        self.type(f"{command}\n")
        return self.read(PROMPT).removeprefix(f"{command}\n")

    def leave(self) -> str:
        """Type `exit`; return what comes after."""
        self.type("exit\n")
        rest = self.read("Removing the lab ...")
        assert self.process.wait(PATIENCE) == 0
        return rest

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)
        os.close(self._ours)


@pytest.fixture
def terminal(lab_possible: None, tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / ".bashrc").write_text("PS1='mine> '\necho from-my-own-rc\n")
    terminal = Terminal(tmp_path)
    try:
        yield terminal
    finally:
        terminal.close()


def commands_of(description: str) -> list[str]:
    """Return the commands that are shown, without what is said of them."""
    rows = re.findall(r"^  ((?:curl|sed|/).*)$", description, re.MULTILINE)
    return [row.partition("  #")[0].rstrip() for row in rows]


def outside(command: str, typed: str = "") -> str:
    """Run a command as from another terminal."""
    return subprocess.run(
        ["sh", "-c", command], input=typed, capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout


@pytest.mark.lab
def test_every_command_that_is_shown_works(terminal: Terminal) -> None:
    description = terminal.read(PROMPT)
    assert "from-my-own-rc" not in description
    assert "cannot set terminal" not in description
    whoami, refused, echo, direct, edit, plain, ready, metrics, page, shell = commands_of(description)
    assert '"name": "n1p' in terminal.run(whoami)
    assert "Failed to connect" in terminal.run(refused)
    assert "220 n1p2 ready" in terminal.run(echo)
    assert '"name": "n1p2"' in terminal.run(direct)

    assert terminal.run(ready).rstrip().endswith("\nready")
    assert 'svcmesh_requests_total{service="whoami"' in terminal.run(metrics)
    assert '"default/whoami"' in outside(page)
    assert '"x-forwarded-for": "10.244.1.12"' in outside(shell, whoami)

    assert "Could not resolve" in terminal.run(plain)
    terminal.run(edit)
    until(lambda: "default/plain" in outside(page))
    until(lambda: '"name": "n1p' in terminal.run(plain))

    terminal.type("sleep 1000\n")
    until(terminal.is_busy)
    terminal.type("\x03")
    terminal.read(PROMPT)
    assert "still here" in terminal.run("echo still here")
    terminal.leave()


@pytest.mark.lab
def test_who_names_no_place_is_told_their_names(lab: Lab) -> None:
    done = subprocess.run(
        [write_entrance(lab), "nowhere", "true"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.endswith("NAME is one of: n1 n1p1 n1p2\n")
    assert subprocess.run([write_entrance(lab), "n1p2", "false"], check=False).returncode == 1
