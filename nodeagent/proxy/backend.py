"""The endpoints of one Service port, running: which is next, how they are, and connections to them.

Shared by every rule that names it, and by all protocols. Taking a change into use costs what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from discovery.model import Endpoint
from middleware.contract import Handler, Layer
from nodeagent.plan.model import Affinity, BackendKey, BackendSpec, Balance, UpstreamProtocol
from nodeagent.proxy.balance import Balancer, make_balancer
from nodeagent.proxy.connection import Connection
from nodeagent.proxy.health import Health, Outcome
from nodeagent.proxy.layers import LayerContext, LayerSet, PortCounters, around
from nodeagent.proxy.message import RequestHead
from nodeagent.proxy.pool import Address, EndpointPool, Pools
from nodeagent.proxy.steering import SessionCookie, Steering, Try, key_reader
from nodeagent.proxy.streams import Pending, Source, StreamTaker
from nodeagent.stats.columns import OVERFLOW_SLOT


class Target:
    """One endpoint of a backend, running. `pool` is None until there is something to send to it."""

    __slots__ = ("endpoint", "gone", "pool")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.pool: EndpointPool | None = None
        self.gone = False
        """The plan does not have it any more."""

    @property
    def address(self) -> Address:
        """Where it is."""
        return (self.endpoint.address, self.endpoint.port)

    def __str__(self) -> str:
        return str(self.endpoint)


class Backend:
    """A backend as the plan has it (`spec`), running; without endpoints until there is a spec."""

    __slots__ = (
        "_balancer",
        "_circulating",
        "_cookie",
        "_counters",
        "_handlers",
        "_layer_set",
        "_most",
        "_pools",
        "_protocol",
        "_targets",
        "_unhealthy",
        "health",
        "key",
        "layers",
        "spec",
        "steering",
        "users",
    )

    def __init__(self, key: BackendKey, pools: Pools) -> None:
        self.key = key
        self.spec: BackendSpec | None = None
        self.users = 0
        """Rules that name it."""
        self._pools = pools
        self._protocol: UpstreamProtocol = "http1"
        self._targets: tuple[Target, ...] = ()
        self._unhealthy: frozenset[Address] = frozenset()
        """Those that fail the agent's health checks."""
        self._circulating: tuple[Target, ...] = ()
        """All others; if there are no others, all endpoints."""
        self.health: Health[Target] = Health()
        self._balancer: Balancer[Target] = make_balancer(Balance(), pools.runtime.index)
        self._cookie: SessionCookie[Target] | None = None
        self.steering: Steering[Target] | None = None
        """What choosing an endpoint needs of a request and its tries; None, as nearly always: nothing."""
        self._most = pools.runtime.limits.upstream_connections
        self._counters = PortCounters(pools.runtime, OVERFLOW_SLOT)
        context = LayerContext(pools.runtime, str(key.service), key.port, self._counters)
        self._layer_set = LayerSet(context)
        self.layers: tuple[Layer, ...] = ()
        """The layers around every request that is sent here, whichever rule sends it."""
        self._handlers: dict[Handler, Handler] = {}

    @property
    def targets(self) -> tuple[Target, ...]:
        """All endpoints, in the plan's order."""
        return self._targets

    def layered(self, handler: Handler) -> Handler:
        """Return the handler with this backend's layers around it."""
        layered = self._handlers.get(handler)
        if layered is None:
            layered = self._handlers[handler] = around(self.layers, handler)
        return layered

    def update(self, spec: BackendSpec | None, slot: int = OVERFLOW_SLOT) -> None:
        """Take a change into use; None: the backend has left the plan. Endpoints that stay keep all.

        `slot` is that of the port's counters.
        """
        self._counters.base = self._pools.runtime.layout.base(slot)
        if self._layer_set.update(spec.layers if spec is not None else ()):
            self.layers = self._layer_set.of("backend")
            self._handlers.clear()
        before = {target.address: target for target in self._targets}
        after: dict[Address, Target] = {}
        for endpoint in spec.endpoints if spec is not None else ():
            address = (endpoint.address, endpoint.port)
            if address in after:
                continue
            target = before.pop(address, None)
            if target is None:
                target = Target(endpoint)
            target.endpoint = endpoint
            after[address] = target
        for target in before.values():
            target.gone = True
            self._leave_pool(target)
        if spec is not None and spec.protocol != self._protocol:
            self._protocol = spec.protocol
            for target in after.values():
                self._leave_pool(target)
        self._targets = tuple(after.values())
        self._circulate()
        self.health.keep(self._targets)
        if spec is not None:
            if self.spec is None or (spec.balance, spec.affinity) != (self.spec.balance, self.spec.affinity):
                self._steer(spec.balance, spec.affinity)
            self._most = spec.max_connections or self._pools.runtime.limits.upstream_connections
        self.spec = spec
        self._balancer.keep(self._targets)
        if self._cookie is not None:
            self._cookie.keep(self._targets)

    def _steer(self, balance: Balance, affinity: Affinity | None) -> None:
        """Take another balancer or cookie into use; a balancer with equal options keeps what it knows."""
        if self.spec is None or balance != self.spec.balance:
            self._balancer = make_balancer(balance, self._pools.runtime.index)
        self._cookie = SessionCookie(affinity) if affinity is not None else None
        key_of = key_reader(balance.key) if balance.key is not None else None
        watching = self._balancer if self._balancer.watches else None
        needed = watching is not None or key_of is not None or self._cookie is not None
        self.steering = Steering(watching, key_of, self._cookie) if needed else None

    def set_condition(self, unhealthy: Collection[Address]) -> None:
        """Take note of all endpoints that fail the agent's health checks; there may be none."""
        self._unhealthy = frozenset(unhealthy)
        self._circulate()

    def _circulate(self) -> None:
        out = self._unhealthy
        well = tuple(one for one in self._targets if one.address not in out) if out else self._targets
        self._circulating = well or self._targets

    def _leave_pool(self, target: Target) -> None:
        if target.pool is not None:
            self._pools.release(target.pool)
            target.pool = None

    def pick(self, avoid: Collection[Target], now: float, key: bytes = b"") -> Target | None:
        """Return the next endpoint that is not in `avoid`: one that is well, else any; else None."""
        health, balancer = self.health, self._balancer
        circulating = self._circulating
        if health.troubles:
            target = balancer.pick(health.usable(circulating, now), avoid, key, now)
            if target is not None:
                return target
        return balancer.pick(circulating, avoid, key, now) or balancer.pick(self._targets, avoid, key, now)

    def pick_for(
        self, head: RequestHead | None, source: Source, avoid: Collection[Target], now: float
    ) -> tuple[Target, Try[Target]] | None:
        """Return the endpoint for a request (a tcp connection has no head), and the try that begins there.

        As `pick`, for a backend that has `steering`.
        """
        steering = self.steering
        assert steering is not None
        wish = steering.wish(head)
        if wish is not None and wish not in avoid and self._is_well(wish, now):
            target: Target | None = wish
        else:
            target = self.pick(avoid, now, steering.key(head, source))
        return (target, steering.begin(target, wish, now)) if target is not None else None

    def _is_well(self, target: Target, now: float) -> bool:
        circulating = self._circulating
        return target in (self.health.usable(circulating, now) if self.health.troubles else circulating)

    def connect(self, target: Target, taker: StreamTaker, seconds: float) -> Pending:
        """Ask for a stream that is not there yet; raises `PoolFull`."""
        pool = target.pool
        if pool is None:
            pool = self._pools.acquire(target.address, self._protocol)
            if target.gone:
                self._pools.release(pool)  # it serves what has been sent there already, and nothing else
            else:
                target.pool = pool
        return pool.wait(taker, seconds, self._most)

    def dial(
        self,
        target: Target,
        make: Callable[[], Connection],
        seconds: float,
        done: Callable[[Connection | None, Exception | None], None],
    ) -> Pending:
        """Make a connection of another kind, which is in no pool."""
        return self._pools.dialer.dial(target.address, make, seconds, done)

    def connected(self, target: Target) -> None:
        """Take note that an endpoint accepts connections."""
        if self.health.troubles:
            self.health.connected(target)

    def answered(self, target: Target) -> None:
        """Take note that an endpoint has answered."""
        if self.health.troubles:
            self.health.report(target, Outcome.ANSWERED, 0)

    def failed(self, target: Target, outcome: Outcome, now: float) -> None:
        """Take note of an endpoint's failure."""
        if not target.gone:
            self.health.report(target, outcome, now)


class Backends:
    """The backends of one worker, by key: those in the plan, and those that rules name, whether they exist or
    not.
    """

    def __init__(self, pools: Pools) -> None:
        self.pools = pools
        self._backends: dict[BackendKey, Backend] = {}

    def __len__(self) -> int:
        return len(self._backends)

    def apply(self, upserted: Iterable[tuple[BackendSpec, int]], removed: Iterable[BackendKey]) -> None:
        """Make the running backends follow the plan; each comes with its port's slot of counters."""
        for key in removed:
            backend = self._backends.get(key)
            if backend is not None:
                backend.update(None)
                self._drop_unused(backend)
        for spec, slot in upserted:
            self._get(spec.key).update(spec, slot)

    def set_condition(self, key: BackendKey, unhealthy: Collection[Address]) -> None:
        """Take note of a backend's endpoints that fail the agent's health checks."""
        backend = self._backends.get(key)
        if backend is not None:
            backend.set_condition(unhealthy)

    def acquire(self, key: BackendKey) -> Backend:
        """Return the backend of this name for one more rule."""
        backend = self._get(key)
        backend.users += 1
        return backend

    def release(self, backend: Backend) -> None:
        """One rule less names it."""
        backend.users -= 1
        self._drop_unused(backend)

    def _get(self, key: BackendKey) -> Backend:
        backend = self._backends.get(key)
        if backend is None:
            backend = self._backends[key] = Backend(key, self.pools)
        return backend

    def _drop_unused(self, backend: Backend) -> None:
        if backend.spec is None and not backend.users:
            del self._backends[backend.key]


def describe_failure(target: Target, error: Exception) -> str:
    """Say why connecting to an endpoint failed."""
    if isinstance(error, TimeoutError):
        reason = "timed out"
    else:
        reason = (getattr(error, "strerror", None) or "failed").lower()
    return f"connecting to {target} {reason}"
