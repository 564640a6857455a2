"""Steady load on one Service: keep-alive connections that send one request after another."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import TracebackType

from hack.demo.visitor import Visitor

CONNECTIONS = 8


class Load:
    """`async with Load(visitor, "web") as load:`; `answered` and `failures` are complete at its end."""

    def __init__(self, visitor: Visitor, name: str) -> None:
        self.answered: Counter[str] = Counter()
        """By server."""
        self.failures: list[str] = []
        self._visitor = visitor
        self._name = name
        self._stopped = False
        self._clients: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._clients = [asyncio.create_task(self._run()) for _ in range(CONNECTIONS)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        await asyncio.gather(*self._clients)

    async def _run(self) -> None:
        while not self._stopped:
            try:
                await self._converse()
            except OSError as error:
                self.failures.append(str(error) or type(error).__name__)

    async def _converse(self) -> None:
        connection = await self._visitor.connect(self._name)
        try:
            while not self._stopped:
                answer = self._visitor.count(self._name, await connection.get())
                if answer.status == 200:
                    self.answered[answer.name] += 1
                else:
                    self.failures.append(f"{answer.status} {answer.fields.get('proxy-status', '')}")
                    return
        finally:
            await connection.close()
