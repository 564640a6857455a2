"""What happens to lines that cannot be written: an unread pipe, a closed one, no thread."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from nodeagent.log.budget import LineBudget, LineBudgets
from nodeagent.log.gap import Gap
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


def say(gap: Gap) -> str:
    about = ",".join(f"{name}={number}" for name, number in sorted(gap.about.items()))
    return f"gap {gap.lines} {about} {gap.refused}\n"


def read_line(descriptor: int) -> str:
    found = b""
    while not found.endswith(b"\n"):
        found += os.read(descriptor, 1)
    return found.decode()


def test_an_unread_pipe_costs_lines_and_no_time(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], most_bytes=10_000)
    for _ in range(100):
        writer.write(LINE)
    assert 80 <= writer.lost <= 90
    lost = writer.lost
    read(pipe[0], 1000 * (100 - lost))
    writer.write("and on\n")
    assert read(pipe[0], 7) == b"and on\n"
    assert writer.close(20)
    assert writer.lost == lost


def test_the_log_says_how_many_lines_are_missing_and_of_what(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], most_bytes=10_000, say=say)
    for number in range(100):
        writer.write(LINE, about="shop/cart" if number % 2 else "shop/web")
    lost = writer.lost
    told: Counter[str] = Counter()
    missing = whole = 0
    while missing + whole < 100:  # nobody has to write another line first
        line = read_line(pipe[0])
        if line == LINE:
            whole += 1
        else:
            missing += int(line.split(" ")[1])
            told.update({name: int(n) for name, n in re.findall(r"([\w/]+)=(\d+)", line)})
    assert missing == lost > 0
    assert set(told) == {"shop/cart", "shop/web"}
    assert told.total() == lost
    assert writer.close(20)


def test_each_gap_stands_where_its_lines_would(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], most_bytes=4000, say=say)
    for number in range(1000, 1050):
        writer.write(f"{number}" + "x" * 995 + "\n")
    position = 1000
    while position < 1050:
        line = read_line(pipe[0])
        if line.startswith("gap"):
            position += int(line.split(" ")[1])
        else:
            assert int(line[:4]) == position
            position += 1
    assert writer.lost
    assert writer.write("later\n")
    assert read_line(pipe[0]) == "later\n"


def test_lines_that_yield_leave_room_for_the_others(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], most_bytes=100_000, say=say)
    while writer.write(LINE, yields=True):
        pass
    assert not writer.write(LINE, yields=True)
    assert (writer.lost, writer.lost_yielding) == (2, 2)
    assert all(writer.write(LINE) for _ in range(20)), "a quarter of the room is theirs"
    for _ in range(30):
        read_line(pipe[0])
    assert not writer.write("x\n", yields=True), "not before a good part is free again"
    while not writer.write("again\n", yields=True):
        read_line(pipe[0])
    found = ""
    while found != "again\n":
        found = read_line(pipe[0])


def test_a_gap_that_lasts_is_one(pipe: tuple[int, int]) -> None:
    clock = iter(range(1000))
    told: list[Gap] = []

    def note(gap: Gap) -> str:
        told.append(gap)
        return say(gap)

    writer = LineWriter(pipe[1], most_bytes=100_000, say=note, now=lambda: next(clock))
    while writer.write(LINE, yields=True):
        pass
    for _ in range(9):
        writer.write(LINE, yields=True)
    line = ""
    while not line.startswith("gap"):
        line = read_line(pipe[0])
    assert [(gap.lines, gap.since, gap.until) for gap in told] == [(10, 0, 9)]


def test_a_closed_pipe_is_no_error(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], say=say)
    os.close(pipe[0])
    for _ in range(3):
        writer.write(LINE)
    assert writer.close(20)
    assert writer.lost == 3


def test_what_the_system_refused_is_said_when_it_takes_lines_again(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = LineWriter(pipe[1], say=say)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        for _ in range(3):
            writer.write(LINE, about="shop/web")
            assert writer.close(20)
    writer.write("and on\n")
    assert read_line(pipe[0]) == "gap 3 shop/web=3 No space left on device\n"
    assert read_line(pipe[0]) == "and on\n"
    assert writer.lost == 3


def test_lines_that_wait_are_written_together_up_to_what_a_pipe_takes_at_once() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # each write is a packet
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        writer = LineWriter(theirs.fileno())
        for _ in range(100):
            writer.write(LINE)
        writer.write("y" * 5000 + "\n")
        writer.write("z\n")
        packets: list[bytes] = []
        while not packets or packets[-1] != b"z\n":
            packets.append(ours.recv(65536))
        assert writer.close(20)
    assert b"".join(packets) == (LINE * 100 + "y" * 5000 + "\nz\n").encode()
    assert all(packet.endswith(b"\n") for packet in packets)
    assert max(packet.count(b"\n") for packet in packets) == select.PIPE_BUF // len(LINE)
    assert [len(packet) for packet in packets if len(packet) > select.PIPE_BUF] == [5001]


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


def test_a_storm_at_one_port_takes_no_lines_of_another() -> None:
    budgets = LineBudgets(per_second=2)
    cart, web = ("shop/cart", 80), ("shop/web", 80)
    assert [budgets.spend(cart, 7.1) for _ in range(5)] == [True, True, False, False, False]
    assert [budgets.spend(web, 7.2) for _ in range(2)] == [True, True]
    assert list(budgets.gaps(7.5)) == [(cart, 3, 7.1)]


def test_a_gap_is_told_once_and_needs_no_further_line() -> None:
    budgets = LineBudgets(per_second=1)
    cart = ("shop/cart", 80)
    assert [budgets.spend(cart, 7.1), budgets.spend(cart, 7.2)] == [True, False]
    assert list(budgets.gaps(8.1)) == [(cart, 1, 7.2)]
    assert list(budgets.gaps(9.1)) == []
    assert [budgets.spend(cart, 9.2), budgets.spend(cart, 9.3)] == [True, False]
    assert list(budgets.gaps(9.4)) == [(cart, 1, 9.3)]


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


def test_a_log_that_is_read_again_says_what_is_missing() -> None:
    script = (
        "for _ in range(3000): log.info('event', text='x' * 1000)\n"
        "print('written', flush=True)\n"
        "sys.stdin.readline()\n"
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
        while sum(line.get("lines", 1) for line in found) < 3000:  # though nothing more is logged
            found.append(json.loads(process.stderr.readline()))
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stderr.read() == ""
        assert process.wait(20) == 0
    gaps = [line for line in found if line["event"] == "log_lines_lost"]
    assert sum(gap["lines"] for gap in gaps) == 3000 - len(found) + len(gaps)
    for gap in gaps:
        assert (gap["level"], gap["of"]) == ("warning", {"others": gap["lines"]})
        assert gap["since"] >= found[found.index(gap) - 1]["time"]
        assert gap["lasted_ms"] >= 0


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that are in no hurry wait for ever."""
    monkeypatch.setattr("nodeagent.log.writer.GATHER_TIME", 1e6)


@pytest.mark.usefixtures("patient")
def test_a_line_in_a_hurry_takes_the_others_along(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    writer.write("first\n", yields=True)
    writer.write("second\n", yields=True)
    writer.write("now\n")
    assert [read_line(pipe[0]) for _ in range(3)] == ["first\n", "second\n", "now\n"]


@pytest.mark.usefixtures("patient")
def test_many_lines_wait_no_longer(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], most_bytes=10_000)
    for _ in range(3):
        writer.write(LINE, yields=True)
    assert read_line(pipe[0]) == LINE


@pytest.mark.usefixtures("patient")
def test_at_the_end_nothing_waits(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1])
    writer.write("first\n", yields=True)
    assert writer.close(20)
    assert read_line(pipe[0]) == "first\n"
