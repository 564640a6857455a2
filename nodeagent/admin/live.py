"""The page `/stats`: what was asked in the last seconds, looked at once a second while somebody asks.

Nothing is looked at until somebody asks. Then a task looks at the workers' memory every second, and ends
`PATIENCE` seconds after the last question. The first answer waits for the first second to pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from discovery.model import ServiceKey
from nodeagent.admin.objectives import promise_of
from nodeagent.plan.model import NodePlan
from nodeagent.stats.columns import OVERFLOW_SLOT
from nodeagent.stats.region import SlotAllocator, SlotKey, StatsRegion
from nodeagent.stats.signals import NodeStats, PortStats
from nodeagent.stats.tallies import Tallies
from nodeagent.stats.window import Window

PATIENCE: Final = 60.0
"""Seconds without a question after which nothing is looked at any more."""
PERIOD: Final = 1.0


def with_promises(stats: NodeStats, plan: NodePlan) -> NodeStats:
    """Return stats that also say what the ports' objectives are."""

    def with_promise(port: PortStats) -> PortStats:
        service = plan.services.get(ServiceKey(port.namespace, port.service))
        objective = service.objectives.get(port.port) if service is not None else None
        if objective is None:
            return port
        return msgspec.structs.replace(port, promise=promise_of(objective))

    return msgspec.structs.replace(stats, ports=[with_promise(port) for port in stats.ports])


class LiveStats:
    """The stats of a node, as long as they are asked for. `plan` and `regions` return those of now."""

    def __init__(
        self,
        node: str,
        tallies: Tallies,
        allocator: SlotAllocator,
        plan: Callable[[], NodePlan],
        regions: Callable[[], Sequence[StatsRegion]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._tallies = tallies
        self._allocator = allocator
        self._plan = plan
        self._regions = regions
        self._now = now
        self._window = Window()
        tallies.takers.append(self._window)
        self._asked = 0.0
        self._watching: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        """Done when a second has passed."""
        self._known: tuple[NodePlan | None, int, list[tuple[SlotKey | None, int]]] = (None, -1, [])

    @property
    def watching(self) -> bool:
        """Whether somebody has asked lately."""
        return self._watching is not None and not self._watching.done()

    async def stats(self, seconds: float) -> NodeStats:
        """Return what was asked in so many seconds; waits for a second if nobody has asked before."""
        self._asked = self._now()
        if self._watching is None or self._watching.done():
            self._first = asyncio.get_running_loop().create_future()
            self._watching = asyncio.create_task(self._watch(self._first))
        if self._first is not None and not self._first.done():
            await asyncio.wait({self._first, self._watching}, return_when=asyncio.FIRST_COMPLETED)
        return with_promises(self._window.stats(self._node, seconds), self._plan())

    async def close(self) -> None:
        """End the looks."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching

    async def _watch(self, first: asyncio.Future[None]) -> None:
        try:
            await self._look()  # what came before is nothing of this second
            self._window.begin(self._now())
            while self._now() - self._asked < PATIENCE:
                await asyncio.sleep(PERIOD)
                await self._look()
                self._window.tick(self._now())
                if not first.done():
                    first.set_result(None)
        finally:
            self._window.stop()

    async def _look(self) -> None:
        for _ in self._tallies.look(self._ports(), self._regions()):
            await asyncio.sleep(0)

    def _ports(self) -> list[tuple[SlotKey | None, int]]:
        plan, version = self._plan(), self._allocator.version
        if self._known[0] is not plan or self._known[1] != version:
            slots = self._allocator.slots
            ports: list[tuple[SlotKey | None, int]] = []
            for listener in plan.listeners():
                key = (listener.service, listener.port)
                slot = slots.get(key)
                if slot is not None and slot != OVERFLOW_SLOT:
                    ports.append((key, slot))
            self._known = (plan, version, ports)
        return self._known[2]
