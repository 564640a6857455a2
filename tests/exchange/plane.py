"""A data plane on a loop that is moved by hand: everything real from the listener to the pool."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from unittest import mock

import msgspec

from discovery.model import Endpoint, ServiceKey
from middleware import registry
from middleware.contract import Ended, ExchangeError, Layer, Middleware, OnRequest, Scope, TraceSink
from middleware.testing import FakeTable, FakeWindows
from nodeagent.plan.model import (
    Affinity,
    BackendKey,
    BackendSpec,
    LayerSpec,
    Listener,
    Match,
    Protocol,
    Rule,
    UpstreamProtocol,
    Weighted,
)
from nodeagent.proxy import backend
from nodeagent.proxy.accept import Accepted
from nodeagent.proxy.backend import Target
from nodeagent.proxy.backends import Backends
from nodeagent.proxy.balance.round_robin import RoundRobin
from nodeagent.proxy.errand import run_apart
from nodeagent.proxy.http1.client import Http1Upstream
from nodeagent.proxy.http1.server import Http1Connection
from nodeagent.proxy.http2.client import Http2Upstream
from nodeagent.proxy.http2.server import Http2Connection
from nodeagent.proxy.listeners import ListenerTable, RunningListener
from nodeagent.proxy.observer import ALL, Circulation, Closed, Refused
from nodeagent.proxy.pool import Dialer, EndpointPool, Pool, Pooled, Pools, SocketDialer
from nodeagent.proxy.runtime import Runtime
from nodeagent.proxy.shared_pool import SharedPool
from nodeagent.settings import Limits
from nodeagent.stats import columns
from nodeagent.stats.columns import FIRST_SLOT, REFUSALS, REQUESTS, Layout
from nodeagent.stats.methods import SHAPE, MethodRows
from tests.exchange.loop import HandLoop

KEY: Final = ("127.64.0.10", 80)
ENDPOINTS: Final = {name: Endpoint(f"10.1.0.{1 + index}", 8080) for index, name in enumerate("abcd")}
NAMES: Final = {(one.address, one.port): name for name, one in ENDPOINTS.items()}


class Options(msgspec.Struct, frozen=True):
    """A test's own middleware has none."""


class CountingTurns:
    """Everybody in turn, with a count of the tries that are under way: each must end, and once."""

    watches = True

    def __init__(self) -> None:
        self._turns: RoundRobin[Target] = RoundRobin()
        self.pick, self.keep, self.circulate = self._turns.pick, self._turns.keep, self._turns.circulate
        self.under_way: Counter[Target] = Counter()
        self.begins = 0
        self.heard: list[tuple[Target, bool, float]] = []
        """Endpoints in the order in which they were heard of, whether they did well, and after how long."""

    def begun(self, endpoint: Target, now: float) -> None:
        self.under_way[endpoint] += 1
        self.begins += 1

    def answered(self, endpoint: Target, took: float, now: float) -> None:
        self.heard.append((endpoint, True, took))

    def failed(self, endpoint: Target, took: float, now: float) -> None:
        self.heard.append((endpoint, False, took))

    def ended(self, endpoint: Target, waited: float, now: float) -> None:
        assert waited >= 0
        self.under_way[endpoint] -= 1
        assert self.under_way[endpoint] >= 0


class Watcher:
    """Hears of everything that is told."""

    wants_all = True
    from_status = ALL

    def __init__(self) -> None:
        self.ends: list[Ended] = []
        self.closes: list[Closed] = []
        self.refusals: list[ExchangeError] = []
        self.bugs: list[Exception] = []

    def ended(self, ended: Ended) -> None:
        self.ends.append(ended)

    def takes_reply(self, service: str, port: int, reason: str) -> bool:
        return True

    def closed(self, closed: Closed) -> None:
        self.closes.append(closed)

    def refused(self, refused: Refused) -> None:
        self.refusals.append(refused.error)

    def layer_failed(self, service: str, port: int, error: Exception) -> None:
        self.bugs.append(error)

    def circulated(self, circulation: Circulation) -> None:
        raise AssertionError(circulation)


class Plane:
    """One Service, `default/web`, with the endpoints named; and `default/other`, with endpoint `d`.

    `layers` are a test's own, by scope, inside of those that `annotations` ask for.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        endpoints: str = "a",
        annotations: Mapping[str, str] | None = None,
        layers: Sequence[tuple[Scope, Layer | OnRequest]] = (),
        protocol: Protocol = "http",
        trailers: bool = False,
        upstream: UpstreamProtocol = "http1",
        affinity: Affinity | None = None,
        make: Callable[[Pool], Pooled] = Http1Upstream,
        dialer: Callable[[asyncio.AbstractEventLoop], Dialer] = SocketDialer,
        wall: Callable[[], float] | None = None,
        traces: TraceSink | None = None,
    ) -> None:
        self.loop = HandLoop()
        self.watcher = Watcher()
        self.layout = Layout(registry.MIDDLEWARES, REFUSALS)
        self.cells = memoryview(bytearray(8 * 4 * self.layout.slot_columns)).cast("q")
        self.methods = memoryview(bytearray(8 * 16 * SHAPE.row)).cast("q")
        self.limits = limits or Limits()
        self.runtime = Runtime(
            self.loop.asyncio,
            self.limits,
            self.layout,
            self.cells,
            FakeTable(),
            FakeWindows(),
            self.watcher,
            now=self.loop.time,
            methods=MethodRows(self.methods),
            wall=wall,
            traces=traces,
        )
        self.runtime.run_apart = run_apart
        dials = dialer(self.loop.asyncio)
        self.backends = Backends(
            Pools(
                self.runtime,
                dials,
                {
                    "http1": lambda address: Pool(address, self.runtime, dials, make),
                    "http2": lambda address: SharedPool(address, self.runtime, dials, Http2Upstream),
                },
            )
        )
        self.listeners = ListenerTable(self.runtime, self.backends)
        own = [_middleware(f"own-{index}", *layer) for index, layer in enumerate(layers)]
        specs = [*_asked(annotations or {}), *(LayerSpec(one.name, Options()) for one in own)]
        self._installed = registry.Installed((*registry.MIDDLEWARES, *own))
        self.web = BackendKey(ServiceKey("default", "web"), 80)
        self.other = BackendKey(ServiceKey("default", "other"), 80)
        self.balancers: list[CountingTurns] = []
        self.affinity = affinity

        def make_balancer(*_: object) -> CountingTurns:
            self.balancers.append(CountingTurns())
            return self.balancers[-1]

        with (
            mock.patch.object(registry, "installed", return_value=self._installed),
            mock.patch.object(backend, "make_balancer", make_balancer),
        ):
            scopes = {spec.name: registry.by_name(spec.name).scope for spec in specs}
            placed = {
                place: tuple(spec for spec in specs if scopes[spec.name] in place)
                for place in (("connection", "request", "listener"), ("rule", "try"), ("backend",))
            }
            rule = Rule("all", (Weighted(self.web),), layers=placed["rule", "try"])
            listener = Listener(
                self.web.service,
                "web",
                *KEY,
                80,
                protocol,
                (rule,),
                layers=placed["connection", "request", "listener"],
                backends=(("other", self.other),),
                trailers=trailers,
            )
            self.spec = listener
            self.backend_layers = placed["backend",]
            self.upstream = upstream
            self.endpoints(endpoints)
            self.backends.apply([(BackendSpec(self.other, (ENDPOINTS["d"],)), FIRST_SLOT + 1)], ())
            self.listeners.apply([(listener, FIRST_SLOT)], ())

    def endpoints(self, names: str) -> None:
        """Have the plan say so."""
        chosen = tuple(ENDPOINTS[name] for name in names)
        spec = BackendSpec(
            self.web,
            chosen,
            layers=self.backend_layers,
            protocol=self.upstream,
            affinity=self.affinity,
        )
        self.backends.apply([(spec, FIRST_SLOT)], ())

    def removed(self) -> None:
        """Have the plan say that the Service has left the mesh."""
        for ended in self.listeners.apply((), [KEY]):
            for connection in self.runtime.connections:
                if isinstance(connection, Http1Connection | Http2Connection) and connection.listener is ended:
                    connection.listener_removed()

    def takes_only(self, match: Match) -> None:
        """Have the plan say that its rule takes nothing else."""
        (rule,) = self.spec.rules
        self.spec = msgspec.structs.replace(self.spec, rules=(msgspec.structs.replace(rule, match=match),))
        self.restored()

    def restored(self) -> None:
        """Have the plan say that it is in the mesh."""
        with mock.patch.object(registry, "installed", return_value=self._installed):
            self.listeners.apply([(self.spec, FIRST_SLOT)], ())

    @property
    def heard(self) -> list[tuple[str, bool, float]]:
        """What the balancer was told of endpoints, by their names, with rounded times."""
        return [
            (NAMES[target.address], well, round(took, 2))
            for balancer in self.balancers
            for target, well, took in balancer.heard
        ]

    @property
    def under_way(self) -> dict[str, int]:
        """Tries that the balancer counts, by the endpoint's name."""
        total = sum((one.under_way for one in self.balancers), Counter())
        return {NAMES[target.address]: number for target, number in total.items()}

    @property
    def listener(self) -> RunningListener:
        running = self.listeners.get(KEY)
        assert running is not None
        return running

    @property
    def pools(self) -> list[EndpointPool]:
        return list(self.backends.pools._pools.values())

    def accepted(self) -> Accepted:
        """Return what serves a new connection to the listener."""
        return Accepted(self.runtime, self.listeners, lambda _: KEY)

    def count(self, column: int) -> int:
        return int(self.cells[self.layout.base(FIRST_SLOT) + column])

    @property
    def ended(self) -> int:
        """Exchanges that have been counted."""
        return sum(self.count(REQUESTS + number) for number in range(6))

    def passes(self, seconds: float) -> None:
        """Let time pass; the worker sweeps once a second."""
        while seconds > 0:
            self.loop.advance(min(seconds, 1.0))
            self.sweep()
            seconds -= 1.0

    def sweep(self) -> None:
        with self.loop.running():
            self.runtime.sweep()
        self.loop.settle()

    def check_nothing_left(self) -> None:
        """Check that all that was under way has ended, and was counted once."""
        assert not self.loop.busy
        assert not self.loop.attempts
        assert not self.runtime.connections
        assert self.runtime.clients == 0
        assert not any(one.under_way.total() for one in self.balancers)
        assert not self.runtime._by_source
        assert self.count(columns.CONNECTIONS_ACTIVE) == 0
        for pool in self.pools:
            assert (pool.open, pool.waiting) == (0, 0), str(pool)
            assert not isinstance(pool, Pool) or not pool._idle
        assert not any(self.runtime.deadlines._buckets.values())
        assert self.runtime.window_budget.left == self.limits.windows
        assert self.ended == len(self.watcher.ends)


def _middleware(name: str, scope: Scope, layer: Layer | OnRequest) -> Middleware:
    def build(_options: Any, _context: Any) -> Layer | OnRequest:
        return layer

    return Middleware(name, (), Options, lambda _: None, build, scope=scope)


def _asked(annotations: Mapping[str, str]) -> list[LayerSpec]:
    specs = []
    for middleware in registry.MIDDLEWARES:
        options = middleware.parse(annotations)
        if options is not None:
            assert isinstance(options, middleware.options), options
            specs.append(LayerSpec(middleware.name, options))
    return specs
