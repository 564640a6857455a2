"""The running side of a listener: a port at a mesh address, its rules, its layers, its counters.

Built once for each port of the plan and called for every request. `update` takes a changed `Listener` into
use and keeps what did not change, layers' state included.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from middleware.contract import Ended, ExchangeError, Gate, Handler, Journey, OnRequest, Reply, Response
from middleware.grpc import GrpcStatus
from middleware.trace_context import trace_id_in
from middleware.weights import SmoothWeights
from nodeagent.plan.model import BackendKey, LineChoice, Listener, ListenerKey, Rule
from nodeagent.proxy.backend import Backend, Target
from nodeagent.proxy.backends import Backends
from nodeagent.proxy.layers import LayerContext, LayerSet, PortCounters, around
from nodeagent.proxy.message import Fields, RequestHead
from nodeagent.proxy.observer import ALL, FAILURES, Refused
from nodeagent.proxy.rules import RuleTable
from nodeagent.proxy.runtime import Runtime
from nodeagent.proxy.streams import ClientStream, Source
from nodeagent.stats.columns import (
    BYTES_RECEIVED,
    BYTES_SENT,
    DURATION_BOUNDS,
    DURATION_BUCKETS,
    DURATION_SUM,
    GRPC_CALLS,
    MESH_RESPONSES,
    OVERFLOW_SLOT,
    REQUESTS,
)
from nodeagent.stats.methods import PortMethods

CLASSES: Final = 6
"""Of statuses, by their first digit, 0 for none: so many columns from `REQUESTS` on."""


class Finished(Protocol):
    """An exchange that has ended, as it is counted and reported."""

    client: ClientStream
    started: float
    status: int
    error: ExchangeError | None
    own_reply: Reply | None
    """What the mesh answered by itself; None: an endpoint answered, or nobody."""

    @property
    def grpc_status(self) -> GrpcStatus | None:
        """The status that a caller of gRPC got."""
        ...

    def journey(self, now: float) -> Journey | None:
        """Return its stages, if they were wanted."""
        ...

    @property
    def method(self) -> str:
        """The request's method."""
        ...

    @property
    def target(self) -> str:
        """The request's target."""
        ...

    @property
    def target_used(self) -> Target | None:
        """The endpoint of the last try."""
        ...

    @property
    def head(self) -> RequestHead:
        """The request's head."""
        ...


class RunningRule:
    """A rule, running. `handler` is None where no layer is in the way."""

    __slots__ = ("_backends", "_choice", "_layers", "_running", "backend", "handler", "spec")

    def __init__(self, spec: Rule, context: LayerContext, backends: Backends) -> None:
        self._backends = backends
        self._layers = LayerSet(context.of_rule(spec.name))
        self._running: tuple[Backend, ...] = ()
        self.handler: Handler | None = None
        self._take(spec)

    def _take(self, spec: Rule) -> None:
        before = self._running
        self._running = tuple(self._backends.acquire(weighted.backend) for weighted in spec.backends)
        for backend in before:
            self._backends.release(backend)
        self._layers.update(spec.layers)
        weights = [weighted.weight for weighted in spec.backends]
        self._choice = SmoothWeights(weights) if any(weights) else None
        self.backend: Backend | None = self._running[0] if len(self._running) == 1 else None
        """The only backend, which nearly every rule has: a short cut."""
        self.spec = spec

    def update(self, spec: Rule) -> None:
        """Take a changed rule into use; layers with equal options keep their state."""
        if spec != self.spec:
            self._take(spec)

    def compose(self, outer: LayerSet) -> None:
        """Make the handler of the layers of listener, rule, chosen backend and try, from the outside in."""
        layers = (*outer.of("listener"), *self._layers.of("rule"))
        tries = self._layers.of("try")
        self.handler = around(layers, _backend_stage(around(tries, send))) if layers or tries else None

    def choose(self) -> Backend | None:
        """Return the backend that is next; None if none has a weight."""
        return self._running[self._choice.pick()] if self._choice is not None else None

    def leave(self) -> None:
        """Release its backends: it is not used any more."""
        for backend in self._running:
            self._backends.release(backend)


class RunningListener:
    """A listener, running. `removed` is set when the plan no longer has it."""

    def __init__(self, runtime: Runtime, backends: Backends, spec: Listener, slot: int) -> None:
        self.runtime = runtime
        self.key: ListenerKey = spec.key
        self.service = str(spec.service)
        self.namespace = spec.service.namespace
        self.name = spec.service.name
        self.port = spec.port
        self.http = spec.protocol == "http"
        self.default_host = f"{spec.address}:{spec.mesh_port}".removesuffix(":80").encode("ascii")
        """The Host that the endpoint gets when a client of HTTP/1.0 has sent none."""
        self.removed = False
        self.spec = spec
        self.gates: tuple[Gate, ...] = ()
        self.on_request: tuple[OnRequest, ...] = ()
        """What is shown each request before any layer, those that are refused before any layer too."""
        self.journeys = False
        """Whether the journey of every exchange is kept, for whoever reads it."""
        self.told_from: int | None = None
        """As `Observer.from_status`, for this port; None: as that says."""
        self._tapped: int | None = None
        self.rule: RunningRule | None = None
        """The only rule, if it takes everything, which nearly every listener has: a short cut."""
        self._backends = backends
        self._counters = PortCounters(runtime, slot)
        self.count: Callable[..., None] = self._counters.count
        self._context = LayerContext(runtime, self.service, self.port, self._counters)
        self._layers = LayerSet(self._context)
        self._rules: tuple[RunningRule, ...] = ()
        self._table = RuleTable(())
        self._named: dict[str, Backend] = {}
        self._edges = runtime.edges.of_port(
            self.service, self.port, self._counters.base, slot != OVERFLOW_SLOT
        )
        self._methods: PortMethods | None = None
        """Of gRPC, once there has been a call."""
        self._take(spec)

    def update(self, spec: Listener, slot: int) -> None:
        """Take a changed plan for this port into use."""
        self._counters.base = self.runtime.layout.base(slot)
        self._edges.move(self._counters.base, slot != OVERFLOW_SLOT)
        if spec != self.spec:
            self._take(spec)
            self.spec = spec

    def remove(self) -> None:
        """The plan does not have it any more."""
        self.removed = True
        self._edges.close()
        if self._methods is not None:
            self._methods.close()
        for rule in self._rules:
            rule.leave()
        for backend in self._named.values():
            self._backends.release(backend)

    def rule_for(self, head: RequestHead) -> RunningRule | None:
        """Return the rule that takes this request."""
        number = self._table.find(head)
        return self._rules[number] if number >= 0 else None

    def backend_named(self, name: str) -> Backend:
        """Return a backend that a layer chose.

        Raises:
            LookupError: no layer of this listener has said that it would.
        """
        return self._named[name]

    def counters_for(self, source: Source) -> int:
        """Return the first cell of what counts the requests of a source; found anew only after a change."""
        edges = self.runtime.edges
        if source.counters_of is not self._edges or source.counters_epoch != edges.epoch:
            identity = source.identity = self.runtime.identify(source.address, source.identity)
            source.counters = self._edges.find(identity.source)
            source.counters_of, source.counters_epoch = self._edges, edges.epoch
        return source.counters

    def count_from(self, source: Source, column: int, amount: int = 1) -> None:
        """Add to one of the counters that each source has (`EDGE_COLUMNS`)."""
        self._counters.cells[self.counters_for(source) + column] += amount

    def requests(self) -> int:
        """Return how many exchanges have ended; 0 where others are counted at the same place."""
        return self._edges.total(REQUESTS, CLASSES)

    def record(self, exchange: Finished, now: float) -> None:
        """Count an exchange that has ended, and tell the observer if it wants to know."""
        took = now - exchange.started
        client = exchange.client
        cells, base = self._counters.cells, self.counters_for(client.source)
        status = exchange.status
        cells[base + REQUESTS + status // 100] += 1
        cells[base + DURATION_BUCKETS + bisect_left(DURATION_BOUNDS, took)] += 1
        cells[base + DURATION_SUM] += int(took * 1e6)
        cells[base + BYTES_RECEIVED] += client.received
        cells[base + BYTES_SENT] += client.sent
        reply = exchange.own_reply
        if reply is not None:
            cells[base + MESH_RESPONSES] += 1
        observer, told_from = self.runtime.observer, self.told_from
        if (
            status >= (observer.from_status if told_from is None else told_from)
            or exchange.error is not None
            or (
                reply is not None
                and status >= 400
                and observer.takes_reply(self.service, self.port, reply.reason)
            )
        ):
            observer.ended(self.describe(exchange, now, trace_id_of(exchange.head)))

    def tell_failed_call(self, exchange: Finished, now: float) -> None:
        """Tell of a gRPC call that failed though its HTTP status says nothing of it, if nobody was told."""
        observer = self.runtime.observer
        told_from = observer.from_status if self.told_from is None else self.told_from
        if told_from == FAILURES and exchange.status < FAILURES and exchange.error is None:
            observer.ended(self.describe(exchange, now, trace_id_of(exchange.head)))

    def record_call(self, source: Source, status: GrpcStatus, path: bytes, exists: bool) -> None:
        """Count a gRPC call that has ended, besides its exchange.

        `exists` says that an endpoint has answered it as a method that there is.
        """
        self.count_from(source, GRPC_CALLS + status)
        if self.removed:
            return
        if self._methods is None:
            self._methods = self.runtime.methods.of_port(self.service, self.port)
        self._methods.count(path, status, exists)

    def describe(self, exchange: Finished, now: float, trace_id: str = "") -> Ended:
        """Return what became of an exchange."""
        client, target, reply = exchange.client, exchange.target_used, exchange.own_reply
        return Ended(  # by position, in a tenth of the time that names take
            self.service,
            self.port,
            client.source.address,
            exchange.method,
            exchange.target,
            exchange.status,
            target.name if target is not None else "",
            now - exchange.started,
            client.received,
            client.sent,
            exchange.error,
            client.http_version,
            exchange.grpc_status,
            client.source.port,
            reply.reason if reply is not None and exchange.error is None else "",
            exchange.journey(now),
            trace_id,
        )

    def refuse(self, source: Source, error: ExchangeError, connection: bool = False) -> None:
        """Tell that a request, or a whole connection, of a client is refused."""
        destination = f"{self.key[0]}:{self.key[1]}"
        self.runtime.observer.refused(
            Refused(self.service, self.port, source.address, source.port, destination, error, connection)
        )

    def _take(self, spec: Listener) -> None:
        self._layers.update(spec.layers)
        self._choose_what_is_told(spec)
        self.gates = self._layers.gates()
        self.on_request = self._layers.on_request()
        self._rules = self._take_rules(spec.rules)
        for rule in self._rules:
            rule.compose(self._layers)
        self._table = RuleTable(spec.rules)
        only = self._rules[0] if len(self._rules) == 1 else None
        self.rule = only if only is not None and not spec.rules[0].match.restricts else None
        self._take_named(spec.backends)

    def tap(self, from_status: int | None) -> None:
        """Tell of exchanges from this status on as well as of those that the access log wants, or (None) of
        these alone.
        """
        self._tapped = from_status
        self._choose_what_is_told(self.spec)

    def _choose_what_is_told(self, spec: Listener) -> None:
        choice, tapped = spec.access_log, self._tapped
        observer = self.runtime.observer
        lined = observer.wants_all if choice is None else not choice.none
        wanted = told_from(choice) if choice is not None else None
        if tapped is not None:
            wanted = min(tapped, observer.from_status if wanted is None else wanted)
        self.told_from = wanted
        self.journeys = tapped is not None or lined

    def _take_rules(self, specs: Iterable[Rule]) -> tuple[RunningRule, ...]:
        before = {rule.spec.name: rule for rule in self._rules}
        rules = []
        for spec in specs:
            known = before.pop(spec.name, None)
            if known is None:
                known = RunningRule(spec, self._context, self._backends)
            known.update(spec)
            rules.append(known)
        for rule in before.values():
            rule.leave()
        return tuple(rules)

    def _take_named(self, named: Iterable[tuple[str, BackendKey]]) -> None:
        before = self._named
        self._named = {name: self._backends.acquire(key) for name, key in named}
        for backend in before.values():
            self._backends.release(backend)


def told_from(choice: LineChoice) -> int:
    """Return the lowest status of the exchanges that the observer is told of, to write these lines."""
    if choice.all or choice.slow or choice.share:
        return ALL
    return FAILURES  # they are remembered, even if no line is written


def trace_id_of(head: RequestHead) -> str:
    """Return the id of the trace that a request names; empty if there is none."""
    fields = head.fields.lower()
    # All their names have one of these in them. A quick look: nearly no request has any.
    return trace_id_in(Fields(head)) if b"trace" in fields or b"b3" in fields else ""


def _backend_stage(each_try: Handler) -> Handler:
    """Return the handler that lets the chosen backend's own layers take part."""

    def to_backend(request: Any) -> Awaitable[Response]:
        backend = request.chosen_backend
        return (backend.layered(each_try) if backend is not None and backend.layers else each_try)(request)

    return to_backend


def send(request: Any) -> Any:
    """Send the request to an endpoint: the end of every chain."""
    return request.forward()


class ListenerTable:
    """The listeners of one worker by mesh address and port."""

    def __init__(self, runtime: Runtime, backends: Backends) -> None:
        self._runtime = runtime
        self._backends = backends
        self._listeners: dict[ListenerKey, RunningListener] = {}
        self._tapped: dict[str, int] = {}
        self._found: tuple[frozenset[str], list[RunningListener]] | None = None
        """Of the Services that were asked for last: those that are watched are asked for often."""

    def get(self, key: ListenerKey) -> RunningListener | None:
        """Return the listener at a mesh address and port."""
        return self._listeners.get(key)

    def tap(self, services: Mapping[str, int]) -> None:
        """Have the listeners of these Services tell of exchanges from such a status on, and no others."""
        changed = frozenset(dict(services.items() ^ self._tapped.items()))
        self._tapped = dict(services)
        for running in self._of(changed):
            running.tap(services.get(running.service))

    def requests(self, services: frozenset[str]) -> dict[str, int]:
        """Return how many exchanges of each of these Services have ended."""
        counted = dict.fromkeys(services, 0)
        for running in self._of(services):
            counted[running.service] += running.requests()
        return counted

    def _of(self, services: frozenset[str]) -> list[RunningListener]:
        if not services:
            return []
        if self._found is None or self._found[0] != services:
            found = [running for running in self._listeners.values() if running.service in services]
            self._found = (services, found)
        return self._found[1]

    def apply(
        self, upserted: Iterable[tuple[Listener, int]], removed: Iterable[ListenerKey]
    ) -> set[RunningListener]:
        """Make the listeners follow the plan, each with its slot of counters; return those that ended."""
        self._found = None
        ended: set[RunningListener] = set()
        for key in removed:
            running = self._listeners.pop(key, None)
            if running is not None:
                ended.add(running)
        for spec, slot in upserted:
            running = self._listeners.get(spec.key)
            if running is not None and _same(running.spec, spec):
                running.update(spec, slot)
                continue
            if running is not None:
                ended.add(running)
            running = RunningListener(self._runtime, self._backends, spec, slot)
            self._listeners[spec.key] = running
            if running.service in self._tapped:
                running.tap(self._tapped[running.service])
        for running in ended:
            running.remove()
        return ended


def _same(running: Listener, spec: Listener) -> bool:
    """Whether it is the same port of the same Service, and speaks the same."""
    return (running.service, running.port, running.protocol) == (spec.service, spec.port, spec.protocol)
