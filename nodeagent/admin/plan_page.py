"""The page `/plan`: written by a thread, once for each plan, however often it is requested.

Writing the plan of a large cluster takes tens of milliseconds, in which DNS would not be answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from nodeagent.admin.ui import etag_of


class PlanText(msgspec.Struct, frozen=True):
    """The page, and what stands for it: a client that knows it need not get it again."""

    body: bytes
    etag: str


class PlanPage:
    """The plan in force as JSON. `current` returns a value that is replaced, never changed."""

    def __init__(self, current: Callable[[], Any], document: Callable[[Any], Mapping[str, Any]]) -> None:
        self._current = current
        self._document = document
        self._writing = asyncio.Lock()
        self._written: tuple[Any, PlanText] | None = None

    async def page(self) -> PlanText:
        """Return the page; a second caller waits for what the first has written."""
        async with self._writing:
            plan = self._current()
            if self._written is None or self._written[0] is not plan:
                self._written = (plan, await asyncio.to_thread(self._write, plan))
            return self._written[1]

    def _write(self, plan: Any) -> PlanText:
        body = msgspec.json.format(msgspec.json.encode(self._document(plan)), indent=2) + b"\n"
        return PlanText(body, etag_of(body))
