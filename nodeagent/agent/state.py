"""The last good snapshot on disk: read once at start, written now and then by a thread.

A file that cannot be trusted is refused and reported, a folder that cannot be written is reported; neither is
a reason not to serve. The file is replaced in one step, so a reader sees a whole one, old or new.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec
import structlog

from discovery.model import MeshSnapshot
from middleware.values import format_duration
from nodeagent.admin.freshness import SnapshotState
from nodeagent.agent.aside import call_aside
from nodeagent.agent.stored import Head, SnapshotRefused, Stored, decode_snapshot, encode_snapshot
from nodeagent.plan.model import NodePlan

log = structlog.get_logger()

FILE = "snapshot"
LARGEST = 512 * 1024 * 1024
"""Bytes of a file that is read: many times what 10,000 Services with 100,000 endpoints need."""
SHORTEST_PAUSE = 5.0
"""Seconds between two writes."""
WRITE_RATE = 256 * 1024
"""Bytes a second, at most, on average: a large cluster that changes all the time must not wear the disk
out."""
LOAD_PATIENCE = 2.0
"""Seconds that a start waits for the file; a disk that hangs must not keep the mesh from being served."""
WRITE_PATIENCE = 30.0
"""Seconds after which a write that has not ended counts as failed, and is reported."""
FLUSH_PATIENCE = 2.0
"""Seconds that the end of an agent waits for the last write."""
LEFTOVER_AGE = 60.0
"""Seconds after which a draft is taken for the remains of an agent that was killed while it wrote."""


class SnapshotFile:
    """The snapshot of one source in a folder. Without a folder (an empty name) every method does nothing.

    A disk that hangs blocks one thread and nothing else. Of the snapshots that come meanwhile, only the
    latest is kept until that thread is free.
    """

    def __init__(self, folder: str, source: str) -> None:
        self._folder = Path(folder) if folder else None
        self._source = source
        self._pending: tuple[MeshSnapshot, NodePlan] | None = None
        self._wake = asyncio.Event()
        self._writing: asyncio.Future[_Written] | None = None
        self._failing = False
        self.state = SnapshotState()

    async def load(self, patience: float = LOAD_PATIENCE) -> Stored | None:
        """Return what the file holds; None if there is none, or it is refused or not read within `patience`.

        A refusal is reported.
        """
        if self._folder is None:
            return None
        reading = call_aside(partial(_load, self._folder, self._source), "snapshot-read")
        done, _ = await asyncio.wait({reading}, timeout=patience)
        try:
            if done:
                return reading.result()
            reason = f"it could not be read within {format_duration(patience)}: the disk hangs"
            reading.add_done_callback(_forget)
        except FileNotFoundError:
            return None
        except (OSError, SnapshotRefused) as error:
            reason = str(error)
        self.state = msgspec.structs.replace(self.state, refused=True)
        log.error("snapshot_refused", path=str(self._folder / FILE), reason=reason)
        return None

    def keep(self, snapshot: MeshSnapshot, plan: NodePlan, *, soon: bool = True) -> None:
        """Have this written soon, in place of one that still waits; if not `soon`, with the next `flush`."""
        if self._folder is not None:
            self._pending = (snapshot, plan)
            if soon:
                self._wake.set()

    async def write_changes(self) -> None:
        """Write what is to be kept, until cancelled."""
        while True:
            await self._wake.wait()
            size = await self._write(WRITE_PATIENCE)
            if self._writing is not None:
                size = await self._finish(None)
            await asyncio.sleep(max(SHORTEST_PAUSE, size / WRITE_RATE))

    async def flush(self, patience: float = FLUSH_PATIENCE) -> int:
        """Write what waits, if anything does; return its size in bytes.

        After `patience` seconds it stops waiting, also for a write that began before.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        await self._finish(patience)
        return await self._write(max(0.0, end - loop.time())) if self._writing is None else 0

    async def _write(self, patience: float) -> int:
        """Write what waits; return its size, or 0 if that failed or takes longer than `patience`."""
        pending, self._pending = self._pending, None
        self._wake.clear()
        if self._folder is None or pending is None:
            return 0
        write = partial(_encode_and_replace, self._folder, self._source, *pending)
        self._writing = call_aside(write, "snapshot-write")
        return await self._finish(patience)

    async def _finish(self, patience: float | None) -> int:
        """Wait for the write that is under way, if one is; return its size, or 0 if it failed or hangs."""
        writing = self._writing
        if writing is None:
            return 0
        # Not awaited directly: if we are cancelled, the write goes on, and its end is still noted.
        done, _ = await asyncio.wait({writing}, timeout=patience)
        if not done:
            assert patience is not None, "without one, the wait ends with the write"
            self._failed(f"the disk has not taken it within {format_duration(patience)}")
            return 0
        self._writing = None
        try:
            written = writing.result()
        # Text that is not valid Unicode (a lone surrogate) cannot be encoded.
        except (OSError, UnicodeEncodeError) as error:
            self._failed(str(error))
            return 0
        self._failing = False
        self.state = msgspec.structs.replace(self.state, written=written.at)
        log.debug("snapshot_written", path=written.path, version=written.version, bytes=written.size)
        return written.size

    def _failed(self, reason: str) -> None:
        self.state = msgspec.structs.replace(self.state, failures=self.state.failures + 1)
        if not self._failing:
            log.error("snapshot_not_written", path=f"{self._folder}/{FILE}", reason=reason)
        self._failing = True


class _Written(msgspec.Struct, frozen=True):
    path: str
    at: float
    version: int
    size: int


def _forget(reading: asyncio.Future[Stored]) -> None:
    """Retrieve the outcome of a reading that nothing waits for any more."""
    if not reading.cancelled():
        reading.exception()


def _load(folder: Path, source: str) -> Stored:
    with contextlib.suppress(OSError):  # without a folder there is no file either, and reading it says so
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _clear_leftovers(folder)
    return decode_snapshot(_read(folder / FILE), source)


def _clear_leftovers(folder: Path) -> None:
    """Remove old drafts. What cannot be removed (a folder with such a name) stays and does no harm."""
    for draft in folder.glob(f"{FILE}.*.draft"):
        with contextlib.suppress(OSError):
            found = draft.lstat()
            if not stat.S_ISDIR(found.st_mode) and time.time() - found.st_mtime > LEFTOVER_AGE:
                draft.unlink()


def _encode_and_replace(folder: Path, source: str, snapshot: MeshSnapshot, plan: NodePlan) -> _Written:
    head = Head(version("svcmesh"), source, time.time(), snapshot.version)
    content = encode_snapshot(head, snapshot, plan)
    _replace(folder, content)
    return _Written(str(folder / FILE), head.written, snapshot.version, len(content))


def _read(path: Path) -> bytes:
    """Read a regular file that is not too large.

    Raises:
        OSError, SnapshotRefused: it is not such a file, or cannot be read.
    """
    # Without O_NONBLOCK, opening a named pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SnapshotRefused("it is not a regular file")
        if found.st_size > LARGEST:
            raise SnapshotRefused(f"it has {found.st_size} bytes, more than the {LARGEST} that are read")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(LARGEST + 1)
    finally:
        os.close(descriptor)


def _replace(folder: Path, content: bytes) -> None:
    """Put a whole file in place of the old one, safe against a loss of power; only its owner may read it."""
    # Two agents overlap during an upgrade: each has a draft of its own.
    descriptor, draft = tempfile.mkstemp(prefix=f"{FILE}.", suffix=".draft", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, folder / FILE)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
