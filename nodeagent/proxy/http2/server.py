"""A client's HTTP/2 connection: many streams, each of them an exchange.

`ServerStream` implements `nodeagent.proxy.streams.ClientStream`. What a client may use up is bounded: streams
at once, header blocks, windows, what waits to be sent for each stream and all of them, frames that bring
nothing, streams that are broken off; and, when it does not read, everything: nothing of it is read until it
does.
"""

from __future__ import annotations

import asyncio
from typing import Final

from middleware.contract import ExchangeError, Reply
from nodeagent.proxy.body import Unchunked
from nodeagent.proxy.connection import OWN_FULL, probe_peer
from nodeagent.proxy.errors import BadRequest, BodyTimeout, ClientStalled, IdleTimeout, NoRoute, reply_to
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.grpc_exchange import GrpcExchange
from nodeagent.proxy.grpc_reply import grpc_head
from nodeagent.proxy.http2.connection import Multiplexed, Stream, table_lost
from nodeagent.proxy.http2.flood import RAPID, SMALL_HEAD, Inflation
from nodeagent.proxy.http2.frames import (
    CANCEL,
    ENABLE_CONNECT_PROTOCOL,
    INTERNAL_ERROR,
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
from nodeagent.proxy.http2.timed import TimedExchange
from nodeagent.proxy.listeners import ListenerTable, RunningListener
from nodeagent.proxy.message import (
    CHUNKED,
    NO_BODY,
    UNTIL_CLOSE,
    GrpcRequestHead,
    RequestHead,
    ResponseHead,
    TimedRequestHead,
)
from nodeagent.proxy.runtime import FOREVER
from nodeagent.proxy.streams import Source
from nodeagent.proxy.websocket import WebSocketHead, not_to_be_mistaken, to_success
from nodeagent.stats.columns import CONNECTIONS, CONNECTIONS_ACTIVE, WORKER_HEAD_TIMEOUTS

_EXCHANGES: Final[dict[type[RequestHead], type[Exchange]]] = {
    RequestHead: Exchange,
    GrpcRequestHead: GrpcExchange,
    TimedRequestHead: TimedExchange,
    WebSocketHead: Exchange,
}
_DRAINING: Final = b"draining"
"""The payload of the PING behind the first GOAWAY: when it comes back, the client has seen that."""

_MALFORMED: Final = 400
"""The status of what can only be a fault of the client's HTTP/2 (RFC 9113 section 8.1.1)."""


class ServerStream(Stream):
    """A request of a client and its response."""

    connection: Http2Connection

    __slots__ = (
        "_responding",
        "_to_head",
        "_unchunked",
        "_unsent",
        "connect_time",
        "deadline",
        "early",
        "exchange",
        "received",
        "sent",
        "source",
        "started",
        "write_paused",
    )

    def __init__(
        self, connection: Http2Connection, identifier: int, head: RequestHead, started: float
    ) -> None:
        self.identifier = identifier
        self.window = connection.writer.initial
        self.backlog = None
        self.queued = 0
        self.sent_all = False
        self.connection = connection
        self.held = False
        self.inflow = None
        self.received_all = False
        self.waiting = None
        self.source: Source = connection.source
        self.connect_time: float = connection.connect_time
        self.write_paused = False
        self.received = 0
        self.sent = 0
        self.started = started
        self.deadline = FOREVER
        self.body_left = head.length
        self.early = False
        """Its exchange has not begun, for the body may be in the same bytes as the head."""
        self._to_head = head.method == b"HEAD"
        self._responding = False
        self._unchunked: Unchunked | None = None
        self._unsent = 0
        """Bytes that waited to be sent at the last look at a client that reads slowly."""
        begin = _EXCHANGES[type(head)]
        self.exchange: Exchange | None = begin(self, connection.listener, head, started)

    # What the exchange calls

    def respond(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """Send the response's head with the beginning of its body."""
        self._responding = True
        connection = self.connection
        block = connection.encoder.response(head)
        self.sent += len(block) + 9
        lines = b""
        if head.length == CHUNKED:
            unchunked = self._unchunked = Unchunked()
            data = unchunked.payload(data)
            lines = unchunked.trailers if end else b""
        if not lines:
            self.sent += len(data)
            connection.writer.message(self, block, data, end)
        else:
            connection.writer.headers(self, block, False)
            self._send(data, end, lines)
        if not end:
            self.set_deadline(connection.runtime.now())
        if not connection._flushing:
            connection.flush_soon()

    def send_data(self, data: bytes, end: bool) -> None:
        """Send more of the body."""
        connection = self.connection
        if connection.idle_time is not None and not self.write_paused:
            self.set_deadline(connection.runtime.now())
        if self._unchunked is None:
            self.sent += len(data)
            connection.writer.data(self, data, end)
        else:
            data = self._unchunked.payload(data)
            self._send(data, end, self._unchunked.trailers if end else b"")
        if not connection._flushing:
            connection.flush_soon()

    def send_trailers(self, lines: bytes) -> None:
        """Send trailers, and with them the end."""
        connection = self.connection
        if lines:
            self.sent += len(lines)
            connection.writer.finish(self, lines)
        else:
            connection.writer.data(self, b"", True)
        connection.flush_soon()

    def _send(self, data: bytes, end: bool, lines: bytes) -> None:
        self.sent += len(data)
        writer = self.connection.writer
        if not lines:
            writer.data(self, data, end)
            return
        if data:
            writer.data(self, data, False)
        self.sent += len(lines)
        writer.finish(self, lines)

    def respond_reply(self, reply: Reply, close: bool) -> None:
        """Send a whole response of the mesh itself."""
        if self.exchange is not None and self.exchange.grpc:
            self.respond(grpc_head(reply), b"", True)
            return
        lines = "".join(f"{name}: {value}\r\n" for name, value in reply.headers)
        body = reply.body
        if reply.status in (204, 304):  # RFC 9110 section 8.6
            body = b""
        else:
            lines += f"Content-Length: {len(body)}\r\n"
        head = ResponseHead(reply.status, b"1", b"%d " % reply.status, lines.encode("latin-1"), 0)
        head.length = NO_BODY
        self.respond(head, b"" if self._to_head else body, True)

    def informational(self, head: ResponseHead) -> None:
        """Pass a 1xx response on."""
        connection = self.connection
        block = connection.encoder.response(head)
        self.sent += len(block) + 9
        connection.writer.headers(self, block, False)
        connection.flush_soon()

    def finished(self, now: float, abort: bool) -> None:
        """The exchange has ended; the stream has with it, unless some of the response waits to be sent."""
        self.exchange = None
        connection = self.connection
        if abort:
            connection.drop(self, INTERNAL_ERROR)
        elif self.sent_all:
            connection.close_stream(self, now)
        else:
            self._unsent = self.queued
            self.deadline = now + connection.runtime.limits.stall_time
            connection.due(self.deadline)

    def pause_reading(self) -> None:
        """Let the client wait with its body."""
        self.wait()

    def resume_reading(self) -> None:
        """Let the client go on."""
        self.go_on()

    def body_came(self, data: bytes, end: bool, lines: bytes) -> None:
        """Pass on what has waited."""
        exchange = self.exchange
        if exchange is None:
            return
        if data or not lines:
            exchange.request_data(data, end and not lines)
        if lines and self.exchange is exchange:
            exchange.request_trailers(lines)

    # What the writer calls

    def filled(self) -> None:
        """The client does not keep up with the response."""
        self.write_paused = True
        self._unsent = self.queued
        self.set_deadline(self.connection.runtime.now())
        if self.exchange is not None:
            self.exchange.client_paused()

    def taken(self) -> None:
        """The client has caught up."""
        self.write_paused = False
        self.set_deadline(self.connection.runtime.now())
        if self.exchange is not None:
            self.exchange.client_resumed()

    def ended(self) -> None:
        """The last of the response is on its way."""
        self.write_paused = False
        if self.exchange is None:
            self.connection.close_stream(self, self.connection.runtime.now())

    # Time

    def set_deadline(self, now: float) -> None:
        """Set when it is over its time, by what it waits for."""
        connection = self.connection
        limits = connection.runtime.limits
        if self.write_paused:
            deadline = now + limits.stall_time
        elif connection.idle_time is not None:
            deadline = now + connection.idle_time
        elif self._responding:
            deadline = FOREVER
        elif not self.received_all:
            deadline = now + limits.stall_time
        else:
            deadline = now + limits.response_time
        self.deadline = deadline
        if deadline < connection.deadline:
            connection.deadline = deadline

    def expire(self, now: float) -> None:
        """The deadline has passed: end whatever took too long, and blame whom it belongs to."""
        exchange, connection = self.exchange, self.connection
        slowly = self.queued < self._unsent
        self._unsent = self.queued
        if exchange is None:
            if slowly:
                self.deadline = now + connection.runtime.limits.stall_time
            else:
                connection.drop(self, CANCEL)
            return
        idle = connection.idle_time
        if self.write_paused:
            if not slowly:
                exchange.request_failed(ClientStalled("the client does not read its response"))
        elif self._expire_body(exchange):
            pass
        elif idle is not None:
            exchange.idle(IdleTimeout(f"nothing moved for {idle:g}s (svc.mesh/idle-timeout)"))
        elif not self._responding:
            exchange.silent()
        if self.exchange is not None:
            self.set_deadline(now)

    def _expire_body(self, exchange: Exchange) -> bool:
        """Return whether it is the request's body that took too long, after having seen to it."""
        if self.received_all or (self._responding and not self.held):
            return False
        if self.held:
            exchange.stalled()
        else:
            exchange.request_failed(BodyTimeout("the request body did not come in time"))
        return True


class WebSocketStream(ServerStream):
    """A client's extended CONNECT, and the WebSocket that may come of it (RFC 8441).

    Its DATA is the tunnel's, not a body: what comes before the endpoint has switched waits in the window.
    """

    __slots__ = ("_switched",)

    def __init__(
        self, connection: Http2Connection, identifier: int, head: RequestHead, started: float
    ) -> None:
        super().__init__(connection, identifier, head, started)
        self.body_left = UNTIL_CLOSE
        self.held = True
        self._switched = False

    def begin(self, now: float) -> None:
        """Let the exchange begin: the request is whole."""
        self.set_deadline(now)
        assert self.exchange is not None
        self.exchange.start(b"", True)

    def respond(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """Send the response's head: a 101 is a success here, and everything else has to look like none."""
        if head.status != 101:
            super().respond(not_to_be_mistaken(head), data, end)
            return
        self._switched = True
        super().respond(to_success(head), data, end)
        self.go_on()

    def resume_reading(self) -> None:
        """Let the client go on, if there is something to go on with."""
        if self._switched:
            self.go_on()

    def check_trailers(self, end: bool) -> None:
        """There are none: nothing but DATA comes behind a CONNECT (RFC 9113 section 8.5)."""
        raise StreamFault("trailer", "HEADERS within a WebSocket (RFC 9113 section 8.5)")

    def finished(self, now: float, abort: bool) -> None:
        """The exchange has ended; a tunnel that broke is cancelled (RFC 8441 section 5)."""
        if abort and self._switched:
            self.exchange = None
            self.connection.drop(self, CANCEL)
        else:
            super().finished(now, abort)

    def set_deadline(self, now: float) -> None:
        """Set when it is over its time, as for a request that is whole, or a tunnel."""
        connection = self.connection
        limits = connection.runtime.limits
        if self.write_paused:
            self.deadline = now + limits.stall_time
        elif connection.idle_time is not None:
            self.deadline = now + connection.idle_time
        else:
            self.deadline = FOREVER if self._responding else now + limits.response_time
        connection.due(self.deadline)

    def _expire_body(self, exchange: Exchange) -> bool:
        return False


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
        self.listener.count(CONNECTIONS)
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
            self.spend_patience(4)
            self.reset_stream(stream, REFUSED_STREAM)
            return
        try:
            head = self.decoder.request(block, end)
        except StreamFault as fault:
            self._refuse(stream, fault, end)
            return
        except CompressionFault as fault:
            raise table_lost(fault) from None
        if self.listener.removed and not self._follow():
            mine = self._streams[stream] = ServerStream(self, stream, head, runtime.now())
            self._turn_away(mine, NoRoute(f"{self.listener.service} has left the mesh"), end)
            return
        size = len(head.fields)
        if size > SMALL_HEAD and not self._inflation.takes(size, len(block), self._heads_under_way):
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
            self.on_stream_fault(stream, STREAM_CLOSED, "HEADERS behind the end of the request")
            return
        try:
            lines = self.decoder.trailers(block)
            mine.check_trailers(end)
        except StreamFault as fault:
            self._broken(mine, fault)
            return
        except CompressionFault as fault:
            raise table_lost(fault) from None
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
            self.on_stream_fault(stream, STREAM_CLOSED, "DATA behind the end of the request")
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
        """Let heads go on alone whose bodies have not come."""
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
        error = BadRequest(fault)
        runtime.observer.refused(listener.service, listener.port, self.source.address, error)

    def _turn_away(self, mine: ServerStream, error: ExchangeError, end: bool) -> None:
        """Answer a request for which there is no exchange."""
        runtime, listener = self.runtime, self.listener
        runtime.count(runtime.layout.malformed_column(error.reason))
        runtime.observer.refused(listener.service, listener.port, self.source.address, error)
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
            self._second_goaway()  # what is on its way behind is not served, which its client has to know
        else:
            self.due(now + self.runtime.limits.idle_time)

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

    def every_stream(self) -> list[Stream]:
        """All streams that are open."""
        return list(self._streams.values())

    def stream(self, stream: int) -> Stream | None:
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
        """End the streams that are over their time; return whether the connection goes on."""
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
