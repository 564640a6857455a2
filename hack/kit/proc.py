"""What /proc says of processes."""

from __future__ import annotations

import contextlib
from pathlib import Path

_PROC = Path("/proc")


def children(pid: int) -> list[int]:
    """Return the children of a process, of all its threads."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for listed in _PROC.glob(f"{pid}/task/*/children"):
            found += map(int, listed.read_text().split())
    return found


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    pids = [pid]
    for member in pids:
        pids += children(member)
    return pids


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent to notice does not."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
