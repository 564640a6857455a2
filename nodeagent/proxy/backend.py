"""The endpoints of one Service port, running: which is next, how they are, and connections to them.

Shared by every rule that names it, and by all protocols. Taking a change into use costs what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from discovery.model import Endpoint
from middleware.contract import Handler, Layer
from nodeagent.plan.model import Affinity, BackendKey, BackendSpec, Balance, UpstreamProtocol
from nodeagent.proxy.balance import Balancer, make_balancer
from nodeagent.proxy.circulation import circulation_of
from nodeagent.proxy.health import Health, Outcome
from nodeagent.proxy.layers import LayerContext, LayerSet, PortCounters, around
from nodeagent.proxy.message import RequestHead
from nodeagent.proxy.observer import Circulation
from nodeagent.proxy.outliers import CONNECT_FAILURE, RESET, TIMEOUT, Change, Outliers
from nodeagent.proxy.pool import Address, EndpointPool, Made, Pools
from nodeagent.proxy.steering import SessionCookie, Steering, Try, key_reader
from nodeagent.proxy.streams import Pending, Source, StreamTaker
from nodeagent.stats.columns import FAILOVERS, OUTLIER_EJECTIONS, OVERFLOW_SLOT

_KINDS = {Outcome.CONNECT_FAILED: CONNECT_FAILURE, Outcome.RESET: RESET, Outcome.TIMEOUT: TIMEOUT}


class Target:
    """One endpoint of a backend, running. `pool` is None until there is something to send to it."""

    __slots__ = ("_name", "endpoint", "gone", "pool")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._name = ""
        self.pool: EndpointPool | None = None
        self.gone = False
        """The plan does not have it any more."""

    @property
    def address(self) -> Address:
        """Where it is."""
        return (self.endpoint.address, self.endpoint.port)

    @property
    def name(self) -> str:
        """`address:port`, as lines and spans show it; made for the first of them."""
        if not self._name:
            self._name = str(self.endpoint)
        return self._name

    def __str__(self) -> str:
        return self.name


class Backend:
    """A backend as the plan has it (`spec`), running; without endpoints until there is a spec."""

    __slots__ = (
        "_balancer",
        "_circulating",
        "_cookie",
        "_counters",
        "_fewest",
        "_handlers",
        "_layer_set",
        "_most",
        "_pools",
        "_protocol",
        "_spare",
        "_targets",
        "_unhealthy",
        "_wider",
        "attentive",
        "failover",
        "health",
        "key",
        "layers",
        "outliers",
        "spec",
        "steering",
        "users",
        "zone",
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
        """Where requests go: all others, or those of them in this zone; if there are no others, `_spare`."""
        self._fewest = 1
        self._wider: tuple[Target, ...] = ()
        """Where they go if fewer than `_fewest` of `_circulating` accept connections: those of all zones."""
        self._spare: tuple[Target, ...] = ()
        """Where they go rather than nowhere."""
        self.health: Health[Target] = Health()
        self.outliers: Outliers[Target] | None = None
        """If the plan asks for outlier detection."""
        self.attentive = False
        """Whether `answered` is to be called."""
        self.zone = ""
        """The node's, if the plan asks for locality and it is known."""
        self.failover: Backend | None = None
        """Where requests go while no endpoint is healthy: then `pick` returns None."""
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
        self._detect(spec)
        self._circulate(spec)
        self.health.keep(self._targets)
        self._listen()
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
        self._circulate(self.spec)

    def locate(self, zone: str) -> None:
        """Take note of the node's zone."""
        if zone != self.zone:
            self.zone = zone
            self._circulate(self.spec)

    def fail_over_to(self, other: Backend | None) -> None:
        """Send requests there while no endpoint is healthy."""
        self.failover = other
        self._circulate(self.spec)

    def _circulate(self, spec: BackendSpec | None) -> None:
        """Find out anew where requests go."""
        ejected = self.outliers.ejected if self.outliers is not None else ()
        locality = spec.locality if spec is not None else None
        found = circulation_of(
            self._targets, self._unhealthy, ejected, locality, self.zone, self.failover is not None
        )
        self._balancer.circulate(found.well)
        self._spare, self._fewest = found.spare, found.fewest
        self._circulating, self._wider = found.used, found.wider

    def _detect(self, spec: BackendSpec | None) -> None:
        """Make outlier detection follow the plan."""
        options = spec.outlier_detection if spec is not None else None
        now = self._pools.runtime.now()
        if options is None:
            self.outliers = None
        elif self.outliers is None:
            self.outliers = Outliers(options, self._targets, now)
        else:
            self._tell(self.outliers.update(options, self._targets))

    def advance(self, now: float) -> None:
        """Let time pass for outlier detection, which is on."""
        if self.outliers is not None:
            self._tell(self.outliers.advance(now))

    def ejected(self) -> Mapping[Address, str]:
        """Return the endpoints that outlier detection has ejected, each with the reason."""
        if self.outliers is None:
            return {}
        return {target.address: known.reason for target, known in self.outliers.ejected.items()}

    def _tell(self, changes: Iterable[Change[Target]]) -> None:
        """Take changes of outlier detection into use, count them and tell of them."""
        outliers = self.outliers
        assert outliers is not None
        told = False
        for change in changes:
            told = True
            if change.ejected:
                self._counters.count(OUTLIER_EJECTIONS)
            self._pools.runtime.observer.circulated(
                Circulation(
                    str(self.key.service),
                    self.key.port,
                    str(change.endpoint),
                    change.ejected,
                    change.reason,
                    change.seconds,
                    change.times,
                    len(self._targets) - len(outliers.ejected),
                )
            )
        if told:
            self._circulate(self.spec)

    def _listen(self) -> None:
        self.attentive = self.outliers is not None or bool(self.health.troubles)

    def _leave_pool(self, target: Target) -> None:
        if target.pool is not None:
            self._pools.release(target.pool)
            target.pool = None

    def pick(self, avoid: Collection[Target], now: float, key: bytes = b"") -> Target | None:
        """Return the next endpoint that is not in `avoid`: one that is well, else any; else None."""
        health, balancer = self.health, self._balancer
        circulating = self._circulating
        if health.troubles:
            usable = health.usable(circulating, now)
            if len(usable) < self._fewest:
                usable = health.usable(self._wider, now)
                if not usable and self.failover is not None:
                    return None
            target = balancer.pick(usable, avoid, key, now)
            if target is not None:
                return target
        target = balancer.pick(circulating, avoid, key, now)
        if target is None and self.failover is None:
            target = balancer.pick(self._spare, avoid, key, now)
        return target

    def failed_over(self) -> None:
        """Count a request that goes to an endpoint of `failover`."""
        self._counters.count(FAILOVERS)

    def last_resort(self, avoid: Collection[Target], now: float) -> Target | None:
        """Return an endpoint rather than none, if `failover` has none either."""
        return self._balancer.pick(self._spare, avoid, b"", now)

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

    def pick_second(
        self, head: RequestHead, source: Source, avoid: Collection[Target], now: float
    ) -> Target | None:
        """Return the endpoint for a second try beside the first; `begin_second` says that it begins."""
        steering = self.steering
        return self.pick(avoid, now, steering.key(head, source) if steering is not None else b"")

    def begin_second(self, head: RequestHead, target: Target, now: float) -> Try[Target] | None:
        """A second try begins; None: nobody wants to know of it."""
        steering = self.steering
        return steering.begin_second(target, head, now) if steering is not None else None

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
        make: Callable[[], Made],
        seconds: float,
        done: Callable[[Made | None, Exception | None], None],
    ) -> Pending:
        """Make a connection of another kind, which is in no pool."""
        return self._pools.dialer.dial(target.address, make, seconds, done)

    def connected(self, target: Target) -> None:
        """Take note that an endpoint accepts connections."""
        if self.health.troubles:
            self.health.connected(target)
            self._listen()

    def answered(self, target: Target) -> None:
        """Take note that an endpoint has answered, whatever it said."""
        if self.health.troubles:
            self.health.report(target, Outcome.ANSWERED, 0)
            self._listen()

    def accepted(self, target: Target) -> None:
        """Take note that an endpoint has accepted a tcp connection, of which nothing more is known."""
        if self.outliers is not None:
            self.outliers.passed(target)

    def said(self, target: Target, status: int) -> None:
        """Take note of an answer, for outlier detection; `status` is that of HTTP, or corresponds to it."""
        outliers = self.outliers
        if outliers is None:
            return
        if not outliers.counts(status):
            outliers.passed(target)
        elif change := outliers.failed(target, str(status), self._pools.runtime.now()):
            self._tell((change,))

    def garbled(self, target: Target) -> None:
        """Take note, for outlier detection, of an answer that cannot be passed on."""
        outliers = self.outliers
        if outliers is not None and (change := outliers.failed(target, RESET, self._pools.runtime.now())):
            self._tell((change,))

    def failed(self, target: Target, outcome: Outcome, now: float) -> None:
        """Take note of an endpoint's failure."""
        if target.gone:
            return
        self.health.report(target, outcome, now)
        self.attentive = True
        if self.outliers is not None and (change := self.outliers.failed(target, _KINDS[outcome], now)):
            self._tell((change,))


def describe_failure(target: Target, error: Exception) -> str:
    """Say why connecting to an endpoint failed."""
    if isinstance(error, TimeoutError):
        reason = "timed out"
    else:
        reason = (getattr(error, "strerror", None) or "failed").lower()
    return f"connecting to {target} {reason}"
