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
    """The plan in force as JSON. `current` returns a value that is replaced, never changed.

    `service` returns what there is to say of one Service; without it everything is said.
    """

    def __init__(
        self,
        current: Callable[[], Any],
        document: Callable[[Any], Mapping[str, Any]],
        service: Callable[[Any, str], Mapping[str, Any]] | None = None,
    ) -> None:
        self._current = current
        self._document = document
        self._service = service
        self._writing = asyncio.Lock()
        self._written: tuple[Any, PlanText] | None = None

    async def page(self, service: str = "") -> PlanText:
        """Return the page, or what it says of one Service; a second caller waits for what the first has
        written.
        """
        async with self._writing:
            plan = self._current()
            if service and self._service is not None:
                of_one = self._service
                return await asyncio.to_thread(lambda: _write(of_one(plan, service)))
            if self._written is None or self._written[0] is not plan:
                self._written = (plan, await asyncio.to_thread(lambda: _write(self._document(plan))))
            return self._written[1]


def _write(document: Mapping[str, Any]) -> PlanText:
    body = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    return PlanText(body, etag_of(body))
