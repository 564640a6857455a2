"""What all parts of one worker's data plane share: clock, limits, counters, deadlines, open connections.

It knows nothing above it, and nothing of plans: the worker gives it a loop, memory for counters and an
observer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Final, NamedTuple, Protocol

from middleware.contract import Handler, NodeWindow, SharedTable, TokenStore, TraceSink
from nodeagent.proxy.budget import Budget
from nodeagent.proxy.deadlines import Deadlines
from nodeagent.proxy.flush import Flush
from nodeagent.proxy.observer import NoObserver, Observer
from nodeagent.settings import Limits
from nodeagent.stats.columns import WORKER_REFUSED_FULL, WORKER_REFUSED_LIMIT, WORKER_SLOT, Layout
from nodeagent.stats.edges import EdgeRows
from nodeagent.stats.identity import UNKNOWN, Identity
from nodeagent.stats.methods import MethodRows

FOREVER: Final = float("inf")
"""A deadline that never passes."""


Identify = Callable[[str, Identity | None], Identity]


class Windows(Protocol):
    """Windows of counters that all workers of the node share, by key."""

    def window(self, key: bytes, counters: int) -> NodeWindow:
        """Return the window of this key and so many counters."""
        ...


class Timed(Protocol):
    """An open connection, of whichever kind. `deadline` is in the clock's time."""

    deadline: float
    of_client: bool
    """Whether a client is at the other end, and not an endpoint."""

    @property
    def busy(self) -> int:
        """How much is under way on it: requests, a tunnel, a tcp connection."""
        ...

    @property
    def paused(self) -> bool:
        """Whether nothing is read from it for now."""
        ...

    @property
    def owner(self) -> str:
        """The address of the client; empty for connections to endpoints, which several clients share."""
        ...

    @property
    def held(self) -> int:
        """Bytes in this process's memory that its peers have yet to complete, take or use."""
        ...

    def expire(self, now: float) -> None:
        """The deadline has passed: end whatever took too long."""
        ...

    def drain(self, now: float) -> None:
        """The worker drains: close if this is a good moment."""
        ...

    def reset(self) -> None:
        """Break off."""
        ...


class Holding(NamedTuple):
    """What one source makes the worker hold."""

    source: str
    connections: int
    held: int
    """Bytes."""
    total: int
    """Bytes of all sources."""


EXCHANGE: Final = 8 * 1024
"""Bytes that each end of an exchange takes, about, besides what waits there."""


class Runtime:
    """The ground of one worker's data plane. `index` is the worker's number on its node, from 0.

    `wall` tells the seconds since 1970. With it, responses without Date get one (RFC 9110 section 6.6.1).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        layout: Layout,
        cells: memoryview,
        shared: SharedTable,
        windows: Windows,
        observer: Observer | None = None,
        index: int = 0,
        now: Callable[[], float] = time.monotonic,
        methods: MethodRows | None = None,
        workload: Callable[[str], str] = lambda _address: "",
        tokens: TokenStore | None = None,
        wall: Callable[[], float] | None = None,
        edges: EdgeRows | None = None,
        identify: Identify = lambda _address, _before: UNKNOWN,
        traces: TraceSink | None = None,
    ) -> None:
        self.loop = loop
        self.limits = limits
        self.layout = layout
        self.cells = cells
        self.shared = shared
        self.windows = windows
        self.methods = methods or MethodRows(memoryview(b"").cast("q"))
        """Where gRPC calls are counted by method; without memory for it they are not."""
        self.edges = edges or EdgeRows(cells)
        """Where requests are counted by port and source; without memory for it, by port alone."""
        self.identify = identify
        """Who the client with an address is; given whom the connection had before, if it was asked."""
        self.observer: Observer = observer or NoObserver()
        self.index = index
        self.now = now
        self.tokens = tokens
        """Limits that all nodes share, if the agent has a store for them."""
        self.traces = traces
        """Who takes what is recorded of requests, if the agent has a collector for it."""
        self.workload = workload
        """What the pod with this address belongs to; empty if that is not known."""
        self._wall = wall
        self.date = b""
        """The line of a field Date; empty without a clock that tells the time of day."""
        self._set_date()
        self.deadlines = Deadlines(loop, now)
        self.flush = Flush(loop)
        self.window_budget = Budget(limits.windows)
        self.run_apart: Callable[[Any, Handler], None] = _nowhere
        """Serves a copy of an exchange's request that belongs to no client (`nodeagent.proxy.errand`)."""
        self.draining = False
        self.shedding = False
        """Whether new requests are refused; see `shed`."""
        self.replay_bytes = limits.replay_bytes
        """Bytes of a request's body that are kept so that it can be sent again."""
        self.connections: dict[Timed, None] = {}
        """Every open connection of both sides, in the order in which they came, from `connection_made` to
        `connection_lost`: a transport without a reference to it, while it is paused, ends the process
        (docs/dependencies.md)."""
        self.clients = 0
        """How many of them are clients'."""
        self._by_source: Counter[str] = Counter()
        self._base = layout.base(WORKER_SLOT)

    def count(self, column: int, amount: int = 1) -> None:
        """Add to one of the worker's own counters."""
        self.cells[self._base + column] += amount

    def admit(self, source: str) -> bool:
        """Count a new connection of this source, or its refusal: the source has too many, or the worker."""
        if self.clients >= self.limits.connections:
            self.count(WORKER_REFUSED_FULL)
            return False
        if self._by_source[source] >= self.limits.connections_per_source:
            self.count(WORKER_REFUSED_LIMIT)
            return False
        self._by_source[source] += 1
        self.clients += 1
        return True

    def leave(self, source: str) -> None:
        """Forget one connection of this source."""
        self.clients -= 1
        left = self._by_source[source] - 1
        if left > 0:
            self._by_source[source] = left
        else:
            del self._by_source[source]

    def sweep(self) -> None:
        """Once a second: end what is over its time, and look at the clock."""
        self._set_date()
        now = self.now()
        for connection in list(self.connections):
            if connection.deadline <= now:
                connection.expire(now)
            elif self.draining:
                connection.drain(now)

    def _set_date(self) -> None:
        if self._wall is not None:
            self.date = f"Date: {formatdate(self._wall(), usegmt=True)}\r\n".encode()

    def greediest(self) -> Holding | None:
        """Return the source that makes this worker hold most; None without clients."""
        held: Counter[str] = Counter()
        connections: Counter[str] = Counter()
        for connection in self.connections:
            if source := connection.owner:
                held[source] += connection.held
                connections[source] += 1
        for source, size in held.most_common(1):
            return Holding(source, connections[source], size, held.total())
        return None

    def in_flight(self) -> int:
        """Return the bytes that are held for requests under way, about, and for what waits to be read."""
        return sum(one.held + one.busy * EXCHANGE for one in self.connections)

    def shed(self, on: bool) -> None:
        """Refuse new requests from now on, and keep no more of the bodies of those under way; or end that."""
        self.shedding = on
        self.replay_bytes = 0 if on else self.limits.replay_bytes

    def break_off(self, source: str) -> None:
        """Reset every connection of a source."""
        for connection in list(self.connections):
            if connection.owner == source:
                connection.reset()

    def close(self) -> None:
        """Break off everything that is still open."""
        for connection in list(self.connections):
            connection.reset()
        self.deadlines.close()


def _nowhere(_exchange: Any, _serve: Handler) -> None:
    """What a runtime without a data plane does with requests of nobody."""
