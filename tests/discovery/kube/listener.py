"""Runs a source and keeps what it tells, so that tests wait for a state of affairs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import cast

from discovery.model import MeshObject, ObjectKey, Problem
from discovery.source import Deleted, Event, Malformed, Source, Stale, Synced, Upserted

DEADLINE = 20.0
"""Seconds; reached only when a test fails."""


class Listener:
    """The consumer of a source."""

    def __init__(self, source: Source) -> None:
        self.batches: list[tuple[Event, ...]] = []
        self.objects: dict[tuple[str, ObjectKey], MeshObject] = {}
        self.malformed: dict[str, tuple[Problem, ...]] = {}
        self._stream = cast("AsyncGenerator[tuple[Event, ...], None]", source.watch())
        self._told = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch]

    @property
    def synced(self) -> int:
        return sum(isinstance(event, Synced) for event in self.events)

    @property
    def stale(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, Stale)]

    @property
    def names(self) -> set[str]:
        return {f"{kind} {key.name}" for kind, key in self.objects}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, looked at every few milliseconds as it may be the server's."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                if self._task.done():
                    self._task.result()
                    raise AssertionError("the source ended")
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._stream.aclose()

    async def _run(self) -> None:
        async for batch in self._stream:
            for event in batch:
                self._apply(event)
            self.batches.append(batch)

    def _apply(self, event: Event) -> None:
        if isinstance(event, Upserted):
            kind = type(event.object).__name__.removesuffix("Object")
            self.objects[kind, event.object.key] = event.object
        elif isinstance(event, Deleted):
            kind = type(event.key).__name__.removesuffix("Key")
            del self.objects[kind, event.key]
        elif isinstance(event, Malformed):
            if event.problems:
                self.malformed[event.origin] = event.problems
            else:
                # Saying that something is mended that was never broken would be noise.
                del self.malformed[event.origin]
