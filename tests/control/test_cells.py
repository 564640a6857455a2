from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from nodeagent.stats.cells import SETS, WAYS, SharedCells

PRELUDE = (
    "import sys; from nodeagent.stats import exclusion; from nodeagent.stats.cells import SharedCells\n"
    "exclusion.PATIENCE = 60\n"  # however busy this machine is, nobody holds a lock that long
    "table = SharedCells.open(int(sys.argv[1]), exclusive=False)\n"
)


def spawn(table: SharedCells, script: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PRELUDE + script, str(table.fd)]
    return subprocess.Popen(command, pass_fds=[table.fd], stdout=subprocess.PIPE)


def read(table: SharedCells, key: bytes) -> int:
    seen: list[int] = []
    table.update(key, seen.append)
    return seen[0]


@pytest.fixture(params=[False, True], ids=["locked", "exclusive"])
def table(request: pytest.FixtureRequest) -> Iterator[SharedCells]:
    made = SharedCells.create(exclusive=request.param)
    yield made
    made.close()


@pytest.fixture
def shared() -> Iterator[SharedCells]:
    made = SharedCells.create()
    yield made
    made.close()


def test_a_number_starts_at_zero_and_keeps_what_is_stored(table: SharedCells) -> None:
    assert read(table, b"a") == 0
    table.update(b"a", lambda number: number + 5)
    table.update(b"a", lambda number: number - 12)
    table.update(b"b", lambda number: number + 1)
    assert (read(table, b"a"), read(table, b"b")) == (-7, 1)


def test_none_leaves_the_number_as_it_is(table: SharedCells) -> None:
    table.update(b"a", lambda _: 3)
    table.update(b"a", lambda _: None)
    assert read(table, b"a") == 3


def test_an_error_in_the_change_stores_nothing_and_blocks_nobody(table: SharedCells) -> None:
    with pytest.raises(ZeroDivisionError):
        table.update(b"a", lambda number: 1 // number)
    table.update(b"a", lambda number: number + 1)
    assert read(table, b"a") == 1


def test_any_bytes_are_a_key(table: SharedCells) -> None:
    keys = [b"", b"\0", b"x" * 10_000, bytes(range(256))]
    for number, key in enumerate(keys, start=1):
        table.update(key, lambda _, number=number: number)  # type: ignore[misc]
    assert [read(table, key) for key in keys] == [1, 2, 3, 4]


def test_it_is_bounded_and_the_keys_in_use_stay(table: SharedCells) -> None:
    table.update(b"hot", lambda _: 42)
    for number in range(SETS * WAYS * 2):
        table.update(b"cold %d" % number, lambda _: 1)
        if number % 64 == 0:
            table.update(b"hot", lambda stored: stored)
    assert read(table, b"hot") == 42
    kept = sum(read(table, b"cold %d" % number) for number in range(SETS * WAYS * 2))
    assert kept <= SETS * WAYS


def test_in_a_full_set_the_entry_not_written_for_longest_makes_room(table: SharedCells) -> None:
    first, _ = table._hash(b"one")
    others = (b"%d" % number for number in range(10**6))
    same = [
        b"one",
        *(
            key
            for key, _ in zip((k for k in others if table._hash(k)[0] == first), range(WAYS), strict=False)
        ),
    ]
    for key in same[:WAYS]:
        table.update(key, lambda _: 1)
    table.update(same[0], lambda number: number)
    table.update(same[WAYS], lambda _: 1)
    assert [read(table, key) for key in same] == [1, 0, *[1] * (WAYS - 1)]


def test_processes_at_one_key_lose_no_update(shared: SharedCells) -> None:
    script = "for _ in range(20000): table.update(b'k', lambda number: number + 1)"
    processes = [spawn(shared, script) for _ in range(4)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert read(shared, b"k") == 80_000


def test_a_change_waits_for_another_processs_change() -> None:
    table = SharedCells.create()
    try:
        script = (
            "def change(number):\n"
            "    print('in', flush=True); sys.stdin.readline(); return number + 1\n"
            "table.update(b'k', change)"
        )
        command = [sys.executable, "-c", PRELUDE + script, str(table.fd)]
        holder = subprocess.Popen(command, pass_fds=[table.fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"in\n"
        waiter = spawn(table, "print('go', flush=True); table.update(b'k', lambda number: number * 10)")
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == b"go\n"
        holder.communicate(b"\n")
        waiter.communicate()
        assert read(table, b"k") == 10, "the second change starts from what the first one stored"
    finally:
        table.close()


def test_a_process_killed_while_it_holds_the_lock_blocks_nobody(shared: SharedCells) -> None:
    shared.update(b"k", lambda _: 5)
    script = "table.update(b'k', lambda number: (print('in', flush=True), sys.stdin.readline(), number)[2])"
    command = [sys.executable, "-c", PRELUDE + script, str(shared.fd)]
    holder = subprocess.Popen(command, pass_fds=[shared.fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"in\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    shared.update(b"k", lambda number: number + 1)
    assert read(shared, b"k") == 6


def test_a_process_stopped_while_it_holds_the_lock_stops_nobody(shared: SharedCells) -> None:
    forgone: list[None] = []
    table = SharedCells.open(os.dup(shared.fd), False, lambda: forgone.append(None))
    script = "table.update(b'k', lambda number: (print('in', flush=True), sys.stdin.readline(), number)[2])"
    command = [sys.executable, "-c", PRELUDE + script, str(shared.fd)]
    holder = subprocess.Popen(command, pass_fds=[shared.fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"in\n"
    holder.send_signal(signal.SIGSTOP)
    try:
        for _ in range(1000):
            table.update(b"k", lambda number: number + 1)
        assert read(table, b"k") == 1000
        assert len(forgone) == 1001, "each of them was told of"
        table.update(b"another", lambda _: 1)
        assert len(forgone) == 1001, "the other sets are not locked"
    finally:
        holder.send_signal(signal.SIGCONT)
        holder.communicate(b"\n")
    table.update(b"k", lambda _: 7)
    assert read(shared, b"k") == 7
    assert len(forgone) == 1001
    table.close()
