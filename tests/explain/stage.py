"""A worker's listeners and backends without sockets: a request goes as far as the choice of an endpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from middleware.contract import Reply
from middleware.grpc import GrpcStatus
from middleware.registry import MIDDLEWARES
from middleware.testing import FakeTable, FakeWindows
from nodeagent.explain.asked import read_head, read_url
from nodeagent.explain.choosing import Node
from nodeagent.explain.model import Question
from nodeagent.plan.model import BackendKey, BackendSpec, ListenerKey
from nodeagent.proxy.backends import Backends
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.grpc_exchange import GrpcExchange
from nodeagent.proxy.grpc_reply import grpc_head
from nodeagent.proxy.http2.timed import TimedExchange
from nodeagent.proxy.listeners import ListenerTable
from nodeagent.proxy.message import Fields as HeadFields
from nodeagent.proxy.message import GrpcRequestHead, RequestHead, TimedRequestHead
from nodeagent.proxy.observer import Circulation
from nodeagent.proxy.pool import Address, Pools
from nodeagent.proxy.runtime import Runtime
from nodeagent.proxy.streams import Source
from nodeagent.settings import Limits
from nodeagent.stats.columns import FIRST_SLOT, REFUSALS, Layout
from tests.exchange.loop import HandLoop
from tests.exchange.plane import Watcher

Fields = Sequence[tuple[str, str]]
EXCHANGES = {RequestHead: Exchange, GrpcRequestHead: GrpcExchange, TimedRequestHead: TimedExchange}
"""As `nodeagent.proxy.http2.server_stream` has it, and HTTP/1 has for the first."""
LONGEST_WAIT = 60
"""Seconds that a request may be delayed or wait for its turn."""


class Outcome(NamedTuple):
    """What became of a request: an answer of the mesh, or what an endpoint was to get."""

    status: int = 0
    reason: str = ""
    grpc_status: GrpcStatus | None = None
    fields: Fields = ()
    address: str = ""
    method: str = ""
    target: str = ""


class _Pool:
    """Stands for an endpoint: whoever asks for a connection has chosen it."""

    def __init__(self, address: Address, asked: list[tuple[Any, Address]]) -> None:
        self.address = address
        self.users = 0
        self._asked = asked

    def take(self) -> None:
        """There is no connection that waits."""

    def wait(self, taker: object, *_: object) -> _Pool:
        self._asked.append((taker, self.address))
        return self

    def cancel(self) -> None:
        """Nobody waits any more."""

    def close_idle(self) -> None:
        """There is none."""


class _Client:
    """A client's stream that notes what the mesh answers by itself."""

    def __init__(self, source: str) -> None:
        self.source = Source(source)
        self.write_paused = False
        self.received = self.sent = 0
        self.connect_time = 3.0
        self.http_version = "1.1"
        self.replies: list[Reply] = []

    def respond_reply(self, reply: Reply, close: bool) -> None:
        self.replies.append(reply)

    def pause_reading(self) -> None:
        """It has nothing more to say."""

    def resume_reading(self) -> None:
        """It has nothing more to say."""

    def finished(self, now: float, abort: bool) -> None:
        """The exchange is over."""


class _Observer(Watcher):
    """Hears of everything that is told; ejections are no surprise."""

    def circulated(self, circulation: Circulation) -> None:
        """Take it as it is: `Stage.ejected` asks."""


class Stage:
    """What a worker runs for the plan of a `Node`.

    With `growing` each backend has one endpoint at first, and gets the others when it runs.
    """

    def __init__(self, node: Node, key: ListenerKey, growing: bool = False) -> None:
        self.loop = HandLoop()
        layout = Layout(MIDDLEWARES, REFUSALS)
        cells = memoryview(bytearray(8 * 4 * layout.slot_columns)).cast("q")
        self.watcher = _Observer()
        self.runtime = Runtime(
            self.loop.asyncio,
            Limits(),
            layout,
            cells,
            FakeTable(),
            FakeWindows(),
            self.watcher,
            now=self.loop.time,
        )
        self.asked: list[tuple[Any, Address]] = []
        self.held: list[Exchange] = []
        """Requests under way."""
        kinds: Any = {kind: lambda address: _Pool(address, self.asked) for kind in ("http1", "http2")}
        self.backends = Backends(Pools(self.runtime, cast("Any", None), kinds))
        self.backends.locate("node-a", node.zone)
        services = node.in_force.plan.services.values()
        specs = [spec for service in services for spec in service.backends]
        if growing:
            self._apply([msgspec.structs.replace(spec, endpoints=spec.endpoints[:1]) for spec in specs])
        self._apply(specs)
        for backend, addresses in node.in_force.unhealthy.items():
            self.backends.set_condition(backend, tuple(addresses))
        self.listeners = ListenerTable(self.runtime, self.backends)
        self.listeners.apply([(one, FIRST_SLOT) for one in node.in_force.plan.listeners()], ())
        running = self.listeners.get(key)
        assert running is not None
        self.listener = running

    def _apply(self, specs: Sequence[BackendSpec]) -> None:
        self.backends.apply([(spec, FIRST_SLOT) for spec in specs], ())

    def fail(self, key: BackendKey, addresses: Collection[Address]) -> None:
        """Have endpoints answer with 503 until outlier detection has ejected those that it may."""
        backend = self.backends.acquire(key)
        for target in backend.targets:
            for _ in range(5 if target.address in addresses else 0):
                backend.said(target, 503)
        self.backends.release(backend)

    def ejected(self) -> Mapping[BackendKey, Mapping[Address, str]]:
        """Return what the worker tells its agent of ejected endpoints."""
        return dict(self.backends.tick(self.runtime.now()))

    def open_breakers(self) -> None:
        """Have a worker of the node open all circuit breakers."""
        for (name, _), window in cast("FakeWindows", self.runtime.windows).made.items():
            if b"circuit_breaker" in name:
                assert window.begin(self.runtime.now(), window.moment())

    def ask(self, question: Question, hold: bool = False) -> Outcome:
        """Send a request, and let time pass until it is answered or an endpoint is chosen.

        With `hold` it stays under way.
        """
        client = _Client(question.source)
        head = read_head(question, read_url(question.url))
        exchange = EXCHANGES[type(head)](cast("Any", client), self.listener, head, self.runtime.now())
        with self.loop.running():
            exchange.start(b"", head.length == 0)
        self.loop.settle()
        for _ in range(LONGEST_WAIT):
            if client.replies or self._chosen_for(exchange):
                break
            self.loop.advance(1.0)  # it is delayed on purpose, or waits for its turn
        assert self.watcher.bugs == []
        if client.replies:
            (reply,) = client.replies
            reason = exchange.error.reason if exchange.error is not None else reply.reason
            if not isinstance(exchange, GrpcExchange):
                return Outcome(reply.status, reason, None, tuple(reply.headers))
            fields = tuple(HeadFields(grpc_head(reply)))
            return Outcome(reply.status, reason, exchange.grpc_status, fields)
        ((address, port),) = self._chosen_for(exchange)
        outcome = Outcome(
            fields=tuple(exchange.headers),
            address=f"{address}:{port}",
            method=exchange.method,
            target=exchange.target,
        )
        if hold:
            self.held.append(exchange)
        else:
            with self.loop.running():
                exchange.client_gone()
            self.loop.settle()
        return outcome

    def _chosen_for(self, exchange: Exchange) -> list[Address]:
        return [address for taker, address in self.asked if taker is exchange]
