"""Sends what is recorded of requests to the agent, in small lots, within a bound, and without waiting.

Implements `middleware.contract.TraceSink`. A lot goes after `PAUSE`. What finds it full is dropped and
counted, and so is a whole lot if the agent does not read (`MOST_UNREAD`). The number goes to the agent with
the next lot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from middleware.contract import TracedRequest
from nodeagent.control.messages import Message, Traces
from nodeagent.stats.identity import Identity

PAUSE: Final = 0.2
"""Seconds that a lot is collected."""
LOT: Final = 500
"""Requests in one message: a few hundred kilobytes."""
MOST_UNREAD: Final = 4 * 1024 * 1024
"""Bytes that may wait in the socket to the agent."""


class AgentChannel(Protocol):
    """The way to the agent: `nodeagent.control.messages.Channel`."""

    @property
    def pending(self) -> int:
        """Bytes that were sent and wait to be read."""
        ...

    def send(self, message: Message) -> None:
        """Send a message."""
        ...


class TraceSender:
    """The lot that is collected, and what was dropped since the last one."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: AgentChannel,
        identify: Callable[[str], Identity],
    ) -> None:
        """`identify` returns who the client with an address is."""
        self._loop = loop
        self._channel = channel
        self._identify = identify
        self._lot: list[TracedRequest] = []
        self._sources: list[str] = []
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None

    def keep(self, request: TracedRequest) -> None:
        """Take a request; it is dropped if the lot is full."""
        if len(self._lot) >= LOT:
            self._dropped += 1
            return
        self._lot.append(request)
        self._sources.append(self._identify(request.source).source)
        if self._timer is None:
            self._timer = self._loop.call_later(PAUSE, self.flush)

    def flush(self) -> None:
        """Send the lot, or drop it if the agent does not read."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lot and not self._dropped:
            return
        if self._channel.pending > MOST_UNREAD:
            self._dropped += len(self._lot)
            self._clear()
            return
        self._channel.send(Traces(tuple(self._lot), self._dropped, tuple(self._sources)))
        self._clear()
        self._dropped = 0

    def _clear(self) -> None:
        self._lot.clear()
        self._sources.clear()
