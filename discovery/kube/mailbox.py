"""Events of several reflectors as one stream of batches: events that came meanwhile are delivered together,
bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from discovery.source import Event


class Mailbox:
    """A bounded queue that is emptied in batches.

    `batch` is the most events of one batch; producers wait while more than `capacity` are held.
    """

    def __init__(self, batch: int = 1000, capacity: int = 10_000) -> None:
        self._batch = batch
        self._capacity = capacity
        self._events: deque[Event] = deque()
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, events: Iterable[Event]) -> None:
        """Add events in order; return once there is room for more."""
        self.post(events)
        await self._room.wait()

    def post(self, events: Iterable[Event]) -> None:
        """Add events without waiting, for the few that must not wait."""
        self._events.extend(events)
        if self._events:
            self._filled.set()
        if len(self._events) > self._capacity:
            self._room.clear()

    def wake(self) -> None:
        """Make a waiting `take` return, even with nothing."""
        self._filled.set()

    async def take(self, patience: float | None) -> tuple[Event, ...]:
        """Return the next batch; empty if woken, or if nothing came for `patience` seconds (None: ever)."""
        if not self._events:
            try:
                async with asyncio.timeout(patience):
                    await self._filled.wait()
            except TimeoutError:
                return ()
        count = min(self._batch, len(self._events))
        taken = tuple(self._events.popleft() for _ in range(count))
        if not self._events:
            self._filled.clear()
        if len(self._events) <= self._capacity:
            self._room.set()
        return taken
