"""docs/file-source.md is played: its commands with the output that they have, its examples, its table."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery.files.documents import MAX_BYTES, MAX_JSON_BYTES, MAX_NODES
from discovery.files.reading import MAX_BYTES as MAX_FILE
from discovery.files.reading import read_once
from discovery.files.source import GRACE, POLL
from hack.kit.ports import LOCALHOST, free_ports, listens
from hack.kit.waiting import until
from nodeagent.cli.flags import Given, resolve_settings
from nodeagent.meshctl.check import plan_of
from tests.ranges import next_range

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "file-source.md").read_text()
WALK, REST = PAGE.split("## Where endpoints come from")
BACKGROUND = ("python3 -m http.server", "nodeagent run")
"""Commands that have a terminal of their own."""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """The commands of the walk, each with its output."""
    found = []
    for block in blocks(WALK, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


class Terminal:
    """A folder with three terminals; ports and the mesh's range are others than on the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.web, self.mesh = free_ports(2)
        self.dns, self.admin = free_ports(2)
        self.range = next_range()
        self.address = ""
        self.running: list[subprocess.Popen[bytes]] = []
        self.log = folder / "agent.log"

    def ours(self, text: str) -> str:
        """Return a text of the page as it is here."""
        for there, here in (("8000", self.web), ("8080", self.mesh), ("10053", self.dns)):
            text = re.sub(rf"(?<![\d.]){there}\b", str(here), text)
        return text.replace("127.123.54.59", self.address)

    def start(self, command: str) -> None:
        if command.startswith("nodeagent"):
            command += f" --mesh-range {self.range}.0.0/16 --dns-listen {LOCALHOST}:{self.dns} --workers 1"
            command += f" --admin-listen {LOCALHOST}:{self.admin} --log-format json"
        words = shlex.split(command)
        words[0] = str(Path(sys.executable).parent / words[0]) if words[0] == "nodeagent" else sys.executable
        with self.log.open("ab") as log:
            self.running.append(
                subprocess.Popen(words, cwd=self.folder, stdout=log, stderr=log, env=ENVIRONMENT)
            )
        port = self.dns if command.startswith("nodeagent") else self.web
        if command.startswith("nodeagent"):
            until(lambda: "agent_ready" in self.log.read_text())
        until(lambda: listens(LOCALHOST, port))

    def run(self, command: str) -> str:
        finished = subprocess.run(
            ["sh", "-c", command],
            check=False,
            cwd=self.folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return finished.stdout

    def play(self, command: str, output: str) -> None:
        """Run a command until it prints what the page says."""
        if command.startswith("dig"):
            answer = str(until(lambda: self.run(self.ours(command)))).strip()
            assert re.fullmatch(rf"{re.escape(self.range)}\.\d+\.\d+", answer)
            assert re.fullmatch(r"127\.\d+\.\d+\.\d+\n", output)
            self.address = answer
            return
        printed: list[str] = []

        def as_on_the_page() -> bool:
            printed.append(self.run(self.ours(command)))
            return printed[-1] == self.ours(output)

        if command.startswith("curl"):
            until(as_on_the_page)  # the agent takes a moment
        else:
            assert as_on_the_page(), printed


ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
}


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    yield made
    for process in reversed(made.running):
        process.terminate()
        process.wait(30)


def test_from_nothing_to_a_200(terminal: Terminal) -> None:
    (manifest,) = blocks(WALK, "yaml")
    played = []
    for command, output in commands():
        if command.startswith(BACKGROUND):
            assert not output
            terminal.start(terminal.ours(command))
        else:
            terminal.play(command, output)
        if command.startswith("python3"):
            (terminal.folder / "cluster" / "hello.yaml").write_text(terminal.ours(manifest))
        played.append(command.split()[0])
    assert played == ["mkdir", "python3", "meshctl", "nodeagent", "dig", "curl", "sed", "curl", "meshctl"]
    logged = terminal.log.read_text()
    assert '"file":"cluster/hello.yaml","line":1' in logged.replace(" ", "")


@pytest.mark.parametrize("example", blocks(REST, "yaml"))
def test_examples_have_the_endpoints_that_they_say(example: str, tmp_path: Path) -> None:
    first, _, _ = example.partition("\n")
    (tmp_path / "a.yaml").write_text(example)
    plan = plan_of(read_once(tmp_path), resolve_settings(Given(capture="nftables")))
    assert list(plan.all_problems()) == []
    (service,) = plan.services.values()
    names = {listener.port: listener.port_name for listener in service.listeners}
    told = [" ".join([names[backend.key.port], *map(str, backend.endpoints)]) for backend in service.backends]
    assert f"# endpoints: {', '.join(told)}" == first


def test_there_are_examples() -> None:
    assert len(blocks(REST, "yaml")) == 3


def test_the_bounds_are_those_of_the_code() -> None:
    mebibyte = 1024 * 1024
    assert f"{MAX_FILE // mebibyte} MiB of a file" in PAGE
    assert f"{MAX_BYTES // mebibyte} MiB and {MAX_NODES:,} values of a YAML document" in PAGE
    assert f"{MAX_JSON_BYTES // mebibyte} MiB of a JSON file" in PAGE
    assert POLL == 0.5
    assert f"after {GRACE * 1000:.0f} ms" in PAGE
