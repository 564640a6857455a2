"""The kit: processes end with what they started, ports are free, waiting ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hack.kit.ports import LOCALHOST, NothingFree, claim_number, free_ports, is_free, listens
from hack.kit.proc import children, family, lives
from hack.kit.processes import Process, ProcessFailed, wait_until
from hack.kit.waiting import until, until_async

OWNER = """
import sys, signal
from pathlib import Path
from hack.kit.processes import Process
print(Process("sleep", ["sleep", "1000"]).pid, flush=True)
signal.pause()
"""


def test_a_process_that_ends_when_asked_has_stopped_well(tmp_path: Path) -> None:
    script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done"
    process = Process("shell", ["sh", "-c", script], tmp_path / "log")
    wait_until((tmp_path / "log").read_text, process)
    assert process.running
    assert process.stop()
    assert process.ending == "exit status 0"
    assert process.stop(), "once more does no harm"


def test_what_a_process_leaves_behind_ends_with_it() -> None:
    process = Process("shell", ["sh", "-c", "trap '' TERM; sleep 1000; sleep 1000"])
    (sleeper,) = until(lambda: children(process.pid))
    assert family(process.pid) == [process.pid, sleeper]
    assert not process.stop(grace=0.1)
    assert process.ending == "killed by SIGKILL"
    assert not lives(sleeper)


def test_a_process_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    process = Process("shell", ["sh", "-c", "echo no luck; exit 3"], tmp_path / "log")
    with pytest.raises(ProcessFailed, match=r"shell ended \(exit status 3\): sh -c .*\nno luck"):
        wait_until(lambda: False, process)
    process = Process("sleep", ["sleep", "1000"])
    with pytest.raises(ProcessFailed, match=r"sleep was not ready within 0\.05 s"):
        wait_until(lambda: False, process, 0.05)
    process.stop()


def test_a_process_does_not_outlive_a_killed_owner() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        # Not before it is what was asked for: until then it may not have said yet that it wants the signal.
        until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
        os.kill(owner.pid, signal.SIGKILL)
    until(lambda: not lives(pid))


def test_ports_are_free_until_somebody_listens() -> None:
    first, second = free_ports(2)
    assert first != second
    with socket.socket() as server:
        server.bind((LOCALHOST, first))
        assert not listens(LOCALHOST, first)
        server.listen()
        assert listens(LOCALHOST, first)
        assert not is_free(LOCALHOST, first)
        assert not is_free("", first)
        assert is_free("127.0.0.2", first)
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((LOCALHOST, second))
        assert not is_free(LOCALHOST, second)


def test_a_number_is_claimed_once_until_the_last_copy_of_the_claim_is_closed() -> None:
    what = f"svcmesh-test-{os.getpid()}"
    first, claim = claim_number(what, 2)
    second, other = claim_number(what, 2)
    with other:
        assert (first, second) == (0, 1)
        with pytest.raises(NothingFree, match="all 2"):
            claim_number(what, 2)
        with claim.dup() as copy:
            claim.close()
            with pytest.raises(NothingFree):
                claim_number(what, 2)
            assert copy.fileno() >= 0
        third, again = claim_number(what, 2)
        again.close()
        assert third == 0


async def test_waiting_gives_what_came_or_ends() -> None:
    answers = iter([0, "", "there"])
    assert until(lambda: next(answers)) == "there"
    assert await until_async(lambda: [1]) == [1]
    with pytest.raises(TimeoutError):
        until(lambda: False, 0.02)
    with pytest.raises(TimeoutError):
        await until_async(lambda: False, 0.02)
