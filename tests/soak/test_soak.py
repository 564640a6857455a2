"""A soak of seconds, with everything in it: it finds nothing, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hack.kit.proc import family, lives
from hack.kit.processes import Process
from hack.kit.waiting import until
from hack.soak.report import Report

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "hack.soak"]


def started(tmp_path: Path, *arguments: str) -> Process:
    return Process("soak", [*COMMAND, *arguments], tmp_path / "soak.log", cwd=ROOT)


def files_of(log: str) -> Path:
    match = re.search(r"files in (\S+)", log)
    assert match is not None, log
    return Path(match[1])


@pytest.mark.timeout(300)
def test_a_short_soak_finds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "soak.json"
    soak = started(
        tmp_path, "--minutes", "0.1", "--pace", "40", "--seed", "1", "--no-stop", "--json", str(path)
    )
    try:
        status = soak.wait(280)
    finally:
        soak.stop(20)
    said = (tmp_path / "soak.log").read_text()
    assert status == 0, said
    assert said.rstrip().endswith("No violation.")
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    assert report.seed == 1
    assert report.drained_in is not None
    assert {"annotated", "cut", "killed", "rolled", "spoiled"} <= report.events.keys()
    asked_for = {kind for kind, counts in report.requests.items() if counts["ok"]}
    assert {"keep-alive", "post", "download", "pipeline", "tunnel", "tcp", "dns udp"} <= asked_for
    assert {"http2", "http2 post", "grpc", "grpc stream"} <= asked_for
    assert not files_of(said).exists()


@pytest.mark.timeout(120)
def test_a_signal_ends_it_and_all_of_it(tmp_path: Path) -> None:
    soak = started(tmp_path, "--minutes", "10", "--no-stop")
    try:
        until(
            lambda: len(family(soak.pid)) >= 10, 60
        )  # itself, agent, two workers, two pods of three processes
        members = family(soak.pid)
        os.kill(soak.pid, signal.SIGTERM)
        assert soak.wait(60) == 1, "it did not come to its end"
    finally:
        soak.stop(20)
    assert not [pid for pid in members if lives(pid)]
    assert not files_of((tmp_path / "soak.log").read_text()).exists()


@pytest.mark.timeout(120)
def test_nothing_outlives_a_soak_that_is_killed(tmp_path: Path) -> None:
    soak = started(tmp_path, "--minutes", "10", "--no-stop")
    try:
        until(lambda: len(family(soak.pid)) >= 10, 60)
        members = family(soak.pid)
        soak.kill()
        soak.wait(20)
        until(lambda: not [pid for pid in members if lives(pid)], 60)
    finally:
        soak.stop(1)
        shutil.rmtree(files_of((tmp_path / "soak.log").read_text()))  # that is all that it can leave


def test_its_command_line_explains_itself() -> None:
    shown = subprocess.run([*COMMAND, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--no-stop" in shown
