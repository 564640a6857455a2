"""Whatever clients, endpoints, layers and time do, in whatever order: what must hold, holds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from middleware import registry
from middleware.contract import (
    Annotation,
    Context,
    ExchangeError,
    GatewayTimeout,
    Handler,
    Layer,
    Middleware,
    Rejected,
    Reply,
    Request,
    Response,
)
from nodeagent.plan.model import LayerSpec
from nodeagent.proxy.http1.server import Http1Connection
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.exchange.fakes import ENDPOINTS, HIGH, Dial, Mesh, Wire

LIMITS = Limits(
    head_bytes=2048,
    replay_bytes=512,
    upstream_connections=2,
    upstream_queue=2,
    upstream_queue_time=5.0,
    response_time=20.0,
    stall_time=10.0,
    idle_time=30.0,
    upstream_idle_time=15.0,
)
LONGER_THAN_ALL = 100.0
BODIES = (0, 5, 700, 9000)


class Options(msgspec.Struct, frozen=True):
    """Which of `LAYERS`."""

    name: str


class TooLong(GatewayTimeout):
    """A layer's limit."""

    final = True


class Late(GatewayTimeout):
    """A layer's limit of a try."""


class World:
    """What layers of the running example wait for: there is one at a time."""

    waiting: list[asyncio.Future[None]]


async def _pass(request: Request, handler: Handler) -> Response:
    return await handler(request)


async def _wait(request: Request, handler: Handler) -> Response:
    await _pause()
    response = await handler(request)
    await _pause()
    return response


async def _pause() -> None:
    future: asyncio.Future[None] = asyncio.Future(loop=cast("Any", World.loop))  # type: ignore[attr-defined]
    World.waiting.append(future)
    await future


async def _reply(request: Request, handler: Handler) -> Response:
    return Reply(403, body=b"no", reason="test")


async def _reject(request: Request, handler: Handler) -> Response:
    raise Rejected("no")


async def _break(request: Request, handler: Handler) -> Response:
    raise ZeroDivisionError


async def _retry(request: Request, handler: Handler) -> Response:
    for _ in range(2):
        try:
            response = await handler(request)
        except ExchangeError as error:
            if error.final or not request.replayable:
                raise
        else:
            if response.status < 500 or not request.replayable:
                return response
            response.discard()
    return await handler(request)


async def _limit(request: Request, handler: Handler) -> Response:
    request.within(7.0, lambda: TooLong("over"))
    return await handler(request)


async def _limit_try(request: Request, handler: Handler) -> Response:
    limit = request.within(3.0, lambda: Late("over"))
    try:
        return await handler(request)
    except Late:
        limit = request.within(3.0, lambda: Late("over"))
        return await handler(request)
    finally:
        limit.cancel()


async def _read(request: Request, handler: Handler) -> Response:
    response = await handler(request)
    await response.read(400)
    return response


LAYERS: dict[str, Callable[[Request, Handler], Any]] = {
    "pass": _pass,
    "wait": _wait,
    "reply": _reply,
    "reject": _reject,
    "break": _break,
    "retry": _retry,
    "limit": _limit,
    "limit-try": _limit_try,
    "read": _read,
}


OFTEN = ("", "", "", "", "wait", "wait", "retry", "retry", "limit", "limit-try", "read", "read", *LAYERS)
"""Which layer is in the way; those that never ask an endpoint seldom."""


def _build(options: Options, _context: Context) -> Layer:
    serve = LAYERS[options.name]

    def layer(handler: Handler) -> Handler:
        async def run(request: Request) -> Response:
            response: Response = await serve(request, handler)
            return response

        return run

    return layer


TESTED = Middleware(
    "tested", (Annotation("svc.mesh/tested", "", "", "", ""),), Options, lambda _: None, _build
)


def body_of(number: int, size: int) -> bytes:
    """The body of one request or response: no other has a byte of it."""
    word = b"<%d>" % number
    return (word * (size // len(word) + 1))[:size]


class Client:
    """A client's side: what it still has to send, and which answers it waits for."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.pieces: list[bytes] = []
        self.asked: list[tuple[int, bytes]] = []
        """Number and method of every request of which a byte was sent."""
        self.read = 0
        self.answered = 0
        self.gone = False

    @property
    def connection(self) -> Http1Connection:
        return cast("Http1Connection", self.wire.protocol)


_REQUEST_HEAD = re.compile(rb"(GET|PUT|POST) /(\d+) HTTP/1\.1\r\n((?:[^\r]*\r\n)*?)\r\n")
_RESPONSE_HEAD = re.compile(rb"HTTP/1\.1 (\d+) [^\r]*\r\n((?:[^\r]*\r\n)*?)\r\n")
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


def field(fields: bytes, name: bytes) -> bytes | None:
    match = re.search(rb"(?im)^%b: ([^\r]*)\r$" % name, fields)
    return match[1] if match else None


def take_body(data: bytes, fields: bytes, until_close: bool) -> tuple[bytes, bytes | None]:
    """Return what has come of a body, and what is behind it; None: it is not all there."""
    if (field(fields, b"transfer-encoding") or b"") == b"chunked":
        body = b""
        while (match := _CHUNK.match(data)) is not None:
            size = int(match[1], 16)
            body += data[match.end() : match.end() + size]
            if not size:
                return (body, data[match.end() + 2 :]) if len(data) >= match.end() + 2 else (body, None)
            data = data[match.end() + size + 2 :]
        return body, None
    length = field(fields, b"content-length")
    if length is not None:
        size = int(length)
        return (data[:size], data[size:]) if len(data) >= size else (data, None)
    return (data, None) if until_close else (b"", data)


def response_head(status: int, number: int, size: int, framing: str) -> bytes:
    head = b"HTTP/1.1 %d X\r\nX-Number: %d\r\nX-Size: %d\r\n" % (status, number, size)
    if framing == "length":
        head += b"Content-Length: %d\r\n" % size
    elif framing == "chunked":
        head += b"Transfer-Encoding: chunked\r\n"
    else:
        head += b"X-Until-Close: yes\r\n"  # its end is where the endpoint ends, whatever it had in mind
    return head + b"\r\n"


class Served:
    """An endpoint's side of one connection."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.answered = 0
        self.streaming: tuple[int, str] | None = None
        """The number of the response under way, and its framing."""
        self.part = 0
        self.body = b""

    def respond(self, status: int, number: int, size: int, framing: str) -> None:
        """Answer, all at once."""
        body = body_of(number, size)
        head = response_head(status, number, size, framing)
        if framing == "chunked":
            body = (b"%x\r\n%b\r\n" % (size, body) if size else b"") + b"0\r\n\r\n"
        self.wire.send(head + body)
        self.answered += 1

    def begin(self, status: int, number: int, size: int, framing: str) -> None:
        """Answer with a head; the body is streamed."""
        self.streaming, self.part = (number, framing), 0
        self.body = body_of(number, size)
        self.wire.send(response_head(status, number, size, framing))

    def requests(self) -> list[tuple[bytes, int, bytes, bool]]:
        """Return method, number, body and whether that is all, of each request that has come."""
        found = []
        data = bytes(self.wire.received)
        while (match := _REQUEST_HEAD.match(data)) is not None:
            body, rest = take_body(data[match.end() :], match[3], until_close=False)
            found.append((match[1], int(match[2]), body, rest is not None))
            if rest is None:
                return found
            data = rest
        assert data == b"" or not data.endswith(b"\r\n\r\n"), data
        return found


class MeshMachine(RuleBasedStateMachine):
    """Clients, endpoints, one layer, and time."""

    mesh: Mesh

    @initialize(layer=st.sampled_from(OFTEN))
    def begin(self, layer: str) -> None:
        layers = [LayerSpec("tested", Options(layer))] if layer else []
        self.mesh = Mesh(LIMITS, layers, ENDPOINTS)
        World.waiting = []
        World.loop = self.mesh.loop  # type: ignore[attr-defined]
        self.clients: list[Client] = []
        self.served: list[Served] = []
        self.number = 0
        self.sizes: dict[int, int] = {}
        self.first_answers: dict[int, int] = {}

    # Clients

    @precondition(lambda self: len(self.clients) < 3)
    @rule()
    def connect(self) -> None:
        self.clients.append(Client(self.mesh.connect()))

    def _client(self, data: st.DataObject) -> Client:
        staying = [client for client in self.clients if not client.gone]
        return data.draw(st.sampled_from(staying), label="client")

    @rule(size=st.sampled_from(BODIES), framing=st.sampled_from(["length", "chunked"]), posts=st.booleans())
    def ordinary(self, size: int, framing: str, posts: bool) -> None:
        """A client that is at rest, or a new one, asks; an endpoint answers, as nearly always."""
        resting = [
            client
            for client in self.clients
            if not (client.gone or client.pieces or client.connection.lost or client.connection._closing)
            and client.connection._exchange is None
        ]
        if not resting:
            if len(self.clients) > 5:
                return
            resting.append(Client(self.mesh.connect()))
            self.clients.append(resting[0])
        method = b"PUT" if posts else b"GET"
        self._ask(resting[0], method, size if posts else 0, framing == "chunked", 1, close=False)
        for _ in range(4):
            while self.mesh.dialer.waiting:
                self.served.append(Served(self.mesh.dialer.waiting[0].accept()))
                self.mesh.loop.run()
            for one in self._unanswered():
                _, number, _, complete = one.requests()[one.answered]
                if number == self.number and complete:
                    one.respond(200, number, size, framing)
                    self.mesh.loop.run()
            while World.waiting:
                self._layer_goes_on()

    @precondition(lambda self: any(not client.gone for client in self.clients))
    @rule(
        data=st.data(),
        method=st.sampled_from([b"GET", b"POST", b"PUT"]),
        size=st.sampled_from(BODIES),
        chunked=st.booleans(),
        cut=st.integers(1, 4),
        close=st.booleans(),
    )
    def ask(
        self, data: st.DataObject, method: bytes, size: int, chunked: bool, cut: int, close: bool
    ) -> None:
        """A client begins a request; pieces of it may be left for later."""
        self._ask(self._client(data), method, size, chunked, cut, close)

    def _ask(self, client: Client, method: bytes, size: int, chunked: bool, cut: int, close: bool) -> None:
        self.number += 1
        self.sizes[self.number] = size if method != b"GET" else 0
        body = b""
        fields = b"Host: web\r\n" + (b"Connection: close\r\n" if close and cut == 1 else b"")
        if method != b"GET":
            body = body_of(self.number, size)
            if chunked:
                fields += b"Transfer-Encoding: chunked\r\n"
                body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
            else:
                fields += b"Content-Length: %d\r\n" % size
        wire = b"%b /%d HTTP/1.1\r\n%b\r\n%b" % (method, self.number, fields, body)
        step = len(wire) // cut + 1
        client.asked.append((self.number, method))
        client.pieces += [wire[at : at + step] for at in range(0, len(wire), step)]
        self._send_piece(client)

    def _send_piece(self, client: Client) -> None:
        if client.pieces and not client.wire.lost:
            client.wire.send(client.pieces.pop(0))
            self.mesh.loop.run()

    @precondition(lambda self: any(client.pieces and not client.gone for client in self.clients))
    @rule(data=st.data())
    def send_more(self, data: st.DataObject) -> None:
        self._send_piece(self._client(data))

    @precondition(lambda self: any(not client.gone for client in self.clients))
    @rule(data=st.data(), reads=st.booleans())
    def read_or_not(self, data: st.DataObject, reads: bool) -> None:
        client = self._client(data)
        client.wire.peer_reads = reads
        if reads:
            client.wire.read()
        self.mesh.loop.run()

    @precondition(lambda self: any(not client.gone for client in self.clients))
    @rule(data=st.data(), most=st.integers(1, 3000))
    def read_some(self, data: st.DataObject, most: int) -> None:
        self._client(data).wire.read(most)
        self.mesh.loop.run()

    @precondition(lambda self: any(not client.gone for client in self.clients))
    @rule(data=st.data(), how=st.sampled_from(["half", "reset"]))
    def leave(self, data: st.DataObject, how: str) -> None:
        client = self._client(data)
        client.gone = True
        client.pieces.clear()
        if how == "half":
            client.wire.half_close()
        else:
            client.wire.break_off()
        self.mesh.loop.run()

    # Endpoints

    def _dial(self, data: st.DataObject) -> Dial:
        return data.draw(st.sampled_from(self.mesh.dialer.waiting), label="dial")

    @precondition(lambda self: self.mesh.dialer.waiting)
    @rule(data=st.data(), accepts=st.sampled_from([True, True, True, False]))
    def decide_dial(self, data: st.DataObject, accepts: bool) -> None:
        dial = self._dial(data)
        if accepts:
            self.served.append(Served(dial.accept()))
        else:
            dial.refuse()
        self.mesh.loop.run()

    def _serving(self) -> list[Served]:
        return [one for one in self.served if not one.wire.is_closing()]

    def _unanswered(self) -> list[Served]:
        return [
            one for one in self._serving() if one.streaming is None and len(one.requests()) > one.answered
        ]

    @precondition(lambda self: self._unanswered())
    @rule(
        data=st.data(),
        size=st.sampled_from(BODIES),
        framing=st.sampled_from(["length", "length", "chunked", "close"]),
        whole=st.booleans(),
        status=st.sampled_from([200, 200, 503]),
        surplus=st.sampled_from([b"", b"", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsurplus"]),
        early=st.booleans(),
    )
    def answer(
        self,
        data: st.DataObject,
        size: int,
        framing: str,
        whole: bool,
        status: int,
        surplus: bytes,
        early: bool,
    ) -> None:
        one = data.draw(st.sampled_from(self._unanswered()), label="endpoint")
        _, number, _, complete = one.requests()[one.answered]
        if not complete and not early:
            return
        if whole and framing != "close":
            one.respond(status, number, size, framing)
            if surplus:
                one.wire.send(surplus)
        else:
            one.begin(status, number, size, framing)
        self.mesh.loop.run()

    @precondition(lambda self: any(one.streaming for one in self._serving()))
    @rule(data=st.data(), end=st.booleans(), most=st.integers(1, 5000))
    def stream(self, data: st.DataObject, end: bool, most: int) -> None:
        """An endpoint sends more of the body that it streams, or all that is left."""
        one = data.draw(st.sampled_from([s for s in self._serving() if s.streaming]), label="endpoint")
        assert one.streaming is not None
        _, framing = one.streaming
        body = one.body
        piece = body[one.part :] if end else body[one.part : one.part + most]
        one.part += len(piece)
        if piece:
            one.wire.send(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
        if one.part == len(body):
            if framing == "chunked":
                one.wire.send(b"0\r\n\r\n")
            elif framing == "close":
                one.wire.half_close()
            one.streaming = None
            one.answered += 1
        self.mesh.loop.run()

    @precondition(lambda self: self._unanswered())
    @rule(data=st.data(), count=st.sampled_from([1, 1, 20]))
    def inform(self, data: st.DataObject, count: int) -> None:
        one = data.draw(st.sampled_from(self._unanswered()), label="endpoint")
        one.wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * count)
        self.mesh.loop.run()

    @precondition(lambda self: self._serving())
    @rule(data=st.data(), how=st.sampled_from(["end", "reset", "nonsense"]))
    def endpoint_leaves(self, data: st.DataObject, how: str) -> None:
        one = data.draw(st.sampled_from(self._serving()), label="endpoint")
        if how == "end":
            one.wire.half_close()
        elif how == "reset":
            one.wire.break_off()
        elif one.streaming is None:
            one.wire.send(b"nonsense\r\n\r\n")
        self.mesh.loop.run()

    @precondition(lambda self: self._serving())
    @rule(data=st.data(), reads=st.booleans())
    def endpoint_reads_or_not(self, data: st.DataObject, reads: bool) -> None:
        one = data.draw(st.sampled_from(self._serving()), label="endpoint")
        one.wire.peer_reads = reads
        if reads:
            one.wire.read()
        self.mesh.loop.run()

    # Layers and time

    @precondition(lambda self: bool(World.waiting))
    @rule()
    def layer_goes_on(self) -> None:
        self._layer_goes_on()

    def _layer_goes_on(self) -> None:
        future = World.waiting.pop(0)
        if not future.done():
            future.set_result(None)
        self.mesh.loop.run()

    @rule(seconds=st.sampled_from([0.5, 4.0, 12.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.mesh.advance(seconds)

    @rule()
    def drain(self) -> None:
        """Once in a while the worker is told to leave."""
        if self.number % 7 == 6:
            self.mesh.plane.drain()
            self.mesh.plane.sweep()
            self.mesh.loop.run()

    # What must hold

    @invariant()
    def no_layer_but_those_with_bugs_breaks(self) -> None:
        for bug in self.mesh.observer.bugs:
            assert isinstance(bug, ZeroDivisionError), bug

    @invariant()
    def what_is_in_a_pool_is_free(self) -> None:
        for pool in self.mesh.pools:
            for connection in pool._idle:
                wire = cast("Wire", cast("Any", connection).transport)
                assert not wire.paused
                assert cast("Any", connection)._owner is None
                assert cast("Any", connection)._holds == 0

    @invariant()
    def connections_are_counted(self) -> None:
        live = sum(isinstance(one, Http1Connection) for one in self.mesh.plane.runtime.connections)
        assert self.mesh.count(columns.CONNECTIONS_ACTIVE) == live == self.mesh.plane.clients
        for pool in self.mesh.pools:
            here = [one for one in self.mesh.upstreams if one._pool is pool]
            dials = sum(dial.address == pool.address for dial in self.mesh.dialer.waiting)
            assert pool.open == len(here) + dials <= LIMITS.upstream_connections
            assert len(pool._queue) <= LIMITS.upstream_queue

    @invariant()
    def exchanges_are_counted_once(self) -> None:
        counted = sum(self.mesh.count(columns.REQUESTS + klass) for klass in range(6))
        assert counted == len(self.mesh.observer.exchanges)
        asked = sum(len(client.asked) for client in self.clients)
        assert counted <= asked

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        for client in self.clients:
            kept = len(client.connection._pending) - client.connection._at
            assert kept <= LIMITS.head_bytes + 12_000
            assert client.wire.get_write_buffer_size() <= HIGH + 12_000
        for one in self.served:
            assert one.wire.get_write_buffer_size() <= HIGH + 12_000

    @invariant()
    def clients_get_what_they_asked_for(self) -> None:
        for client in self.clients:
            self._check_answers(client)

    def _check_answers(self, client: Client) -> None:
        data = bytes(client.wire.received)
        asked = iter(client.asked)
        while (match := _RESPONSE_HEAD.match(data)) is not None:
            status, fields = int(match[1]), match[2]
            if status < 200:
                data = data[match.end() :]
                continue
            number, _ = next(asked)
            body, rest = take_body(data[match.end() :], fields, until_close=True)
            said = field(fields, b"X-Number")
            if said is None:
                assert field(fields, b"Proxy-Status") is not None, fields
            else:
                assert int(said) == number
                size = int(field(fields, b"X-Size") or 0)
                assert body_of(number, size).startswith(body)
                if rest is None and client.wire.ended in ("eof", "closed") and not client.wire._unsent:
                    assert field(fields, b"content-length") is None
                    assert field(fields, b"transfer-encoding") is None
                if rest is not None:
                    assert len(body) == size or field(fields, b"X-Until-Close")
            if rest is None:
                return
            data = rest

    @invariant()
    def endpoints_get_what_was_asked(self) -> None:
        for one in self.served:
            for _, number, body, complete in one.requests():
                whole = body_of(number, self.sizes[number])
                assert whole.startswith(body)
                assert not complete or body == whole

    @invariant()
    def who_does_not_read_is_not_read(self) -> None:
        for client in self.clients:
            connection = client.connection
            if connection.write_paused and not connection.lost and connection._exchange is None:
                assert connection._holds or not connection._pending or connection._closing

    def teardown(self) -> None:
        """Everybody leaves, time passes, and nothing is left."""
        if not hasattr(self, "mesh"):
            return
        for client in self.clients:
            client.wire.break_off()
        self.mesh.loop.run()
        for dial in list(self.mesh.dialer.waiting):
            dial.refuse(TimeoutError())
        self.mesh.advance(LONGER_THAN_ALL)
        assert not self.mesh.dialer.waiting
        assert not self.mesh.plane.runtime.connections
        assert all(pool.open == 0 and not pool._queue for pool in self.mesh.pools)
        assert not any(self.mesh.plane.runtime.deadlines._buckets.values())
        self.exchanges_are_counted_once()
        assert self.mesh.plane.clients == 0


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "installed", lambda: registry.Installed((*registry.MIDDLEWARES, TESTED)))


TestMesh = MeshMachine.TestCase
TestMesh.settings = settings(
    max_examples=200,
    stateful_step_count=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),  # a busy machine is no reason to fail
)
