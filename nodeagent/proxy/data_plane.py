"""The data plane of one worker, wired together. The other modules here know nothing above them.

It knows nothing of processes, plans' versions or files: the worker (`nodeagent.worker`) gives it listeners
and backends, sockets, counters and an observer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from middleware.contract import SharedTable, TokenStore, TraceSink
from nodeagent.plan.model import BackendKey, BackendSpec, Listener, ListenerKey, UpstreamProtocol
from nodeagent.proxy.accept import Accepted, Destination
from nodeagent.proxy.backends import Backends
from nodeagent.proxy.census import CensusTaker
from nodeagent.proxy.errand import run_apart
from nodeagent.proxy.http1.client import Http1Upstream
from nodeagent.proxy.http1.server import Http1Connection
from nodeagent.proxy.http2.client import Http2Upstream
from nodeagent.proxy.http2.server import Http2Connection
from nodeagent.proxy.listeners import ListenerTable
from nodeagent.proxy.observer import Observer
from nodeagent.proxy.pool import Address, Dialer, EndpointPool, Pool, Pools, SocketDialer
from nodeagent.proxy.runtime import Identify, Runtime, Windows
from nodeagent.proxy.shared_pool import SharedPool
from nodeagent.settings import Limits
from nodeagent.stats.columns import (
    WORKER_CLIENTS,
    WORKER_EXCHANGES,
    WORKER_LONGEST_PAUSE,
    WORKER_PAUSED,
    WORKER_SLOT,
    WORKER_UPSTREAMS_ACTIVE,
    WORKER_UPSTREAMS_IDLE,
    WORKER_WAITING,
    Layout,
)
from nodeagent.stats.edges import EdgeRows
from nodeagent.stats.identity import UNKNOWN
from nodeagent.stats.methods import MethodRows

COUNTED: Final = 4096
"""Connections a second that are looked at: with more, they are counted less often."""


def make_pools(runtime: Runtime, dialer: Dialer) -> Pools:
    """Return the pools of one worker, for all protocols that endpoints speak."""
    kinds: dict[UpstreamProtocol, Callable[[Address], EndpointPool]] = {
        "http1": lambda address: Pool(address, runtime, dialer, Http1Upstream),
        "http2": lambda address: SharedPool(address, runtime, dialer, Http2Upstream),
    }
    return Pools(runtime, dialer, kinds)


class DataPlane:
    """Listeners, backends and connections of one worker. `index` is the worker's number on its node."""

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
        dialer: Dialer | None = None,
        now: Callable[[], float] = time.monotonic,
        methods: MethodRows | None = None,
        workload: Callable[[str], str] = lambda _address: "",
        tokens: TokenStore | None = None,
        wall: Callable[[], float] | None = None,
        edges: EdgeRows | None = None,
        identify: Identify = lambda _address, _before: UNKNOWN,
        traces: TraceSink | None = None,
    ) -> None:
        self.runtime = Runtime(
            loop,
            limits,
            layout,
            cells,
            shared,
            windows,
            observer,
            index,
            now,
            methods,
            workload,
            tokens,
            wall,
            edges,
            identify,
            traces,
        )
        self.runtime.run_apart = run_apart
        self.backends = Backends(make_pools(self.runtime, dialer or SocketDialer(loop)))
        self.listeners = ListenerTable(self.runtime, self.backends)
        self._census = CensusTaker()
        self._next_count = 0.0

    def apply(
        self,
        listeners: Iterable[tuple[Listener, int]] = (),
        removed: Iterable[ListenerKey] = (),
        backends: Iterable[tuple[BackendSpec, int]] = (),
        removed_backends: Iterable[BackendKey] = (),
    ) -> None:
        """Make what runs follow the plan; each part comes with its slot of counters. Costs what changed."""
        self.backends.apply(backends, ())
        ended = self.listeners.apply(listeners, removed)
        self.backends.apply((), removed_backends)
        if ended:
            for connection in list(self.runtime.connections):
                if isinstance(connection, Http1Connection | Http2Connection) and connection.listener in ended:
                    connection.listener_removed()

    def accepted(self, destination: Destination) -> Accepted:
        """Return what serves a new connection; `destination` finds out where it was meant to go."""
        return Accepted(self.runtime, self.listeners, destination)

    def tap(self, services: Mapping[str, int]) -> None:
        """Tell of the exchanges of these Services that end with such a status or a higher one, or an error,
        and no more of others than usual.
        """
        self.listeners.tap(services)

    def requests(self, services: frozenset[str]) -> dict[str, int]:
        """Return how many exchanges of each of these Services have ended in this worker."""
        return self.listeners.requests(services)

    def drain(self) -> None:
        """Keep no connection open for a further request from now on."""
        self.runtime.draining = True

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return self.runtime.clients

    def sweep(self) -> None:
        """Once a second: end what is over its time."""
        self.runtime.sweep()
        self.runtime.edges.tick(self.runtime.now())

    def sources_changed(self) -> None:
        """Have each connection find out again who its client is."""
        self.runtime.edges.forget()

    def count(self) -> None:
        """Write what is open and under way now into the worker's gauges."""
        runtime = self.runtime
        now = runtime.now()
        if now < self._next_count:
            return
        self._next_count = now + len(runtime.connections) / COUNTED
        census = self._census.take(runtime.connections, now)
        cells, base = runtime.cells, runtime.layout.base(WORKER_SLOT)
        cells[base + WORKER_CLIENTS] = census.clients
        cells[base + WORKER_EXCHANGES] = census.exchanges
        cells[base + WORKER_UPSTREAMS_ACTIVE] = census.upstreams_active
        cells[base + WORKER_UPSTREAMS_IDLE] = census.upstreams_idle
        cells[base + WORKER_WAITING] = self.backends.pools.waiting
        cells[base + WORKER_PAUSED] = census.paused
        cells[base + WORKER_LONGEST_PAUSE] = int(census.longest_pause * 1e6)

    def close(self) -> None:
        """Break off everything that is still open."""
        self.runtime.close()
