"""Whatever clients, endpoints, layers and time do, in whatever order: what must hold, holds.

Clients and endpoints of both protocols, in all combinations. They keep to their protocols, so every complaint
of the mesh is wrong, and check that the mesh does (`tests.exchange.peers`); what they ask and answer is kept
in a ledger (`tests.exchange.ledger`). At the end of most runs everybody does what one hopes for, and all that
was asked must end without time passing; in others all leave at once. Peers that break their protocol are in
`tests/http2/test_any_order.py`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from h2.stream import StreamInputs, StreamState, _transitions
from h2.windows import WindowManager
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from middleware.contract import (
    ExchangeError,
    GatewayTimeout,
    Handler,
    Layer,
    Rejected,
    Reply,
    Request,
    Response,
)
from nodeagent.plan.model import UpstreamProtocol
from nodeagent.proxy.http1.client import Http1Upstream
from nodeagent.proxy.http1.server import Http1Connection
from nodeagent.proxy.http2.client import Http2Upstream
from nodeagent.proxy.http2.connection import Multiplexed
from nodeagent.proxy.http2.server import Http2Connection
from nodeagent.proxy.pool import Pool
from nodeagent.settings import Limits
from nodeagent.stats import columns
from tests.exchange.ledger import Ledger, Try
from tests.exchange.loop import Attempt
from tests.exchange.peers import Client, Endpoint, Peer
from tests.exchange.peers1 import Http1Client, Http1Endpoint
from tests.exchange.peers2 import ENOUGH, Http2Client, Http2Endpoint, Http2Peer
from tests.exchange.plane import KEY, Plane
from tests.exchange.transports import HandTransport

LIMITS: Final = Limits(
    head_bytes=2048,
    replay_bytes=512,
    streams=4,
    upstream_connections=2,
    upstream_queue=3,
    upstream_queue_time=5.0,
    response_time=20.0,
    stall_time=10.0,
    idle_time=30.0,
    upstream_idle_time=15.0,
    windows=256 * 1024,
)
LONGER_THAN_ALL: Final = 400.0
BODIES: Final = (0, 5, 700, 9000, 9000, 150_000)
PIECES: Final = (0, 1, 100, 5000, 1 << 20)
WINDOWS: Final = (0, 10, 1000, 65_535, 100_000)
MOST_CLIENTS: Final = 6
ROUNDS: Final = 400
"""In which everybody does what one hopes for, until all has ended."""


class TooLong(GatewayTimeout):
    """A layer's limit."""

    final = True


class Late(GatewayTimeout):
    """A layer's limit of a try."""


class Layers:
    """The layers that may be in the way. Those that wait, wait in `waiting`."""

    def __init__(self) -> None:
        self.loop: Any = None
        self.waiting: list[asyncio.Future[None]] = []
        self.gone_on = 0

    async def pass_on(self, request: Request, handler: Handler) -> Response:
        return await handler(request)

    async def wait(self, request: Request, handler: Handler) -> Response:
        await self._pause()
        response = await handler(request)
        await self._pause()
        return response

    async def _pause(self) -> None:
        future: asyncio.Future[None] = asyncio.Future(loop=self.loop)
        self.waiting.append(future)
        await future

    async def reply(self, request: Request, handler: Handler) -> Response:
        return Reply(403, body=b"no", reason="test")

    async def reject(self, request: Request, handler: Handler) -> Response:
        raise Rejected("no")

    async def breaks(self, request: Request, handler: Handler) -> Response:
        raise ZeroDivisionError

    async def retry(self, request: Request, handler: Handler) -> Response:
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

    async def limit(self, request: Request, handler: Handler) -> Response:
        request.within(7.0, lambda: TooLong("over"))
        return await handler(request)

    async def limit_try(self, request: Request, handler: Handler) -> Response:
        limit = request.within(3.0, lambda: Late("over"))
        try:
            return await handler(request)
        except Late:
            limit = request.within(3.0, lambda: Late("over"))
            return await handler(request)
        finally:
            limit.cancel()

    async def read(self, request: Request, handler: Handler) -> Response:
        response = await handler(request)
        await response.read(400)
        return response

    def layer(self, name: str) -> Layer:
        """Return one of them."""
        serve: Callable[[Request, Handler], Any] = getattr(self, name)

        def around(handler: Handler) -> Handler:
            async def run(request: Request) -> Response:
                response: Response = await serve(request, handler)
                return response

            return run

        return around


NO_LAYER: Final = ""
OFTEN: Final = (NO_LAYER,) * 6 + ("wait", "wait", "retry", "retry", "limit", "limit_try", "read", "read")
"""Which layer is in the way; those that never ask an endpoint seldom."""
SELDOM: Final = ("pass_on", "reply", "reject", "breaks")


class MeshMachine(RuleBasedStateMachine):
    """Clients, endpoints, one layer, and time."""

    plane: Plane

    @initialize(
        layer=st.sampled_from(3 * OFTEN + SELDOM),
        upstream=st.sampled_from(["http1", "http2", "http2"]),
        high=st.sampled_from([64, 4096, 65_536]),
        at_once=st.sampled_from([False, False, True]),
        welcomes=st.sampled_from([True, True, False]),
    )
    def begin(self, layer: str, upstream: UpstreamProtocol, high: int, at_once: bool, welcomes: bool) -> None:
        self.layers = Layers()
        self.plane = Plane(
            LIMITS,
            endpoints="ab",
            layers=[("rule", self.layers.layer(layer))] if layer else [],
            trailers=True,
            upstream=upstream,
        )
        self.loop = self.plane.loop
        self.layers.loop = self.loop.asyncio
        self.high = high
        self.leaves_at_once = at_once
        self.welcomes = welcomes
        """Endpoints accept connections at once."""
        self.ledger = Ledger(insists=layer in ("retry", "limit_try"))
        self.clients: list[Client] = []
        self.endpoints: list[Endpoint] = []
        self.together = 0
        """So many acts are still done in one turn of the loop."""
        self.changed = 0
        """How many requests there were at the last of the events that are seldom."""

    # Turns

    def _act(self, step: Callable[..., object], *given: object, **named: object) -> None:
        """Do something, and let the mesh and its peers see to it, unless more is to be done in this turn."""
        with self.loop.running():
            step(*given, **named)
        if self.together:
            self.together -= 1
        else:
            self._settle()

    def _settle(self) -> None:
        for _ in range(ROUNDS):
            self.loop.settle()
            with self.loop.running():
                heard = [peer.digest() for peer in self._peers()]
                if self.welcomes:
                    for attempt in self._dialled():
                        self._accept(attempt, {})
                        heard.append(True)
            if not any(heard):
                break
        else:
            raise AssertionError("the mesh and its peers do not come to rest")
        for one in self.endpoints:
            if isinstance(one, Http2Endpoint):
                one.look()

    def _peers(self) -> list[Peer]:
        return [*self.clients, *self.endpoints]

    @rule(acts=st.integers(1, 5))
    def in_one_turn(self, acts: int) -> None:
        """What follows comes all at once."""
        self.together = acts

    # Clients

    def _connect(self, client: Client) -> None:
        source = f"10.1.2.{len(self.clients) + 1}"
        wire = HandTransport(self.loop.asyncio, client.hears, source, high=self.high, low=self.high // 4)
        client.wire = wire
        self.clients.append(client)
        accepted: Any = self.plane.accepted()
        wire.start(accepted)

    @precondition(lambda self: len(self.clients) < MOST_CLIENTS)
    @rule(window=st.sampled_from(WINDOWS), http2=st.sampled_from([True, True, False]))
    def connect(self, window: int, http2: bool) -> None:
        self._act(self._arrive, window, http2=http2)

    def _arrive(self, window: int, *, http2: bool) -> Client:
        client: Client
        if http2:
            client = Http2Client(self.ledger)
            self._connect(client)
            client.greets({SettingCodes.INITIAL_WINDOW_SIZE: window})
        else:
            client = Http1Client(self.ledger)
            self._connect(client)
        return client

    def _asking(self) -> list[Client]:
        return [client for client in self.clients if client.may_ask]

    @precondition(lambda self: self._asking())
    @rule(
        data=st.data(),
        method=st.sampled_from(["GET", "GET", "POST", "PUT"]),
        size=st.sampled_from(BODIES),
        known_length=st.booleans(),
        trailer=st.booleans(),
        most=st.sampled_from(PIECES),
        count=st.sampled_from([1, 2, 4]),
    )
    def ask(
        self,
        data: st.DataObject,
        method: str,
        size: int,
        known_length: bool,
        trailer: bool,
        most: int,
        count: int,
    ) -> None:
        """A client begins some requests; pieces of them may be left for later."""
        client = data.draw(st.sampled_from(self._asking()), label="client")
        for _ in range(count):
            if client.may_ask:
                self._act(client.ask, method, size, known_length=known_length, trailer=trailer, most=most)

    def _sending(self) -> list[Client]:
        return [client for client in self.clients if client.sending]

    @precondition(lambda self: self._sending())
    @rule(data=st.data(), most=st.sampled_from(PIECES[1:]))
    def send_more(self, data: st.DataObject, most: int) -> None:
        client = data.draw(st.sampled_from(self._sending()), label="client")
        self._act(client.go_on, most)

    def _http2_clients(self) -> list[Http2Client]:
        return [one for one in self.clients if isinstance(one, Http2Client) and one.requests and one.active]

    @precondition(lambda self: self._http2_clients())
    @rule(data=st.data(), code=st.sampled_from([ErrorCodes.CANCEL, ErrorCodes.NO_ERROR]))
    def client_resets(self, data: st.DataObject, code: ErrorCodes) -> None:
        client = data.draw(st.sampled_from(self._http2_clients()), label="client")
        stream = data.draw(st.sampled_from(sorted(client.requests)), label="stream")
        self._act(client.resets, stream, code)

    # Endpoints

    def _dialled(self) -> list[Attempt]:
        return [attempt for attempt in self.loop.attempts if attempt.pending]

    def _accept(self, attempt: Attempt, settings: dict[SettingCodes | int, int]) -> None:
        http2 = isinstance(attempt.protocol, Http2Upstream)
        endpoint = Http2Endpoint(self.ledger) if http2 else Http1Endpoint(self.ledger)
        wire = HandTransport(
            self.loop.asyncio, endpoint.hears, attempt.address[0], high=self.high, low=self.high // 4
        )
        endpoint.wire = wire
        self.endpoints.append(endpoint)
        wire.set_protocol(attempt.protocol)
        attempt.accepted(wire, wire.close_silently)
        wire.start()
        if isinstance(endpoint, Http2Endpoint):
            endpoint.greets(settings)

    @precondition(lambda self: self._dialled())
    @rule(
        data=st.data(),
        accepts=st.sampled_from([True, True, True, False]),
        window=st.sampled_from(WINDOWS),
        streams=st.sampled_from([0, 1, 2, 100, 100]),
    )
    def decide(self, data: st.DataObject, accepts: bool, window: int, streams: int) -> None:
        """An endpoint accepts a connection, or refuses it."""
        attempt = data.draw(st.sampled_from(self._dialled()), label="dialled")
        settings = {
            SettingCodes.INITIAL_WINDOW_SIZE: window,
            SettingCodes.MAX_CONCURRENT_STREAMS: streams,
        }
        if accepts:
            self._act(self._accept, attempt, settings)
        else:
            self._act(attempt.refused, ConnectionRefusedError(111, "Connection refused"))

    def _answerable(self) -> list[tuple[Endpoint, Try]]:
        return [(endpoint, one) for endpoint in self.endpoints for one in endpoint.answerable()]

    @precondition(lambda self: self._answerable())
    @rule(
        data=st.data(),
        status=st.sampled_from([200, 200, 503]),
        size=st.sampled_from(BODIES),
        framing=st.sampled_from(["length", "length", "chunked", "trailer", "close"]),
        most=st.sampled_from((*PIECES, 1 << 20)),
        early=st.booleans(),
    )
    def answer(
        self, data: st.DataObject, status: int, size: int, framing: str, most: int, early: bool
    ) -> None:
        endpoint, one = data.draw(st.sampled_from(self._answerable()), label="request")
        if one.complete or early:
            self._act(endpoint.respond, one, status, size, framing, most)

    def _unfinished(self) -> list[tuple[Endpoint, Try]]:
        return [(endpoint, one) for endpoint in self.endpoints for one in endpoint.unfinished()]

    @precondition(lambda self: self._unfinished())
    @rule(data=st.data(), most=st.sampled_from(PIECES[1:]))
    def answer_more(self, data: st.DataObject, most: int) -> None:
        endpoint, one = data.draw(st.sampled_from(self._unfinished()), label="answer")
        self._act(endpoint.go_on, one, most)

    @precondition(lambda self: self._answerable())
    @rule(data=st.data(), count=st.sampled_from([1, 1, 20]))
    def inform(self, data: st.DataObject, count: int) -> None:
        endpoint, one = data.draw(st.sampled_from(self._answerable()), label="request")
        self._act(endpoint.inform, one, count)

    @precondition(lambda self: self._answerable() or self._unfinished())
    @rule(
        data=st.data(),
        code=st.sampled_from([ErrorCodes.REFUSED_STREAM, ErrorCodes.CANCEL, ErrorCodes.INTERNAL_ERROR]),
    )
    def endpoint_resets(self, data: st.DataObject, code: ErrorCodes) -> None:
        """An endpoint of HTTP/2 breaks a stream off; one of HTTP/1 says too much, or nonsense."""
        found = data.draw(st.sampled_from(self._answerable() + self._unfinished()), label="request")
        endpoint, one = found
        if isinstance(endpoint, Http2Endpoint):
            if one.answer is not None and code == ErrorCodes.REFUSED_STREAM:
                code = ErrorCodes.CANCEL
            self._act(endpoint.resets, one, code)
        elif isinstance(endpoint, Http1Endpoint) and one.answer is None:
            if code == ErrorCodes.CANCEL:
                self._act(endpoint.babble)
            elif one.complete:
                self._act(endpoint.blurt, one, 7)

    # Both

    def _http2(self) -> list[Http2Peer]:
        """Those of HTTP/2, and more often those with something under way."""
        active = [one for one in self._peers() if isinstance(one, Http2Peer) and one.active]
        return [one for one in active if one.busy] * 3 + active

    @precondition(lambda self: self._http2())
    @rule(data=st.data(), size=st.sampled_from([1, 1000, 40_000, ENOUGH]))
    def open_window(self, data: st.DataObject, size: int) -> None:
        peer = data.draw(st.sampled_from(self._http2()), label="peer")
        streams = [0, *(stream for stream in sorted(peer.h2.streams) if peer.receives(stream))]
        stream = data.draw(st.sampled_from(streams), label="stream")
        self._act(peer.opens, stream, size)

    @precondition(lambda self: self._http2())
    @rule(
        data=st.data(),
        what=st.sampled_from(["window", "window", "streams", "streams", "table", "frames", "ping"]),
        value=st.sampled_from(WINDOWS),
    )
    def change_settings(self, data: st.DataObject, what: str, value: int) -> None:
        """A peer changes its settings: what is on its way meanwhile may be more than they allow."""
        peer = data.draw(st.sampled_from(self._http2()), label="peer")
        if what == "window":
            self._act(peer.settings, {SettingCodes.INITIAL_WINDOW_SIZE: value})
        elif what == "streams":
            if isinstance(peer, Http2Endpoint):
                self._act(peer.settings, {SettingCodes.MAX_CONCURRENT_STREAMS: value % 11})
        elif what == "table":
            self._act(peer.settings, {SettingCodes.HEADER_TABLE_SIZE: value % 5000})
        elif what == "frames":
            self._act(peer.settings, {SettingCodes.MAX_FRAME_SIZE: 16_384 + value})
        else:
            self._act(peer.ping)

    @precondition(lambda self: self._http2())
    @rule(data=st.data(), spared=st.sampled_from([None, 0, 0, 1, 2]))
    def goaway(self, data: st.DataObject, spared: int | None) -> None:
        peer = data.draw(st.sampled_from(self._http2()), label="peer")
        if isinstance(peer, Http2Endpoint):
            self._act(peer.says_goaway, spared)
        elif isinstance(peer, Http2Client) and spared is None:
            self._act(peer.says_goaway)

    def _active(self) -> list[Peer]:
        return [peer for peer in self._peers() if peer.active]

    @precondition(lambda self: self._active())
    @rule(data=st.data(), how=st.sampled_from(["stops", "reads", "reads", "some", "some"]))
    def read_or_not(self, data: st.DataObject, how: str) -> None:
        """A peer reads no more, reads on, or reads a little."""
        peer = data.draw(st.sampled_from(self._active()), label="peer")
        if how == "stops":
            self._act(peer.wire.stops)
        elif how == "reads":
            self._act(peer.wire.takes)
        else:
            self._act(peer.wire.takes, 1000)

    @precondition(lambda self: self._active())
    @rule(data=st.data(), deaf=st.booleans(), dribble=st.sampled_from([None, None, 1, 20, 5000]))
    def be_slow(self, data: st.DataObject, deaf: bool, dribble: int | None) -> None:
        """What a peer says, or what is said to it, takes its time on the way; or no more."""
        peer = data.draw(st.sampled_from(self._active()), label="peer")
        peer.deaf, peer.dribble = deaf, dribble
        self._act(peer.flush)

    @precondition(lambda self: self._active())
    @rule(data=st.data(), how=st.sampled_from(["ends", "closes", "resets"]))
    def leave(self, data: st.DataObject, how: str) -> None:
        peer = data.draw(st.sampled_from(self._active()), label="peer")
        self._act(peer.leaves, how)

    @precondition(lambda self: self._answerable())
    @rule(data=st.data(), how=st.sampled_from(["ends", "resets"]))
    def endpoint_breaks(self, data: st.DataObject, how: str) -> None:
        """An endpoint ends with requests under way."""
        endpoint, _ = data.draw(st.sampled_from(self._answerable()), label="request")
        self._act(endpoint.leaves, how)

    @rule(
        http2=st.booleans(), posts=st.booleans(), size=st.sampled_from(BODIES), back=st.sampled_from(BODIES)
    )
    def ordinary(self, http2: bool, posts: bool, size: int, back: int) -> None:
        """A client asks; an endpoint answers, as nearly always."""
        self.together = 0
        self._settle()
        kind = Http2Client if http2 else Http1Client
        resting = [one for one in self._asking() if isinstance(one, kind) and not (one.waiting or one.deaf)]
        if not resting and len(self.clients) >= MOST_CLIENTS:
            return
        client = resting[0] if resting else self._arrive(65_535, http2=http2)
        method = "PUT" if posts else "GET"
        self._act(client.ask, method, size, known_length=posts, trailer=False, most=1 << 20)
        for _ in range(4):
            for attempt in self._dialled():
                self._act(self._accept, attempt, {})
            self._layers_go_on()
            for endpoint, one in self._answerable():
                last = one.asked.number == len(self.ledger.asked)
                if last and one.complete and one in endpoint.answerable():
                    self._act(endpoint.respond, one, 200, back, "length", 1 << 20)

    # Layers, time and plans

    @precondition(lambda self: bool(self.layers.waiting))
    @rule()
    def layer_goes_on(self) -> None:
        self._act(self._layer_goes_on)

    def _layer_goes_on(self) -> None:
        future = self.layers.waiting.pop(0)
        self.layers.gone_on += 1
        if not future.done():
            future.set_result(None)

    def _layers_go_on(self) -> None:
        while self.layers.waiting:
            self._act(self._layer_goes_on)

    @rule(seconds=st.sampled_from([0.5, 4.0, 12.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.together = 0
        while seconds > 0:
            self._settle()
            self.plane.passes(min(seconds, 1.0))
            seconds -= 1.0
        self._settle()

    def _seldom(self) -> bool:
        """Whether it is time for what happens once in a while."""
        asked = len(self.ledger.asked)
        return asked > self.changed and asked % 4 == 3

    @precondition(_seldom)
    @rule(names=st.sampled_from(["", "a", "b", "ab", "ab"]), speaks=st.sampled_from(["http1", "http2"]))
    def endpoints_change(self, names: str, speaks: UpstreamProtocol) -> None:
        """Endpoints come and go, and perhaps speak another protocol from now on."""
        self.changed = len(self.ledger.asked)
        self.plane.upstream = speaks
        self._act(self.plane.endpoints, names)

    @precondition(_seldom)
    @rule()
    def leave_the_mesh(self) -> None:
        """The plan has the Service no more."""
        self.changed = len(self.ledger.asked)
        self._act(self.plane.removed)

    @precondition(lambda self: self.plane.listeners.get(KEY) is None)
    @rule()
    def come_back(self) -> None:
        """The plan has it again."""
        self._act(self.plane.restored)

    @precondition(lambda self: self._seldom() and not self.plane.runtime.draining)
    @rule()
    def drain(self) -> None:
        """The worker is told to leave."""
        self.changed = len(self.ledger.asked)
        self.plane.runtime.draining = True
        self.plane.sweep()
        self._settle()

    # What must hold

    @invariant()
    def all_is_well(self) -> None:
        self._check_counts()
        self._check_pools()
        self._check_what_is_kept()
        self._check_windows()

    def _check_counts(self) -> None:
        for bug in self.plane.watcher.bugs:
            assert isinstance(bug, ZeroDivisionError), bug
        assert self.plane.ended == len(self.plane.watcher.ends) <= len(self.ledger.asked)
        connections = self.plane.runtime.connections
        live = [one for one in connections if isinstance(one, Http1Connection | Http2Connection)]
        assert self.plane.count(columns.CONNECTIONS_ACTIVE) == len(live) == self.plane.runtime.clients

    def _check_pools(self) -> None:
        for pool in self.plane.pools:
            assert pool.waiting <= LIMITS.upstream_queue
            leaving = 0
            if isinstance(pool, Pool):
                for connection in pool._idle:
                    assert isinstance(connection, Http1Upstream)
                    assert not connection.transport.is_closing()
                    assert connection._owner is None
                    assert connection._holds == 0
            else:
                leaving = len(pool._leaving)  # type: ignore[attr-defined]
            assert pool.open - leaving <= LIMITS.upstream_connections

    def _check_what_is_kept(self) -> None:
        for connection in self.plane.runtime.connections:
            assert connection.held < 2_000_000
            assert connection.busy <= LIMITS.streams

    def _check_windows(self) -> None:
        borrowed = 0
        for connection in self._multiplexed():
            writer = connection.writer
            streams = connection.every_stream()
            assert writer._waiting == sum(stream.queued for stream in streams)
            ready = {id(stream) for stream in writer.ready}
            assert len(ready) == len(writer.ready)
            for stream in streams:
                assert (stream.queued > 0 and stream.window > 0) <= (id(stream) in ready)
                if stream.backlog is not None:
                    assert stream.queued == sum(map(len, stream.backlog.pieces)) - stream.backlog.at
                if stream.inflow is not None:
                    assert stream.inflow.left >= 0
                    borrowed += stream.inflow._borrowed
        assert self.plane.runtime.window_budget.left == LIMITS.windows - borrowed

    def _multiplexed(self) -> list[Multiplexed]:
        return [one for one in self.plane.runtime.connections if isinstance(one, Multiplexed)]

    # The end

    def teardown(self) -> None:
        """Everybody does what one hopes for, or leaves; and nothing is left."""
        if not hasattr(self, "plane") or sys.exc_info()[0] is not None:
            return  # it has not begun, or has failed already
        self.together = 0
        if not self.leaves_at_once:
            self._calm()
            if any(client.gone and not client.wire.closed for client in self.clients):
                self.time_passes(3 * LIMITS.stall_time)  # a side that has ended can open no window
                self._calm()
            waiting = [asked.number for asked in self.ledger.asked.values() if not asked.outcome]
            assert not waiting, f"requests {waiting} have no end"
            self._check_rest()
        for peer in self._peers():
            if peer.gone in ("", "ends"):
                self._act(peer.leaves, "resets")
        self._layers_go_on()
        self.plane.passes(LONGER_THAN_ALL)
        self.plane.check_nothing_left()
        self._check_counts()

    def _calm(self) -> None:
        """Have all that is under way end; no time passes."""
        for _ in range(ROUNDS):
            before = self._state()
            for peer in self._peers():
                self._act(peer.calms)
            for endpoint in self.endpoints:
                if isinstance(endpoint, Http2Endpoint):
                    self._act(endpoint.takes_streams)
            for attempt in self._dialled():
                self._act(self._accept, attempt, {})
            self._layers_go_on()
            for client in self._sending():
                self._act(client.go_on, 1 << 20)
            for endpoint, one in self._answerable():
                if one.complete and one in endpoint.answerable():
                    self._act(endpoint.respond, one, 200, 5, "length", 100)
            for endpoint, one in self._unfinished():
                if one in endpoint.unfinished():
                    self._act(endpoint.go_on, one, 1 << 20)
            if before == self._state():
                break
        for peer in self._peers():
            if peer.mesh_ended and not peer.gone:
                self._act(peer.leaves, "closes")

    def _peer_of(self, connection: object) -> Peer:
        return next(peer for peer in self._peers() if peer.wire.get_protocol() is connection)

    def _state(self) -> object:
        return (
            [len(peer.wire.received) for peer in self._peers()],
            [asked.outcome for asked in self.ledger.asked.values()],
            [(one.body.seen, len(one.left)) for asked in self.ledger.asked.values() for one in asked.tries],
            (self.layers.gone_on, len(self.layers.waiting)),
            self.plane.ended,
            len(self.loop.attempts),
        )

    def _check_rest(self) -> None:
        """Check that connections that stay hold nothing of what was."""
        runtime = self.plane.runtime
        assert not self.loop.attempts
        assert not [future for future in self.layers.waiting if not future.done()]
        assert not any(runtime.deadlines._buckets.values())
        assert runtime.window_budget.left == LIMITS.windows
        for pool in self.plane.pools:
            assert not pool.waiting
        for connection in runtime.connections:
            assert not connection.busy, connection
            assert not connection.paused, connection
            if isinstance(connection, Multiplexed):
                remembered = connection.decoder.held + connection.encoder.held
                assert connection.held == remembered, self._peer_of(connection)
                assert connection._window.left + connection._window.owed == connection._window.size
            else:
                assert not connection.held, connection


@pytest.fixture(autouse=True)
def _in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is not stricter than its protocol."""
    consumed = WindowManager.window_consumed

    def window_consumed(self: WindowManager, size: int) -> None:
        if size:  # a window below 0 is no matter for an empty frame
            consumed(self, size)

    monkeypatch.setattr(WindowManager, "window_consumed", window_consumed)
    late = (StreamState.CLOSED, StreamInputs.RECV_HEADERS)
    informed = (StreamState.CLOSED, StreamInputs.RECV_INFORMATIONAL_HEADERS)
    monkeypatch.setitem(_transitions, informed, _transitions[late])  # of a stream that the client has reset


TestMesh = MeshMachine.TestCase
TestMesh.settings = settings(
    max_examples=400,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),  # a busy machine is no reason to fail
)
