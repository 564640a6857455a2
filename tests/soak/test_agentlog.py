"""What the agent's log may not tell."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hack.soak.agentlog import AgentLog, Tail


def told(log: AgentLog, **fields: object) -> None:
    log.read(msgspec.json.encode(fields).decode())


def test_workers_are_known_by_their_place() -> None:
    log = AgentLog()
    told(log, event="worker_started", worker=0, pid=10)
    told(log, event="worker_started", worker=1, pid=11)
    told(log, event="worker_started", worker=1, pid=12)
    assert (log.workers, log.starts) == ({0: 10, 1: 12}, 3)


def test_a_worker_dies_only_by_the_soak() -> None:
    log = AgentLog()
    log.expect_death(1)
    told(log, event="worker_died", worker=1, reason="killed by SIGKILL")
    assert not log.complaints
    told(log, event="worker_died", worker=1, reason="killed by SIGKILL")
    assert len(log.complaints) == 1


def test_a_crash_is_none_that_was_expected() -> None:
    log = AgentLog()
    log.expect_death(0)
    told(log, event="worker_died", worker=0, reason="killed by SIGSEGV")
    assert "SIGSEGV" in log.complaints[0]


def test_a_death_that_did_not_come_is_expected_no_more() -> None:
    log = AgentLog()
    log.expect_death(0)
    log.expect_no_death(0)
    told(log, event="worker_died", worker=0, reason="killed by SIGKILL")
    assert log.complaints


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "middleware_failed", "service": "a/b"}',
        '{"event": "agent_failed"}',
        '{"event": "anything", "exception": "Traceback (most recent call last): ..."}',
        "Task exception was never retrieved",
        "Traceback (most recent call last):",
    ],
)
def test_bugs_are_found(line: str) -> None:
    log = AgentLog()
    log.read(line)
    assert len(log.complaints) == 1


@pytest.mark.parametrize("line", ["", '{"event": "request_failed", "status": 503, "reason": "circuit_open"}'])
def test_what_is_usual_is_no_complaint(line: str) -> None:
    log = AgentLog()
    log.read(line)
    assert not log.complaints


def test_lines_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntw")
    tail = Tail(path)
    assert tail.lines() == ["one"]
    with path.open("a") as file:
        file.write("o\nthree\n")
    assert tail.lines() == ["two", "three"]
    assert tail.lines() == []
