"""A client's HTTP/2 connection: many streams, each of them an exchange.

What a client may use up is bounded: streams at once, header blocks, windows, what waits to be sent for each
stream and all of them, frames that bring nothing, streams that are broken off; and, when it does not read,
everything: nothing of it is read until it does.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from middleware.contract import ExchangeError
from nodeagent.proxy.connection import OWN_FULL, probe_peer
from nodeagent.proxy.errors import BadRequest, Http2Fault, NoRoute, StreamRefused, reply_to
from nodeagent.proxy.http2.connection import Multiplexed, table_lost
from nodeagent.proxy.http2.flood import RAPID, SMALL_HEAD, Inflation
from nodeagent.proxy.http2.frames import (
    ENABLE_CONNECT_PROTOCOL,
    LAST_STREAM,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFault,
    goaway_frame,
    ping_frame,
    settings_frame,
)
from nodeagent.proxy.http2.headers import CompressionFault, StreamFault
from nodeagent.proxy.http2.server_stream import ServerStream, WebSocketStream
from nodeagent.proxy.http2.stream import Stream
from nodeagent.proxy.listeners import ListenerTable, RunningListener
from nodeagent.proxy.message import (
    RequestHead,
)
from nodeagent.proxy.runtime import FOREVER
from nodeagent.proxy.streams import Source
from nodeagent.stats.columns import CONNECTIONS, CONNECTIONS_ACTIVE, WORKER_HEAD_TIMEOUTS

_DRAINING: Final = b"draining"
"""The payload of the PING after the first GOAWAY: when it comes back, the client has seen the GOAWAY."""

_MALFORMED: Final = 400
"""The status of what can only be a fault of the client's HTTP/2 (RFC 9113 section 8.1.1)."""


class Http2Connection(Multiplexed):
    """One client connection to an http port. `idle_time` is that of `svc.mesh/idle-timeout`."""

    __slots__ = (
        "_drain_step",
        "_highest",
        "_idle_since",
        "_inflation",
        "_last",
        "_listeners",
        "_preface",
        "_streams",
        "connect_time",
        "idle_time",
        "listener",
        "source",
    )

    of_client = True

    def __init__(
        self,
        listener: RunningListener,
        listeners: ListenerTable,
        source: Source,
        connect_time: float,
        idle_time: float | None,
    ) -> None:
        super().__init__(listener.runtime, listener.runtime.limits)
        self.listener = listener
        self.source = source
        self.connect_time = connect_time
        self.idle_time = idle_time
        self._listeners = listeners
        self._streams: dict[int, ServerStream] = {}
        self._highest = 0
        """The last stream that the client has begun."""
        self._last = LAST_STREAM
        """The last stream that is served: what GOAWAY has said."""
        self._drain_step = 0
        self._preface = PREFACE
        """What is still to come of it."""
        self.early: list[ServerStream] = []
        self._idle_since = 0.0
        self._inflation = Inflation()

    @property
    def owner(self) -> str:
        """The client's address."""
        return self.source.address

    @property
    def held(self) -> int:
        """Bytes of requests that are not whole or wait, of bodies kept for a retry, and of responses."""
        return super().held + sum(
            stream.waiting_size + (stream.exchange.held if stream.exchange is not None else 0)
            for stream in self._streams.values()
        )

    @property
    def busy(self) -> int:
        """How many requests are under way."""
        return len(self._streams)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the client has the time of an idle connection for its first request."""
        self.take_over(transport)
        self.listener.count_from(self.source, CONNECTIONS)
        self.listener.count(CONNECTIONS_ACTIVE)

    def take_over(self, transport: asyncio.BaseTransport) -> None:
        """Begin on a connection that was counted already."""
        super().connection_made(transport)
        probe_peer(self.transport)
        self._idle_since = now = self.runtime.now()
        self.due(now + self.runtime.limits.idle_time)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client; those of the preface first."""
        preface = self._preface
        if preface and not self._closing:
            if not data.startswith(preface[: len(data)]):
                self.fail(PROTOCOL_ERROR, "no preface of HTTP/2")
                return
            self._preface = preface[len(data) :]
            data = data[len(preface) :]
            if not data:
                return
        self.read(data)

    def eof_received(self) -> bool:
        """The client sends no more; what it has asked for is still answered."""
        self.peer_left = True
        if self._closing or not self._streams:
            return False
        for stream in list(self._streams.values()):
            if not stream.received_all:  # it will never be whole
                self._client_gone(stream)
        self.left_alone()
        return bool(self._streams) and not self.transport.is_closing()

    def left_alone(self) -> None:
        """Give up the responses that wait for a window which the client will not open any more."""
        for stream in list(self._streams.values()):
            if stream.queued and (stream.window <= 0 or self.writer.window <= 0):
                self._client_gone(stream)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it all that was under way."""
        super().connection_lost(exc)
        self.runtime.leave(self.source.address)
        self.listener.count(CONNECTIONS_ACTIVE, -1)
        self.streams_lost(NO_ERROR, "")

    def pause_writing(self) -> None:
        """The client does not read: nothing is read from it either."""
        super().pause_writing()
        if not self._closing:
            self.hold(OWN_FULL)

    # Requests

    def on_headers(self, stream: int, block: bytes, end: bool) -> None:
        """A request begins, or a body ends with trailers."""
        if stream <= self._highest or not stream & 1:
            self._on_trailers(stream, block, end)
            return
        self._highest = stream
        if stream > self._last:  # it has been told, or will be in a moment
            self.skip(block)
            self.pass_over(stream)
            return
        runtime = self.runtime
        if len(self._streams) >= runtime.limits.streams:
            self.skip(block)
            self.listener.refuse(self.source, StreamRefused(f"{runtime.limits.streams} are under way"))
            self.spend_patience(4)
            self.reset_stream(stream, REFUSED_STREAM)
            return
        try:
            head = self.decoder.request(block, end)
        except StreamFault as fault:
            self._refuse(stream, fault, end)
            return
        except CompressionFault as lost:
            raise table_lost(lost) from None
        if self.listener.removed and not self._follow():
            mine = self._streams[stream] = ServerStream(self, stream, head, runtime.now())
            self._turn_away(mine, NoRoute(f"{self.listener.service} has left the mesh"), end)
            return
        size = len(head.fields)
        if size > SMALL_HEAD and not self._inflation.takes(size, len(block), self._heads_under_way):
            self.listener.refuse(self.source, StreamRefused("the heads under way take too much memory"))
            self.spend_patience(4)
            self.reset_stream(stream, REFUSED_STREAM)
            return
        started = runtime.now()
        if head.upgrade:
            mine = self._streams[stream] = WebSocketStream(self, stream, head, started)
            mine.received = len(block) + 9
            mine.begin(started)
            return
        mine = self._streams[stream] = ServerStream(self, stream, head, started)
        exchange = mine.exchange
        assert exchange is not None
        mine.received = len(block) + 9
        if not end:
            mine.deadline = started + (self.idle_time or runtime.limits.stall_time)
            mine.early = True
            self.early.append(mine)
            return
        mine.received_all = True
        mine.deadline = deadline = started + (self.idle_time or runtime.limits.response_time)
        if deadline < self.deadline:
            self.deadline = deadline
        exchange.start(b"", True)

    def _heads_under_way(self) -> int:
        """Return the bytes of the heads of all requests that are under way."""
        exchanges = [mine.exchange for mine in self._streams.values()]
        return sum(len(one.head.fields) for one in exchanges if one is not None)

    def _on_trailers(self, stream: int, block: bytes, end: bool) -> None:
        self.start_early()
        mine = self._streams.get(stream)
        if mine is None:
            if not stream & 1 or stream not in self._broken_off:
                raise ConnectionFault(
                    PROTOCOL_ERROR if not stream & 1 else STREAM_CLOSED,
                    "HEADERS on a stream that is not open",
                )
            self.skip(block)
            return
        if mine.received_all:
            self.skip(block)
            self.on_stream_fault(stream, STREAM_CLOSED, "HEADERS after the end of the request")
            return
        try:
            lines = self.decoder.trailers(block)
            mine.check_trailers(end)
        except StreamFault as fault:
            self._broken(mine, fault)
            return
        except CompressionFault as lost:
            raise table_lost(lost) from None
        mine.received += len(block) + 9
        mine.received_all = True
        exchange = mine.exchange
        if exchange is None:
            return
        mine.set_deadline(self.runtime.now())
        if mine.held:
            mine.wait_with_trailers(lines)
        else:
            exchange.request_trailers(lines)

    def on_data(self, stream: int, data: bytes, size: int, end: bool) -> None:
        """More of a request's body."""
        increment = self._window.received_and_passed_on(size)
        if increment:
            self.window_moved(increment)
        mine = self._streams.get(stream)
        if mine is None:
            self.late(stream, "DATA")
            return
        if mine.received_all:
            self.on_stream_fault(stream, STREAM_CLOSED, "DATA after the end of the request")
            return
        if not data and not end:
            self.spend_patience()
        try:
            passed = self.take_body(mine, data, size, end)
        except StreamFault as fault:
            self.start_early()
            self._broken(mine, fault)
            return
        mine.received += size + 9
        exchange = mine.exchange
        if exchange is None:  # the response was whole before the request
            return
        if end or not mine.write_paused:
            mine.set_deadline(self.runtime.now())
        if mine.early:
            mine.early = False
            exchange.start(data, end)
        elif passed is not None and (passed or end):
            exchange.request_data(passed, end)

    def start_early(self) -> None:
        """Pass on the heads whose bodies have not come yet."""
        streams, self.early = self.early, []
        for mine in streams:
            early, mine.early = mine.early, False
            if early and mine.exchange is not None:
                self.due(mine.deadline)
                mine.exchange.start(b"", False)

    def on_reset(self, stream: int, code: int) -> None:
        """The client breaks a stream off."""
        mine = self._streams.get(stream)
        if mine is None:
            if self.is_idle(stream):
                raise ConnectionFault(PROTOCOL_ERROR, "RST_STREAM on an idle stream")
            self.spend_patience()
            return
        self.start_early()
        self._client_gone(mine)
        if self.runtime.now() - mine.started < RAPID:
            self.spend_reset()

    def on_goaway(self, last: int, code: int, debug: bytes) -> None:
        """The client will begin no more streams."""
        self.spend_patience(8)
        if not self._streams:
            self.close_gently()
        else:
            self._begin_goaway()

    def on_stream_fault(self, stream: int, code: int, detail: str) -> None:
        """The client has broken a rule on a stream, which is broken off."""
        mine = self._streams.get(stream)
        if mine is None:
            self.spend_patience(4)
            self.reset_stream(stream, code)
            return
        self.start_early()
        exchange, mine.exchange = mine.exchange, None
        if exchange is not None:
            exchange.client_gone()
        self.drop(mine, code)
        self.spend_reset()

    def _refuse(self, stream: int, fault: StreamFault, end: bool) -> None:
        """Break off a request that is malformed; answer one that is only more than, or not what, we take."""
        if fault.status == _MALFORMED:
            self._tell(fault)
            self.reset_stream(stream, PROTOCOL_ERROR)
        else:
            head = RequestHead(b"GET", b"/", b"1", b"", 0)
            mine = self._streams[stream] = ServerStream(self, stream, head, self.runtime.now())
            self._turn_away(mine, BadRequest(fault), end)
        self.spend_reset()

    def _broken(self, mine: ServerStream, fault: StreamFault) -> None:
        """Break off a request whose rest cannot be forwarded."""
        self._tell(fault)
        self.on_stream_fault(mine.identifier, PROTOCOL_ERROR, fault.detail)

    def _tell(self, fault: StreamFault) -> None:
        runtime, listener = self.runtime, self.listener
        runtime.count(runtime.layout.malformed_column(fault.reason))
        listener.refuse(self.source, BadRequest(fault))

    def _turn_away(self, mine: ServerStream, error: ExchangeError, end: bool) -> None:
        """Answer a request for which there is no exchange."""
        runtime, listener = self.runtime, self.listener
        runtime.count(runtime.layout.malformed_column(error.reason))
        listener.refuse(self.source, error)
        mine.received_all = end
        mine.respond_reply(reply_to(error), close=False)
        mine.exchange = None
        mine.finished(runtime.now(), abort=False)

    def _follow(self) -> bool:
        """Follow a Service that has left the mesh and come back while the client stayed connected."""
        listener = self._listeners.get(self.listener.key)
        if listener is None or not listener.http:
            return False
        self.listener.count(CONNECTIONS_ACTIVE, -1)
        listener.count(CONNECTIONS_ACTIVE)
        self.listener = listener
        return True

    # The end of streams

    def close_stream(self, mine: ServerStream, now: float) -> None:
        """A stream's response is whole."""
        del self._streams[mine.identifier]
        if mine.inflow is not None:
            mine.inflow.close()
        if not mine.received_all:  # RFC 9113 section 8.1: nobody needs the rest of the request
            self.reset_stream(mine.identifier, NO_ERROR)
        self._resets.left += 1
        self._controls.left += 8
        if not self._streams:
            self._at_rest(now)

    def drop(self, mine: ServerStream, code: int) -> None:
        """Break a stream off."""
        self.reset_stream(mine.identifier, code)
        self._forget(mine)

    def _client_gone(self, mine: ServerStream) -> None:
        exchange, mine.exchange = mine.exchange, None
        if exchange is not None:
            exchange.client_gone()
        self._forget(mine)

    def _forget(self, mine: ServerStream) -> None:
        self._streams.pop(mine.identifier, None)
        self.writer.drop(mine)
        if mine.inflow is not None:
            mine.inflow.close()
        if not self._streams and not self._closing:
            self._at_rest(self.runtime.now())

    def _at_rest(self, now: float) -> None:
        """Nothing is under way."""
        self._idle_since = now
        if self._drain_step == 2 or self.peer_left:
            self.close_gently()
        elif self.listener.removed:
            self._second_goaway()  # the client has to know that later streams are not served
        else:
            self.due(now + self.runtime.limits.idle_time)

    def fail(self, code: int, detail: str) -> None:
        """The client has broken the protocol: that ends its connection, and with it all requests."""
        self.listener.refuse(self.source, Http2Fault(detail), connection=True)
        super().fail(code, detail)

    def streams_lost(self, code: int, detail: str) -> None:
        """End everything that is under way: the connection ends."""
        self.early = []
        streams, self._streams = self._streams, {}
        for mine in streams.values():
            exchange, mine.exchange = mine.exchange, None
            if exchange is not None:
                exchange.client_gone()
            self.writer.drop(mine)
            if mine.inflow is not None:
                mine.inflow.close()

    # The connection's own

    def _greeting(self) -> bytes:
        limits = self.runtime.limits
        return settings_frame(
            {
                MAX_CONCURRENT_STREAMS: limits.streams,
                MAX_HEADER_LIST_SIZE: limits.head_bytes,
                ENABLE_CONNECT_PROTOCOL: 1,
            }
        )

    def every_stream(self) -> list[Stream[Any]]:
        """All streams that are open."""
        return list(self._streams.values())

    def stream(self, stream: int) -> ServerStream | None:
        """An open stream."""
        return self._streams.get(stream)

    def is_idle(self, stream: int) -> bool:
        """Whether there has never been such a stream."""
        return stream > self._highest or not stream & 1

    def last_stream(self) -> int:
        """The last stream that the client has begun and that is served."""
        return min(self._highest, self._last)

    def pinged(self, payload: bytes) -> None:
        """The client has seen our first GOAWAY: from now on no stream is on its way that it did not count."""
        if payload == _DRAINING and self._drain_step == 1:
            self._second_goaway()
        else:
            self.spend_patience()

    # Time

    def expire(self, now: float) -> None:
        """Something is over its time: a stream, the client's reading, or the connection's rest."""
        self.deadline = FOREVER
        if self._closing:
            if self.expire_writing(now) and self.deadline == FOREVER:
                self.reset()
            return
        if self.write_paused and not self.expire_writing(now):
            return
        if not self._expire_streams(now):
            return
        if self._streams:
            self.due(min(mine.deadline for mine in self._streams.values()))
            return
        rest = self._idle_since + self.runtime.limits.idle_time
        if rest > now:
            self.due(rest)
            return
        if self._preface or not self._highest:
            self.runtime.count(WORKER_HEAD_TIMEOUTS)
        self.send(goaway_frame(self.last_stream(), NO_ERROR))
        self.close_gently()

    def _expire_streams(self, now: float) -> bool:
        """End the streams that have exceeded their time; return whether the connection stays."""
        for mine in list(self._streams.values()):
            if mine.deadline <= now:
                mine.expire(now)
        return not self._closing

    def drain(self, now: float) -> None:
        """While the worker drains: say so in two steps, so that no request is lost that is on its way."""
        if self._closing:
            return
        if self._drain_step == 1:
            self._second_goaway()
        else:
            self._begin_goaway()

    def listener_removed(self) -> None:
        """The Service has left the mesh."""
        if not self._closing:
            self._begin_goaway()

    def _begin_goaway(self) -> None:
        if self._drain_step == 0:
            self._drain_step = 1
            self.send(goaway_frame(LAST_STREAM, NO_ERROR) + ping_frame(_DRAINING, ack=False))

    def _second_goaway(self) -> None:
        self._drain_step = 2
        self._last = self._highest
        self.send(goaway_frame(self._last, NO_ERROR))
        if not self._streams:
            self.close_gently()
