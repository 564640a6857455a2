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
import threading
import time
from importlib.metadata import version
from pathlib import Path

import msgspec
import structlog

from discovery.model import MeshSnapshot
from nodeagent.admin.freshness import SnapshotState
from nodeagent.agent.stored import Head, SnapshotRefused, Stored, decode_snapshot, encode_snapshot
from nodeagent.plan.model import NodePlan

log = structlog.get_logger()

FILE = "snapshot"
LARGEST = 512 * 1024 * 1024
"""Bytes of a file that is read: many times what 10,000 Services with 100,000 endpoints need."""
SHORTEST_PAUSE = 5.0
"""Seconds between two writes."""
WRITE_RATE = 256 * 1024
"""Bytes a second, on average at most: a large cluster that never rests must not wear the disk out."""
LEFTOVER_AGE = 60.0
"""Seconds after which a draft is one of an agent that was killed while it wrote."""


class SnapshotFile:
    """The snapshot of one source in a folder; an empty folder is no file: then every method does nothing."""

    def __init__(self, folder: str, source: str) -> None:
        self._folder = Path(folder) if folder else None
        self._source = source
        self._pending: tuple[MeshSnapshot, NodePlan] | None = None
        self._wake = asyncio.Event()
        self._writing = threading.Lock()
        self._failing = False
        self.state = SnapshotState()

    def load(self) -> Stored | None:
        """Return what the file holds; None if there is none or it is refused, which is reported."""
        if self._folder is None:
            return None
        path = self._folder / FILE
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._clear_leftovers(self._folder)
            return decode_snapshot(_read(path), self._source)
        except FileNotFoundError:
            return None
        except (OSError, SnapshotRefused) as error:
            reason = str(error)
        self.state = msgspec.structs.replace(self.state, refused=True)
        log.error("snapshot_refused", path=str(path), reason=reason)
        return None

    def keep(self, snapshot: MeshSnapshot, plan: NodePlan, *, soon: bool = True) -> None:
        """Have this written soon, in place of what still waits; if not `soon`, then by the next `flush`."""
        if self._folder is not None:
            self._pending = (snapshot, plan)
            if soon:
                self._wake.set()

    async def write_changes(self) -> None:
        """Write what is to be kept, until cancelled."""
        while True:
            await self._wake.wait()
            size = await self.flush()
            await asyncio.sleep(max(SHORTEST_PAUSE, size / WRITE_RATE))

    async def flush(self) -> int:
        """Write what waits, if anything does; return its size in bytes."""
        pending, self._pending = self._pending, None
        self._wake.clear()
        if self._folder is None or pending is None:
            return 0
        return await asyncio.to_thread(self._write, self._folder, *pending)

    def _write(self, folder: Path, snapshot: MeshSnapshot, plan: NodePlan) -> int:
        head = Head(version("svcmesh"), self._source, time.time(), snapshot.version)
        try:
            content = encode_snapshot(head, snapshot, plan)
            with self._writing:
                _replace(folder, content)
        # Text that is no Unicode (a lone surrogate) cannot be encoded.
        except (OSError, UnicodeEncodeError) as error:
            self.state = msgspec.structs.replace(self.state, failures=self.state.failures + 1)
            if not self._failing:
                log.error("snapshot_not_written", path=str(folder / FILE), reason=str(error))  # noqa: TRY400
            self._failing = True
            return 0
        self._failing = False
        self.state = msgspec.structs.replace(self.state, written=head.written)
        log.debug("snapshot_written", path=str(folder / FILE), version=snapshot.version, bytes=len(content))
        return len(content)

    @staticmethod
    def _clear_leftovers(folder: Path) -> None:
        for draft in folder.glob(f"{FILE}.*.draft"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - draft.stat().st_mtime > LEFTOVER_AGE:
                    draft.unlink()


def _read(path: Path) -> bytes:
    """Read a regular file of bearable size.

    Raises:
        OSError, SnapshotRefused: it is none, or cannot be read.
    """
    # A named pipe would be waited for, were it not opened like this.
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
