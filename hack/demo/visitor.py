"""A client of the shop that knows mesh names only, and keeps count of what it was answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from hack.demo.exchange import Answer, Connection, resolve
from hack.demo.stage import Stage, Stall

PATIENCE = 10.0
"""Seconds after which what should happen is taken for not happening."""
POLL = 0.01


class Wrong(Exception):
    """A check did not see what it should; the message says what it saw."""


def expect(condition: Any, seen: str) -> None:
    """Go on only if the condition holds.

    Raises:
        Wrong: it does not.
    """
    if not condition:
        raise Wrong(seen)


class Visitor:
    """Visits the shop through the mesh."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.answered: Counter[tuple[str, str]] = Counter()
        """Responses by Service and class of the status code, to be compared with the metrics."""

    def stall(self, name: str) -> Stall:
        """Return a Service of the shop."""
        return self.stage.stalls[name]

    async def address(self, name: str) -> str:
        """Resolve a Service by its mesh name.

        Raises:
            Wrong: it has no address.
        """
        found = await resolve(self.stage.dns_port, self.stall(name).offer.mesh_name)
        expect(found.answers, f"{name}: {found.code}")
        return found.answers[0]

    async def mesh_port(self, name: str) -> int:
        """Return the port of a Service at its mesh address, as the agent's plan says."""
        listeners = (await self.stage.plan())["services"][f"shop/{name}"]["listeners"]
        return int(listeners[0]["mesh"].rpartition(":")[2])

    async def connect(self, name: str) -> Connection:
        """Connect by mesh name."""
        address, port = await self.address(name), await self.mesh_port(name)
        return await Connection.open(address, port, self.stall(name).offer.mesh_name)

    def count(self, name: str, answer: Answer) -> Answer:
        """Count an answer, and return it."""
        self.answered[name, f"{answer.status // 100}xx"] += 1
        return answer

    async def ask(self, name: str, times: int = 1, path: str = "/") -> list[Answer]:
        """Send requests one after another on one connection."""
        connection = await self.connect(name)
        try:
            return [self.count(name, await connection.get(path)) for _ in range(times)]
        finally:
            await connection.close()

    async def until(self, condition: Callable[[], Awaitable[Any]], otherwise: str) -> None:
        """Wait until the condition holds.

        Raises:
            Wrong: it did not within `PATIENCE` seconds.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                while not await condition():  # noqa: ASYNC110 what is awaited is seen from outside only
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise Wrong(otherwise) from None

    async def is_open(self, name: str, address: str, port: int) -> bool:
        """Return whether a mesh address accepts connections."""
        try:
            connection = await Connection.open(address, port)
        except ConnectionRefusedError:
            return False
        await connection.close()
        return True
