"""The snapshot's file: written whole or not at all, refused with a reason, never a crash."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from discovery.model import MeshSnapshot, Service, ServiceKey, ServiceObject
from nodeagent.agent import state as module
from nodeagent.agent.state import SnapshotFile
from nodeagent.plan.model import EMPTY_PLAN

KEY = ServiceKey("shop", "web")
SNAPSHOT = MeshSnapshot(7, {KEY: Service(ServiceObject(KEY, {"svc.mesh/enabled": "true"}), {})})


async def written(folder: Path) -> SnapshotFile:
    file = SnapshotFile(str(folder), "kube")
    file.load()
    file.keep(SNAPSHOT, EMPTY_PLAN)
    await file.flush()
    return file


async def test_the_next_agent_reads_what_this_one_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "svcmesh"
    first = await written(folder)
    assert first.state.written > 0
    assert os.listdir(folder) == ["snapshot"]
    assert stat.S_IMODE((folder / "snapshot").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    second = SnapshotFile(str(folder), "kube")
    found = second.load()
    assert found is not None
    assert found.snapshot == SNAPSHOT
    assert second.state.refused is False


async def test_only_the_last_is_written(tmp_path: Path) -> None:
    file = SnapshotFile(str(tmp_path), "kube")
    file.keep(MeshSnapshot(8, {}), EMPTY_PLAN)
    file.keep(SNAPSHOT, EMPTY_PLAN)
    assert await file.flush() > 0
    assert await file.flush() == 0
    found = file.load()
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
    assert (await file.flush() == 0) == soon, "taken by the writer, or still there"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_without_a_folder_nothing_happens() -> None:
    file = SnapshotFile("", "kube")
    file.keep(SNAPSHOT, EMPTY_PLAN)
    assert await file.flush() == 0
    assert file.load() is None


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
        assert file.load() is None
    (line,) = logs
    assert (line["event"], line["path"]) == ("snapshot_refused", str(tmp_path / "snapshot"))
    assert reason in line["reason"]
    assert file.state.refused
    if name != "a folder":
        file.keep(SNAPSHOT, EMPTY_PLAN)
        assert await file.flush() > 0


async def test_a_folder_that_cannot_be_written_is_said_once_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    file = SnapshotFile(str(folder), "kube")
    with capture_logs() as logs:
        for _ in range(2):
            file.keep(SNAPSHOT, EMPTY_PLAN)
            assert await file.flush() == 0
    assert [line["event"] for line in logs] == ["snapshot_not_written"]
    assert file.state.failures == 2
    folder.mkdir()
    file.keep(SNAPSHOT, EMPTY_PLAN)
    assert await file.flush() > 0


async def test_text_that_is_no_unicode_is_no_crash(tmp_path: Path) -> None:
    odd = Service(ServiceObject(KEY, {"svc.mesh/enabled": "\ud800"}), {})
    file = SnapshotFile(str(tmp_path), "kube")
    file.keep(MeshSnapshot(8, {KEY: odd}), EMPTY_PLAN)
    with capture_logs() as logs:
        assert await file.flush() == 0
    assert logs[0]["event"] == "snapshot_not_written"


async def test_drafts_of_agents_that_were_killed_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "snapshot.old.draft", tmp_path / "snapshot.new.draft"
    for draft in (old, new):
        draft.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert SnapshotFile(str(tmp_path), "kube").load() is None
    assert not old.exists()
    assert new.exists(), "it may be that of an agent that is writing"
