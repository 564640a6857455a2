"""The running side of a route: its balancer, its chain of layers, its counters.

Built once for each port of the plan and called for every request. `update` takes a changed `Route` into use
and keeps what did not change, layers' state included.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from middleware.contract import Handler, Layer, Metric
from middleware.registry import by_name
from nodeagent.plan.model import LayerSpec, Route, RouteKey
from nodeagent.proxy.balancer import RoundRobin
from nodeagent.stats.columns import (
    BYTES_RECEIVED,
    BYTES_SENT,
    DURATION_BOUNDS,
    DURATION_BUCKETS,
    DURATION_SUM,
    MESH_RESPONSES,
    REQUESTS,
)

if TYPE_CHECKING:
    from middleware.contract import SharedTable
    from nodeagent.proxy.exchange import Exchange
    from nodeagent.proxy.proxy import Proxy


class TcpRoute:
    """A tcp port of a Service, running. `removed` is set when the plan no longer has it."""

    def __init__(self, proxy: Proxy, route: Route, slot: int) -> None:
        self.proxy = proxy
        self.key: RouteKey = route.key
        self.service = str(route.service)
        self.port = route.port
        self.default_host = f"{route.address}:{route.mesh_port}".removesuffix(":80").encode("ascii")
        """What Host says to the endpoint when a client of HTTP/1.0 says none."""
        self.removed = False
        self.spec = route
        self.balancer = RoundRobin(route.upstreams, first=proxy.index)
        self._cells = proxy.cells
        self._base = proxy.layout.base(slot)

    def count(self, column: int, amount: int = 1) -> None:
        """Add to one of this port's counters."""
        self._cells[self._base + column] += amount

    def set(self, column: int, value: int) -> None:
        """Set one of this port's gauges."""
        self._cells[self._base + column] = value

    def update(self, route: Route, slot: int) -> None:
        """Take a changed plan for this port into use."""
        self._base = self.proxy.layout.base(slot)
        if route.upstreams != self.spec.upstreams:
            self.balancer.replace(route.upstreams)
        self.spec = route


class HttpRoute(TcpRoute):
    """An http port of a Service, running. `handler` is None where no layer is in the way."""

    def __init__(self, proxy: Proxy, route: Route, slot: int) -> None:
        super().__init__(proxy, route, slot)
        self._layers: dict[str, tuple[Any, Layer]] = {}
        self.handler: Handler | None = None
        self._chain(route.layers)

    def update(self, route: Route, slot: int) -> None:
        """Take a changed plan for this port into use; layers with equal options keep their state."""
        layers = self.spec.layers
        super().update(route, slot)
        if route.layers != layers:
            self._chain(route.layers)

    def _chain(self, specs: tuple[LayerSpec, ...]) -> None:
        built: dict[str, tuple[Any, Layer]] = {}
        for spec in specs:
            options, layer = self._layers.get(spec.name, (None, None))
            if layer is None or options != spec.options:
                layer = by_name(spec.name).build(spec.options, RouteContext(self))
            built[spec.name] = (spec.options, layer)
        self._layers = built
        handler: Handler | None = None
        for _, layer in reversed(built.values()):
            handler = layer(handler or _forward)
        self.handler = handler

    def record(self, exchange: Exchange, now: float | None = None) -> None:
        """Count an exchange that has ended; `now` as of `Proxy.now`."""
        cells, base = self._cells, self._base
        if now is None:
            now = self.proxy.now()
        took = now - exchange.started
        cells[base + REQUESTS + exchange.status // 100] += 1
        cells[base + DURATION_BUCKETS + bisect_left(DURATION_BOUNDS, took)] += 1
        cells[base + DURATION_SUM] += int(took * 1e6)
        cells[base + BYTES_RECEIVED] += exchange.received
        cells[base + BYTES_SENT] += exchange.sent
        if exchange.error is not None and exchange.status == exchange.error.status:
            cells[base + MESH_RESPONSES] += 1
        if self.proxy.observer is not None:
            self.proxy.observer.exchange_ended(self, exchange, took)


def _forward(request: Any) -> Any:
    """Send the request to an endpoint: the end of every chain."""
    return request.forward()


class RouteContext:
    """What a layer gets when it is built. Implements `middleware.contract.Context`."""

    def __init__(self, route: HttpRoute) -> None:
        self._route = route

    @property
    def service(self) -> str:
        """`namespace/name`."""
        return self._route.service

    @property
    def port(self) -> int:
        """The Service's port."""
        return self._route.port

    @property
    def shared(self) -> SharedTable:
        """Numbers that all workers of the node share."""
        return self._route.proxy.shared

    def now(self) -> float:
        """The monotonic clock, in seconds."""
        return self._route.proxy.now()

    def counter(self, metric: Metric) -> Callable[[int], None]:
        """Return a function that adds to this metric."""
        column = self._route.proxy.layout.column(metric)
        return lambda amount: self._route.count(column, amount)

    def gauge(self, metric: Metric) -> Callable[[int], None]:
        """Return a function that sets this metric."""
        column = self._route.proxy.layout.column(metric)
        return lambda value: self._route.set(column, value)
