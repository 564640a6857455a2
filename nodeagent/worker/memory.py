"""Keeps a worker within its memory: near its end new requests are refused, and beyond it, who makes the
worker hold most is broken off before the kernel kills everybody.

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
from nodeagent.stats.columns import (
    WORKER_REFUSED_MEMORY,
    WORKER_REQUESTS_SHED,
    WORKER_SHEDDING,
    WORKER_SLOT,
)
from nodeagent.worker.heap import trim
from nodeagent.worker.shedding import Shedding

log = structlog.get_logger()

MIB: Final = 1024 * 1024
GREEDY: Final = 1 / 16
"""Of the budget: a source that makes the worker hold less is not what fills it, unless many do together."""
MANY: Final = 1 / 2
"""Of the budget, held for all sources together."""
TRIM_PAUSE: Final = 1.0
"""Seconds, at least, between two times of giving free memory back, which takes milliseconds."""

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
    """Watches one worker from `start` to the end of its loop; `budget` is in bytes, 0 for none.

    Near the budget new requests are refused. Beyond it, once a second, the source that makes the worker hold
    most is broken off.
    """

    def __init__(
        self,
        runtime: Runtime,
        budget: int,
        used: Callable[[], int] = resident,
        give_back: Callable[[], None] = trim,
    ) -> None:
        self._runtime = runtime
        self._budget = budget
        self._used = used
        self._trim = give_back
        self._trimmed = float("-inf")
        """When free memory was given back last."""
        self._shedding = Shedding(budget)
        self._since = 0.0
        """When the worker began to refuse requests, and how many it had refused by then."""
        self._before = 0

    def start(self) -> None:
        """Look from now on as often as is needed."""
        if self._budget:
            self._look_again()

    def _look_again(self) -> None:
        wait = self._shedding.next_look(self.shed(), len(self._runtime.connections))
        self._runtime.loop.call_later(wait, self._look_again)

    def shed(self) -> int:
        """Refuse requests, or take them again, by what the process uses; return how many bytes that is."""
        runtime, shedding = self._runtime, self._shedding
        before, used, now = shedding.on, self._used(), runtime.now()
        if shedding.reached(used) and now - self._trimmed >= TRIM_PAUSE:
            self._trimmed = now
            self._trim()
            used = self._used()
        on = shedding.look(used, runtime.in_flight)
        if on is not before:
            runtime.shed(on)
            self._tell(on, used)
        return used

    def _tell(self, on: bool, used: int) -> None:
        runtime = self._runtime
        base = runtime.layout.base(WORKER_SLOT)
        now, refused = runtime.now(), runtime.cells[base + WORKER_REQUESTS_SHED]
        runtime.cells[base + WORKER_SHEDDING] = int(on)
        if on:
            self._since, self._before = now, refused
            log.warning(
                "worker_shedding",
                held_mib=runtime.in_flight() // MIB,
                connections=len(runtime.connections),
                used_mib=used // MIB,
                budget_mib=self._budget // MIB,
            )
        else:
            log.info(
                "worker_shedding_ended",
                refused=refused - self._before,
                shed_ms=int((now - self._since) * 1000),
                used_mib=used // MIB,
            )

    def look(self) -> None:
        """Break off every connection of the source that makes us hold most, if we hold too much."""
        if not self._budget or self._used() <= self._budget:
            return
        self._trim()
        used = self._used()
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
