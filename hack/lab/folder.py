"""The folder of a lab, for logs and configuration. A lab that was killed cannot remove its own, so the next
one does: who is alive holds a lock on the folder, and the kernel lets go of it with the process.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "svcmesh-lab-"
UNFINISHED = ".svcmesh-new-"


class LabFolder:
    """A locked folder; `path` until `remove`."""

    def __init__(self, parent: Path | None = None) -> None:
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        remove_abandoned(parent)
        unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))
        self._lock = os.open(unfinished, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # It gets the name by which others look for it only once it is locked.
        self.path = unfinished.rename(parent / unfinished.name.replace(UNFINISHED, PREFIX))

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of labs that are no more."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder, os.O_RDONLY)
        except OSError:
            continue  # another user's, or gone meanwhile
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
