"""The snapshot's file: written whole or not at all, refused with a reason, never a crash."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from discovery.model import MeshSnapshot, Service, ServiceKey, ServiceObject
from nodeagent.agent import state as module
from nodeagent.agent.state import SnapshotFile
from nodeagent.plan.model import EMPTY_PLAN

KEY = ServiceKey("shop", "web")
PATIENCE = 120.0
"""Seconds for the disk of a busy machine, where one fsync waits for everybody's writes: only the tests of a
disk that hangs give it less."""
SNAPSHOT = MeshSnapshot(7, {KEY: Service(ServiceObject(KEY, {"svc.mesh/enabled": "true"}), {})})


async def written(folder: Path) -> SnapshotFile:
    file = SnapshotFile(str(folder), "kube")
    await file.load(PATIENCE)
    file.keep(SNAPSHOT, EMPTY_PLAN)
    await file.flush(PATIENCE)
    return file


async def test_the_next_agent_reads_what_this_one_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "svcmesh"
    first = await written(folder)
    assert first.state.written > 0
    assert os.listdir(folder) == ["snapshot"]
    assert stat.S_IMODE((folder / "snapshot").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    second = SnapshotFile(str(folder), "kube")
    found = await second.load(PATIENCE)
    assert found is not None
    assert found.snapshot == SNAPSHOT
    assert second.state.refused is False


async def test_only_the_last_is_written(tmp_path: Path) -> None:
    file = SnapshotFile(str(tmp_path), "kube")
    file.keep(MeshSnapshot(8, {}), EMPTY_PLAN)
    file.keep(SNAPSHOT, EMPTY_PLAN)
    assert await file.flush(PATIENCE) > 0
    assert await file.flush(PATIENCE) == 0
    found = await file.load(PATIENCE)
    assert found is not None
    assert found.snapshot.version == 7


async def test_changes_are_written_by_themselves(tmp_path: Path) -> None:
    file = SnapshotFile(str(tmp_path), "kube")
    task = asyncio.create_task(file.write_changes())
    file.keep(SNAPSHOT, EMPTY_PLAN)
    async with asyncio.timeout(20):
        while not file.state.written:  # noqa: ASYNC110  nobody tells a test of it
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (tmp_path / "snapshot").exists()


@pytest.mark.parametrize("soon", [True, False])
async def test_what_is_not_urgent_waits_for_the_next_flush(tmp_path: Path, soon: bool) -> None:
    file = SnapshotFile(str(tmp_path), "kube")
    task = asyncio.create_task(file.write_changes())
    file.keep(SNAPSHOT, EMPTY_PLAN, soon=soon)
    for _ in range(10):
        await asyncio.sleep(0)
    assert (await file.flush(PATIENCE) == 0) == soon, "taken by the writer, or still there"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_without_a_folder_nothing_happens() -> None:
    file = SnapshotFile("", "kube")
    file.keep(SNAPSHOT, EMPTY_PLAN)
    assert await file.flush(PATIENCE) == 0
    assert await file.load(PATIENCE) is None


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda path: path.write_bytes(b"svcmesh\n"), "truncated"),
    "a folder": (lambda path: path.mkdir(), "not a regular file"),
    "a named pipe": (as_pipe, "not a regular file"),
    "too large": (lambda path: path.write_bytes(b"svcmesh\n" * 10), "more than the 64"),
    "a link to itself": (lambda path: path.symlink_to(path), "symbolic links"),
}


@pytest.mark.parametrize("name", DAMAGE)
async def test_what_cannot_be_trusted_is_refused_reported_and_replaced(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, reason = DAMAGE[name]
    monkeypatch.setattr(module, "LARGEST", 64)
    damage(tmp_path / "snapshot")
    file = SnapshotFile(str(tmp_path), "kube")
    with capture_logs() as logs:
        assert await file.load(PATIENCE) is None
    (line,) = logs
    assert (line["event"], line["path"]) == ("snapshot_refused", str(tmp_path / "snapshot"))
    assert reason in line["reason"]
    assert file.state.refused
    if name != "a folder":
        file.keep(SNAPSHOT, EMPTY_PLAN)
        assert await file.flush(PATIENCE) > 0


async def test_a_folder_that_cannot_be_written_is_said_once_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    file = SnapshotFile(str(folder), "kube")
    with capture_logs() as logs:
        for _ in range(2):
            file.keep(SNAPSHOT, EMPTY_PLAN)
            assert await file.flush(PATIENCE) == 0
    assert [line["event"] for line in logs] == ["snapshot_not_written"]
    assert file.state.failures == 2
    folder.mkdir()
    file.keep(SNAPSHOT, EMPTY_PLAN)
    assert await file.flush(PATIENCE) > 0


async def test_text_that_is_no_unicode_is_no_crash(tmp_path: Path) -> None:
    odd = Service(ServiceObject(KEY, {"svc.mesh/enabled": "\ud800"}), {})
    file = SnapshotFile(str(tmp_path), "kube")
    file.keep(MeshSnapshot(8, {KEY: odd}), EMPTY_PLAN)
    with capture_logs() as logs:
        assert await file.flush(PATIENCE) == 0
    assert logs[0]["event"] == "snapshot_not_written"


async def test_drafts_of_agents_that_were_killed_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "snapshot.old.draft", tmp_path / "snapshot.new.draft"
    for draft in (old, new):
        draft.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert await SnapshotFile(str(tmp_path), "kube").load(PATIENCE) is None
    assert not old.exists()
    assert new.exists(), "it may be that of an agent that is writing"


STRANGE: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a folder that is not empty": lambda path: (path / "x").mkdir(parents=True),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a folder": lambda path: path.symlink_to("/"),
    "a named pipe": as_pipe,
    "a file that nobody may read": lambda path: path.touch(mode=0),
}


@pytest.mark.parametrize("name", STRANGE)
async def test_what_is_called_like_a_draft_never_costs_a_good_snapshot(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(tmp_path)
    draft = tmp_path / "snapshot.x.draft"
    STRANGE[name](draft)
    monkeypatch.setattr(module, "LEFTOVER_AGE", -1.0)
    with capture_logs() as logs:
        found = await SnapshotFile(str(tmp_path), "kube").load(PATIENCE)
    assert found is not None
    assert found.snapshot == SNAPSHOT
    assert logs == []
    assert (draft.name in os.listdir(tmp_path)) == ("folder" in name and "link" not in name)
    assert (tmp_path / "snapshot").exists()


@pytest.mark.parametrize("call", ["unlink", "lstat", "mkdir"])
async def test_a_folder_that_cannot_be_changed_is_read_all_the_same(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(tmp_path)
    (tmp_path / "snapshot.x.draft").touch()
    monkeypatch.setattr(module, "LEFTOVER_AGE", -1.0)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, call, refuse)
    assert await SnapshotFile(str(tmp_path), "kube").load(PATIENCE) is not None


async def test_a_full_disk_keeps_the_last_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = await written(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with capture_logs() as logs:
        file.keep(MeshSnapshot(8, {}), EMPTY_PLAN)
        assert await file.flush(PATIENCE) == 0
    assert [(line["event"], line["reason"]) for line in logs] == [
        ("snapshot_not_written", "[Errno 28] No space left on device")
    ]
    assert os.listdir(tmp_path) == ["snapshot"]
    monkeypatch.undo()
    found = await file.load(PATIENCE)
    assert found is not None
    assert found.snapshot == SNAPSHOT


class Disk:
    """Hangs in `fsync` until it is let go; counts who waits."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.waiting = 0
        self.fsync = os.fsync

    def hang(self, descriptor: int) -> None:
        self.waiting += 1
        self.go.wait(60)
        self.fsync(descriptor)


@pytest.fixture
async def disk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Disk]:
    found = Disk()
    monkeypatch.setattr(os, "fsync", found.hang)
    yield found
    found.go.set()


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  nobody tells a test of it
            await asyncio.sleep(0.005)


async def test_a_disk_that_hangs_holds_up_one_thread_and_the_last_change_is_written_after_it(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_PATIENCE", 0.0)
    monkeypatch.setattr(module, "SHORTEST_PAUSE", 0.0)
    file = SnapshotFile(str(tmp_path), "kube")
    with capture_logs() as logs:
        task = asyncio.create_task(file.write_changes())
        file.keep(MeshSnapshot(1, {}), EMPTY_PLAN)
        await eventually(lambda: disk.waiting and file.state.failures)
        for number in range(2, 100):
            file.keep(MeshSnapshot(number, {}), EMPTY_PLAN)
            await asyncio.sleep(0)
        assert disk.waiting == 1
        assert [line["event"] for line in logs] == ["snapshot_not_written"]
        assert "has not taken it" in logs[0]["reason"]
        # Others' threads are free.
        assert await asyncio.to_thread(lambda: "here") == "here"
        disk.go.set()
        await eventually(lambda: file.state.written)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await file.flush(20)
    found = await file.load(20)
    assert found is not None
    assert found.snapshot.version == 99


async def test_the_end_does_not_wait_for_a_disk_that_hangs(tmp_path: Path, disk: Disk) -> None:
    file = SnapshotFile(str(tmp_path), "kube")
    file.keep(SNAPSHOT, EMPTY_PLAN)
    assert await file.flush(0.01) == 0
    file.keep(MeshSnapshot(8, {}), EMPTY_PLAN)
    assert await file.flush(0.01) == 0, "nor for one that hung before"
    await eventually(lambda: disk.waiting == 1)


async def test_a_start_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(tmp_path)
    go = threading.Event()
    read = module._read

    def hang(path: Path) -> bytes:
        go.wait(60)
        return read(path)

    monkeypatch.setattr(module, "_read", hang)
    file = SnapshotFile(str(tmp_path), "kube")
    with capture_logs() as logs:
        assert await file.load(0.01) is None
    go.set()
    assert logs[0]["event"] == "snapshot_refused"
    assert "the disk hangs" in logs[0]["reason"]
    assert file.state.refused


def test_a_process_ends_though_its_disk_hangs(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, threading
os.fsync = lambda _: threading.Event().wait()
from discovery.model import MeshSnapshot
from nodeagent.agent.state import SnapshotFile
from nodeagent.plan.model import EMPTY_PLAN

async def main():
    file = SnapshotFile({str(tmp_path)!r}, "kube")
    task = asyncio.create_task(file.write_changes())
    file.keep(MeshSnapshot(1, {{}}), EMPTY_PLAN)
    while not list(os.scandir({str(tmp_path)!r})):
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await file.flush(0.01)

asyncio.run(main())
print("ended")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.splitlines()[-1:] == ["ended"]


async def test_no_further_thread_is_a_write_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    file = SnapshotFile(str(tmp_path), "kube")
    file.keep(SNAPSHOT, EMPTY_PLAN)
    with capture_logs() as logs:
        assert await file.flush(PATIENCE) == 0
    assert "can't start new thread" in logs[0]["reason"]
