"""Keeps a worker within its memory: who makes it hold most is broken off before the kernel kills everybody.

A connection may make the worker hold a head that is not whole, requests sent ahead, a body kept for a retry
and a response that is not read: 100 KiB and more. Each has its limit and its time, but thousands of them at
once, from a single pod, are more than a container has.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from nodeagent.proxy.runtime import Holding, Runtime
from nodeagent.stats.columns import WORKER_REFUSED_MEMORY
from nodeagent.worker.heap import trim

log = structlog.get_logger()

MIB: Final = 1024 * 1024
GREEDY: Final = 1 / 16
"""Of the budget: a source that makes the worker hold less is not what fills it, unless many do together."""
MANY: Final = 1 / 2
"""Of the budget, held for all sources together."""

_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Return the bytes of memory that this process has in use."""
    return int(_STATM.read_text().split()[1]) * _PAGE


def too_greedy(used: int, budget: int, holding: Callable[[], Holding | None]) -> Holding | None:
    """Return the source to be broken off, if the process uses more than its budget because of it."""
    if used <= budget:
        return None
    most = holding()
    if most is None or (most.held <= budget * GREEDY and most.total <= budget * MANY):
        return None
    return most


class MemoryGuard:
    """Looks once a second; `budget` is in bytes, 0 for none."""

    def __init__(self, runtime: Runtime, budget: int) -> None:
        self._runtime = runtime
        self._budget = budget

    def look(self) -> None:
        """Break off every connection of the source that makes us hold most, if we hold too much."""
        if not self._budget or resident() <= self._budget:
            return
        trim()
        used = resident()
        most = too_greedy(used, self._budget, self._runtime.greediest)
        if most is not None:
            self._runtime.break_off(most.source)
            self._runtime.count(WORKER_REFUSED_MEMORY, most.connections)
            log.warning(
                "source_broken_off",
                source=most.source,
                connections=most.connections,
                held_mib=most.held // MIB,
                used_mib=used // MIB,
                budget_mib=self._budget // MIB,
            )
