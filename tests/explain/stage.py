"""A worker's listeners and backends without sockets: a request goes as far as the choice of an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from middleware.contract import Reply
from middleware.registry import MIDDLEWARES
from middleware.testing import FakeTable, FakeWindows
from nodeagent.explain.asked import read_head, read_url
from nodeagent.explain.choosing import Node
from nodeagent.explain.model import Question
from nodeagent.plan.model import ListenerKey
from nodeagent.proxy.backends import Backends
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.listeners import ListenerTable
from nodeagent.proxy.pool import Address, Pools
from nodeagent.proxy.runtime import Runtime
from nodeagent.proxy.streams import Source
from nodeagent.settings import Limits
from nodeagent.stats.columns import FIRST_SLOT, REFUSALS, Layout
from tests.exchange.loop import HandLoop
from tests.exchange.plane import Watcher

Fields = Sequence[tuple[str, str]]


class Outcome(NamedTuple):
    """What became of a request: an answer of the mesh, or what an endpoint was to get."""

    status: int = 0
    reason: str = ""
    fields: Fields = ()
    address: str = ""
    method: str = ""
    target: str = ""


class _Pool:
    """Stands for an endpoint: whoever asks for a connection has chosen it."""

    def __init__(self, address: Address, asked: list[Address]) -> None:
        self.address = address
        self.users = 0
        self._asked = asked

    def take(self) -> None:
        """There is no connection that waits."""

    def wait(self, *_: object) -> _Pool:
        self._asked.append(self.address)
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


class Stage:
    """What a worker runs for the plan of a `Node`."""

    def __init__(self, node: Node, key: ListenerKey) -> None:
        self.loop = HandLoop()
        layout = Layout(MIDDLEWARES, REFUSALS)
        cells = memoryview(bytearray(8 * 4 * layout.slot_columns)).cast("q")
        self.watcher = Watcher()
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
        self.asked: list[Address] = []
        kinds: Any = {kind: lambda address: _Pool(address, self.asked) for kind in ("http1", "http2")}
        self.backends = Backends(Pools(self.runtime, cast("Any", None), kinds))
        self.backends.locate("node-a", node.zone)
        services = node.in_force.plan.services.values()
        specs = [spec for service in services for spec in service.backends]
        self.backends.apply([(spec, FIRST_SLOT) for spec in specs], ())
        for backend, addresses in node.in_force.unhealthy.items():
            self.backends.set_condition(backend, tuple(addresses))
        self.listeners = ListenerTable(self.runtime, self.backends)
        self.listeners.apply([(one, FIRST_SLOT) for one in node.in_force.plan.listeners()], ())
        running = self.listeners.get(key)
        assert running is not None
        self.listener = running

    def ask(self, question: Question) -> Outcome:
        """Send a request, and let time pass until it is answered or an endpoint is chosen."""
        client = _Client(question.source)
        head = read_head(question, read_url(question.url))
        before = len(self.asked)
        exchange = Exchange(cast("Any", client), self.listener, head, self.runtime.now())
        with self.loop.running():
            exchange.start(b"", head.length == 0)
        self.loop.settle()
        if not client.replies and len(self.asked) == before:
            self.loop.advance(1.0)  # it is delayed on purpose
        assert self.watcher.bugs == []
        if client.replies:
            (reply,) = client.replies
            reason = exchange.error.reason if exchange.error is not None else reply.reason
            return Outcome(reply.status, reason, tuple(reply.headers))
        assert len(self.asked) == before + 1, "one endpoint is chosen"
        address, port = self.asked[-1]
        outcome = Outcome(
            fields=tuple(exchange.headers),
            address=f"{address}:{port}",
            method=exchange.method,
            target=exchange.target,
        )
        with self.loop.running():
            exchange.client_gone()
        self.loop.settle()
        return outcome
