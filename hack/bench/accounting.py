"""What a process has used, as the kernel counts it: CPU time and memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

_PROC = Path("/proc")


class Memory(msgspec.Struct, frozen=True):
    """MiB. `pss` counts a page that n processes share as an n-th, `rss` in full each time."""

    pss: float
    rss: float


def cpu_time(pids: Iterable[int]) -> float:
    """Return the seconds that these processes' threads have run, in the kernel and outside."""
    total = 0
    for pid in pids:
        for schedstat in _PROC.glob(f"{pid}/task/*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(schedstat.read_text().split()[0])
    return total / 1e9


def memory(pids: Iterable[int]) -> Memory:
    """Return the memory of these processes together."""
    pss = rss = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    pss += int(line.split()[1])
                elif line.startswith("Rss:"):
                    rss += int(line.split()[1])
    return Memory(pss / 1024, rss / 1024)
