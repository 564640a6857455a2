"""A request of a client and its response, as one stream of the client's HTTP/2 connection.

`ServerStream` implements `nodeagent.proxy.streams.ClientStream`. A WebSocket is a request of its own kind:
from the endpoint's switch on, what comes for it is a tunnel's (RFC 8441).
"""

from __future__ import annotations

from typing import Final, Protocol

from middleware.contract import Reply
from nodeagent.proxy.body import Unchunked
from nodeagent.proxy.errors import BodyTimeout, ClientStalled, IdleTimeout
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.grpc_exchange import GrpcExchange
from nodeagent.proxy.grpc_reply import grpc_head
from nodeagent.proxy.http2.frames import (
    CANCEL,
    INTERNAL_ERROR,
)
from nodeagent.proxy.http2.headers import StreamFault
from nodeagent.proxy.http2.stream import Stream, StreamOwner
from nodeagent.proxy.http2.timed import TimedExchange
from nodeagent.proxy.listeners import RunningListener
from nodeagent.proxy.message import (
    CHUNKED,
    NO_BODY,
    UNTIL_CLOSE,
    GrpcRequestHead,
    RequestHead,
    ResponseHead,
    TimedRequestHead,
    dated,
)
from nodeagent.proxy.runtime import FOREVER
from nodeagent.proxy.streams import Source
from nodeagent.proxy.websocket import WebSocketHead, not_to_be_mistaken, to_success

_EXCHANGES: Final[dict[type[RequestHead], type[Exchange]]] = {
    RequestHead: Exchange,
    GrpcRequestHead: GrpcExchange,
    TimedRequestHead: TimedExchange,
    WebSocketHead: Exchange,
}


class ServerStreamOwner(StreamOwner, Protocol):
    """A client's connection as its streams see it."""

    source: Source
    connect_time: float
    idle_time: float | None
    listener: RunningListener
    deadline: float

    def due(self, deadline: float) -> None:
        """Have the time looked at by then."""
        ...

    def close_stream(self, mine: ServerStream, now: float) -> None:
        """A stream's response is whole."""
        ...

    def drop(self, mine: ServerStream, code: int) -> None:
        """Break a stream off."""
        ...


class ServerStream(Stream[ServerStreamOwner]):
    """A request of a client and its response."""

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
        self, connection: ServerStreamOwner, identifier: int, head: RequestHead, started: float
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

    @property
    def http_version(self) -> str:
        """That of its connection."""
        return "2"

    def respond(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """Send the response's head with the beginning of its body."""
        self._responding = True
        connection = self.connection
        date = connection.runtime.date
        if date:
            head.fields = dated(head.fields, date)
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
        if not connection.flushing:
            connection.flushing = True
            connection.runtime.flush.add(connection)

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
        if not connection.flushing:
            connection.flushing = True
            connection.runtime.flush.add(connection)

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
        """The exchange has ended; so has the stream, unless a part of the response still waits to be sent."""
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
        """Let the client send again."""
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
        self, connection: ServerStreamOwner, identifier: int, head: RequestHead, started: float
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
        """Send the response's head: a 101 becomes a success here, and no other response may look like a
        success.
        """
        if head.status != 101:
            super().respond(not_to_be_mistaken(head), data, end)
            return
        self._switched = True
        super().respond(to_success(head), data, end)
        self.go_on()

    def resume_reading(self) -> None:
        """Let the client send again, if the stream is still open."""
        if self._switched:
            self.go_on()

    def check_trailers(self, end: bool) -> None:
        """There are none: only DATA comes after a CONNECT (RFC 9113 section 8.5)."""
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
