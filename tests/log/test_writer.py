"""What happens to lines that cannot be written: an unread pipe, a closed one, no thread."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nodeagent.log.budget import LineBudget
from nodeagent.log.writer import LineWriter

LINE = "x" * 999 + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of one page, so that it is full at once; tests may close either end."""
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def read(descriptor: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += os.read(descriptor, size - len(found))
    return found


def test_an_unread_pipe_costs_lines_and_no_time(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], most_bytes=10_000)
    for _ in range(100):
        writer.write(LINE)
    assert 86 <= writer.lost <= 90
    lost = writer.lost
    assert writer.untold == lost
    read(pipe[0], 1000 * (100 - lost))
    assert writer.close(20)
    writer.write("and on\n", writer.untold)
    assert read(pipe[0], 7) == b"and on\n"
    assert writer.close(20)
    assert (writer.lost, writer.untold) == (lost, 0)


def test_a_closed_pipe_is_no_error(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    os.close(pipe[0])
    for _ in range(3):
        writer.write(LINE, writer.untold)
    assert writer.close(20)
    assert (writer.lost, writer.untold) == (3, 3)


def test_a_closed_descriptor_is_no_error(pipe: tuple[int, int]) -> None:
    os.close(pipe[1])
    writer = LineWriter(pipe[1])
    writer.write(LINE)
    assert writer.close(20)
    assert writer.lost == 1


def test_a_descriptor_that_is_not_blocking_is_waited_for(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    writer = LineWriter(pipe[1])
    writer.write(LINE * 20)
    assert read(pipe[0], 20_000) == (LINE * 20).encode()
    assert writer.close(20)
    assert not writer.lost


def test_without_room_for_a_thread_there_is_no_log(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    writer = LineWriter(pipe[1])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert not writer.write(LINE)
    assert writer.lost == 1
    assert writer.write(LINE)


def test_waiting_for_what_cannot_be_written_has_an_end(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    writer.write(LINE * 20)
    assert not writer.close(0.01)


def test_a_budget_says_how_many_were_left_out() -> None:
    budget = LineBudget(per_second=2)
    assert [budget.spend(7.0), budget.spend(7.1), budget.spend(7.2), budget.spend(7.9)] == [0, 0, None, None]
    assert [budget.spend(8.0), budget.spend(8.1)] == [2, 0]


SCRIPT = """
import logging, structlog, sys
from nodeagent.log.configure import configure_logging
configure_logging("info", "json")
log = structlog.get_logger()
"""


@pytest.mark.parametrize("read_end", [True, False], ids=["unread", "closed"])
def test_a_process_that_fails_ends_whatever_its_standard_error_is(read_end: bool) -> None:
    ours, theirs = os.pipe()
    script = "for _ in range(3000): log.info('event', text='x' * 1000)\nraise ValueError\n"
    with subprocess.Popen([sys.executable, "-c", SCRIPT + script], stderr=theirs) as process:
        os.close(theirs)
        if not read_end:
            os.close(ours)
        assert process.wait(60) == 1
    if read_end:
        os.close(ours)


def lines(script: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + script], stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_what_libraries_say_looks_like_our_own_lines_and_is_bounded() -> None:
    first, wrong, failed, *others = lines(
        "library = logging.getLogger('some.library')\n"
        "library.info('nothing')\n"
        "library.warning('%s is odd', 'x' * 600)\n"
        "library.error('%d of them', 'wrong')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: library.exception('failed')\n"
        "for _ in range(1000): library.warning('again')\n"
    )
    assert (first["event"], first["level"]) == ("library_message", "warning")
    assert (first["library"], first["message"]) == ("some.library", "x" * 500)
    assert wrong["message"] == "a message that cannot be shown"
    assert failed["message"] == "failed"
    assert "ZeroDivisionError" in failed["traceback"]
    assert len(others) < 30


def test_a_line_says_how_many_were_lost_before_it() -> None:
    script = (
        "for _ in range(3000): log.info('event', text='x' * 1000)\n"
        "print('written', flush=True)\n"
        "sys.stdin.readline()\n"
        "log.info('last')\n"
    )
    command = [sys.executable, "-c", SCRIPT + script]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "written\n"
        found: list[dict[str, Any]] = []
        while len(found) < 500:
            found.append(json.loads(process.stderr.readline()))
        process.stdin.write("\n")
        process.stdin.flush()
        *rest, last = [json.loads(line) for line in process.stderr]
        assert process.wait(20) == 0
    assert last["event"] == "last"
    assert last["log_lines_lost"] == 3000 - len(found) - len(rest)
