"""The data plane of one worker: which routes run, which connections are open, what the time is.

It knows nothing of processes, plans' versions or files: the worker (`nodeagent.worker`) gives it routes,
sockets, counters and an observer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from middleware.contract import ExchangeError, SharedTable
from nodeagent.plan.model import Route, RouteKey, Upstream
from nodeagent.proxy.downstream import DownstreamConnection
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.pool import Pool
from nodeagent.proxy.respond import HeadTimeout
from nodeagent.proxy.route import HttpRoute, TcpRoute
from nodeagent.proxy.tcp import TcpDownstream
from nodeagent.settings import Limits
from nodeagent.stats.columns import (
    WORKER_REFUSED_LIMIT,
    WORKER_REFUSED_NO_ROUTE,
    WORKER_SLOT,
    Layout,
)


class Observer(Protocol):
    """Who is told what happens to single requests, for the access log."""

    def exchange_ended(self, route: HttpRoute, exchange: Exchange, took: float) -> None:
        """Learn of an exchange that ended; `took` in seconds."""
        ...

    def refused(self, route: TcpRoute, source: str, error: ExchangeError) -> None:
        """Learn of a request or connection that was refused before there was an exchange."""
        ...

    def layer_failed(self, route: HttpRoute, error: Exception) -> None:
        """Learn that a middleware raised what it may not raise."""
        ...


class Proxy:
    """The routes and connections of one worker. `index` is the worker's number on its node, from 0."""

    now = staticmethod(time.monotonic)

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        layout: Layout,
        cells: memoryview,
        shared: SharedTable,
        observer: Observer | None = None,
        index: int = 0,
    ) -> None:
        self.loop = loop
        self.limits = limits
        self.layout = layout
        self.cells = cells
        self.shared = shared
        self.observer = observer
        self.index = index
        self.draining = False
        self.connections: set[DownstreamConnection | TcpDownstream] = set()
        self._routes: dict[RouteKey, TcpRoute] = {}
        self._pools: dict[Upstream, Pool] = {}
        self._by_source: Counter[str] = Counter()

    # Plan

    def apply(self, upserted: Iterable[tuple[Route, int]], removed: Iterable[RouteKey]) -> None:
        """Make the running routes follow the plan; each route comes with its slot of counters."""
        gone: set[Upstream] = set()
        ended: set[TcpRoute] = set()
        for key in removed:
            running = self._routes.pop(key, None)
            if running is not None:
                gone.update(running.spec.upstreams)
                self._end(running, ended)
        for route, slot in upserted:
            running = self._routes.get(route.key)
            kind = HttpRoute if route.protocol == "http" else TcpRoute
            same = running is not None and type(running) is kind and running.spec.service == route.service
            if running is not None:
                gone.update(running.spec.upstreams)
            if running is not None and same and running.port == route.port:
                running.update(route, slot)
                continue
            if running is not None:
                self._end(running, ended)
            self._routes[route.key] = kind(self, route, slot)
        if gone:
            self._drop_pools(gone)
        if ended:
            for connection in list(self.connections):
                if connection.route in ended:
                    connection.route_removed()

    @staticmethod
    def _end(route: TcpRoute, ended: set[TcpRoute]) -> None:
        route.removed = True
        ended.add(route)

    def _drop_pools(self, candidates: set[Upstream]) -> None:
        """Close the connections to endpoints that no route has any more."""
        candidates = {upstream for upstream in candidates if upstream in self._pools}
        if candidates:
            for route in self._routes.values():
                candidates.difference_update(route.spec.upstreams)
        for upstream in candidates:
            self._pools.pop(upstream).close()

    def pool(self, upstream: Upstream) -> Pool:
        """Return the connections to an endpoint."""
        pool = self._pools.get(upstream)
        if pool is None:
            pool = self._pools[upstream] = Pool(upstream, self.limits, self.loop)
        return pool

    def route(self, key: RouteKey) -> TcpRoute | None:
        """Return the running route for a mesh address and port."""
        return self._routes.get(key)

    def http_route(self, key: RouteKey) -> HttpRoute | None:
        """Return the running route for a mesh address and port if it is an http one."""
        route = self._routes.get(key)
        return route if isinstance(route, HttpRoute) else None

    # Connections

    def admit(self, key: RouteKey, source: str) -> TcpRoute | None:
        """Return the route for a new connection, None if it must be refused; counts it for its source."""
        route = self._routes.get(key)
        if route is None:
            self.count(WORKER_REFUSED_NO_ROUTE)
            return None
        if self._by_source[source] >= self.limits.connections_per_source:
            self.count(WORKER_REFUSED_LIMIT)
            return None
        self._by_source[source] += 1
        return route

    def connection_closed(self, source: str) -> None:
        """Forget one connection of this source."""
        left = self._by_source[source] - 1
        if left > 0:
            self._by_source[source] = left
        else:
            del self._by_source[source]

    def sweep(self) -> None:
        """Once a second: end what is over its time, and idle connections to endpoints."""
        now = self.now()
        for connection in list(self.connections):
            if connection.deadline <= now:
                connection.expire(now)
            elif self.draining:
                connection.drain(now)
        oldest = now - self.limits.upstream_idle_time
        for pool in self._pools.values():
            pool.close_idle(oldest)

    def close(self) -> None:
        """Break off everything that is still open."""
        for connection in list(self.connections):
            connection.transport.abort()
        for pool in self._pools.values():
            pool.close()

    # Telling

    def count(self, column: int, amount: int = 1) -> None:
        """Add to one of the worker's own counters."""
        self.cells[self.layout.base(WORKER_SLOT) + column] += amount

    def refused(self, route: TcpRoute, error: ExchangeError, source: str = "") -> None:
        """Count a request that was refused before there was an exchange."""
        if error.status != HeadTimeout.status:
            self.count(self.layout.malformed_column(error.reason))
        if self.observer is not None:
            self.observer.refused(route, source, error)

    def tcp_failed(self, route: TcpRoute, source: str, tried: tuple[Upstream, ...]) -> None:
        """Tell that no endpoint took a tcp connection."""
        from middleware.contract import ConnectFailed, NoEndpoint

        if self.observer is not None:
            error = (
                ConnectFailed(f"none of {', '.join(map(str, tried))} accepts connections")
                if tried
                else NoEndpoint(f"{route.service} has no ready endpoint for port {route.port}")
            )
            self.observer.refused(route, source, error)

    def layer_failed(self, route: HttpRoute, error: Exception) -> None:
        """Tell of a middleware's bug."""
        if self.observer is not None:
            self.observer.layer_failed(route, error)
