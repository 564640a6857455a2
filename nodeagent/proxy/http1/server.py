"""A client's HTTP/1.1 connection: reads request heads, runs one exchange at a time, answers in order.

Implements `nodeagent.proxy.streams.ClientStream`. What a client may use up is bounded: a head in bytes,
fields and time; idle time; requests and chunks in one turn of the loop; and, when it does not read,
everything: no request of it is read until it does. Pipelined requests wait in `_pending`, bounded by ceasing
to read.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from middleware.contract import ExchangeError, Reply
from nodeagent.proxy.body import LAST_CHUNK, Body, Unchunked, chunk
from nodeagent.proxy.connection import AHEAD, OWN_FULL, PEER_FULL, TURN, Connection, probe_peer
from nodeagent.proxy.errors import (
    BadRequest,
    BodyCut,
    BodyTimeout,
    ClientStalled,
    HeadTimeout,
    IdleTimeout,
    NoRoute,
    reply_to,
)
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.http1.incomplete import UNMEASURED, check_incomplete, check_size
from nodeagent.proxy.http1.known import RequestReader
from nodeagent.proxy.http1.render import render_reply
from nodeagent.proxy.listeners import ListenerTable, RunningListener
from nodeagent.proxy.message import (
    CHUNKED,
    NO_BODY,
    UNTIL_CLOSE,
    HeadError,
    RequestHead,
    ResponseHead,
    dated,
)
from nodeagent.proxy.runtime import FOREVER
from nodeagent.proxy.streams import Source
from nodeagent.stats.columns import CONNECTIONS, CONNECTIONS_ACTIVE, WORKER_HEAD_TIMEOUTS

LINGER_TIME: Final = 2.0
"""Seconds that a closing connection still reads, so that its last response is not lost to a reset."""
DRAIN_IDLE_TIME: Final = 1.0
"""Seconds without a request after which a draining worker closes a connection."""
REQUESTS_PER_TURN: Final = 32
"""Requests that are answered at once before others have their turn."""
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*+")
"""RFC 9112 section 2.2: empty lines before a request are ignored."""


class OtherProtocol(NamedTuple):
    """What else a connection may turn out to be, by its first bytes."""

    preface: bytes
    take_over: Callable[[Http1Connection, bytes], None]
    """Called with all that has come."""


class Http1Connection(Connection):
    """One client connection to an http port. `other` takes it over if it begins with the preface of another
    protocol.
    """

    __slots__ = (
        "_at",
        "_body",
        "_closing",
        "_eof",
        "_exchange",
        "_heads",
        "_idle_since",
        "_keep_alive",
        "_listeners",
        "_modern",
        "_other",
        "_parked",
        "_pending",
        "_progress",
        "_reading",
        "_rechunk",
        "_responding",
        "_to_head",
        "_turn",
        "_unchunked",
        "_unsent",
        "connect_time",
        "idle_time",
        "listener",
        "received",
        "sent",
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
        other: OtherProtocol | None = None,
    ) -> None:
        super().__init__(listener.runtime)
        self.listener = listener
        self.source = source
        self.connect_time = connect_time
        self.idle_time = idle_time
        self.received = 0
        self.sent = 0
        self._listeners = listeners
        self._other = other
        self._heads = RequestReader()
        self._exchange: Exchange | None = None
        self._idle_since = 0.0
        self._pending = b""
        """What has come and belongs to later requests, or waits for its turn; from `_at` on."""
        self._at = 0
        self._reading = False
        self._turn = False
        """Whether `_go_on` is to be called: next, or (`_parked`) when the endpoint reads again."""
        self._parked = False
        self._closing = False
        self._unsent = 0
        """Bytes that were still to be sent at the last look at a client that reads slowly, and since when a
        closing connection has them."""
        self._progress = 0.0
        self._eof = False
        # Of the exchange under way:
        self._body: Body | None = None
        """Of its request, while it comes."""
        self._keep_alive = True
        self._modern = True
        self._to_head = False
        self._responding = False
        self._rechunk = False
        self._unchunked: Unchunked | None = None

    @property
    def owner(self) -> str:
        """The client's address."""
        return self.source.address

    @property
    def held(self) -> int:
        """Bytes of requests that are not whole or wait, of a body kept for a retry, and of the response."""
        exchange = self._exchange
        return super().held + len(self._pending) + (exchange.held if exchange is not None else 0)

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._exchange is not None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the client has the time of an idle connection for its first request."""
        super().connection_made(transport)
        self._idle_since = now = self.runtime.now()
        self.deadline = now + self.runtime.limits.idle_time
        self.listener.count_from(self.source, CONNECTIONS)
        self.listener.count(CONNECTIONS_ACTIVE)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client: of the body under way, of the next request, or of a switched protocol."""
        exchange = self._exchange
        if exchange is None:
            if self._closing:
                return
            if self._turn or self.write_paused:
                self._keep(data)
            elif self._pending:
                self._read_more(data)
            else:
                self._read_requests(data, 0)
        elif self._turn:
            self._keep(data)
        elif exchange.tunnel:
            self.received += len(data)
            if self.idle_time is not None:
                self.deadline = self.runtime.now() + self.idle_time
            exchange.request_data(data, False)
        elif self._body is not None:
            self._read_body(exchange, self._body, data)
        else:
            self._keep(data)

    def eof_received(self) -> bool:
        """The client sends no more: it has half-closed and waits, or it has left, which looks the same.

        What it has asked for is still answered, if that does not take longer than a stall may.
        """
        exchange = self._exchange
        if exchange is None or self._closing:
            return False
        self._eof = True
        if exchange.tunnel:
            exchange.request_data(b"", True)
            return not self.transport.is_closing()
        if self._body is not None:
            if exchange.committed:  # its response is cut short by this, and must not look whole
                exchange.request_failed(BodyCut("the client ended within its request"))
            return False
        self._set_deadline(self.runtime.now())
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it the exchange that was under way."""
        super().connection_lost(exc)
        self.runtime.leave(self.source.address)
        self.listener.count(CONNECTIONS_ACTIVE, -1)
        self._closing = True
        self._pending = b""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        """The client reads slower than it is answered."""
        self.write_paused = True
        self._unsent = self.transport.get_write_buffer_size()
        if not self._closing:
            self.deadline = self.runtime.now() + self.runtime.limits.stall_time
        if self._exchange is not None:
            self._exchange.client_paused()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.write_paused = False
        exchange = self._exchange
        if exchange is not None:
            self._set_deadline(self.runtime.now())
            exchange.client_resumed()
        elif not self._closing:
            self.deadline = self.runtime.now() + self.runtime.limits.idle_time
            self.let_go(OWN_FULL)
            self._read_pending()

    # Requests

    def _read_more(self, data: bytes) -> None:
        """Read on after an unfinished head."""
        held = self._pending[self._at :] if self._at else self._pending
        if b"\n" not in data and len(held) + len(data) <= self.runtime.limits.head_bytes:
            self._pending, self._at = held + data, 0
            return  # no line was completed, so nothing new can be said of it
        self._pending, self._at = b"", 0
        self._read_requests(held + data, 0)

    def _read_pending(self) -> None:
        """Read what waited."""
        if self._pending and not (self._reading or self._turn or self.write_paused):
            data, position = self._pending, self._at
            self._pending, self._at = b"", 0
            self._read_requests(data, position)

    def _read_requests(self, data: bytes, position: int) -> None:
        """Run the requests in `data` one after another until one has to wait for its endpoint."""
        runtime = self.runtime
        budget = REQUESTS_PER_TURN
        size = len(data)
        self._reading = True
        while position < size:
            started = runtime.now()
            try:
                head = self._heads.read(data, self.listener.default_host, position)
                if head is None:
                    if not self.received and self._begins_other(data, started):
                        break
                    if data.startswith(b"\r\n", position):
                        position = _EMPTY_LINES.match(data, position).end()  # type: ignore[union-attr]
                        continue
                    data = data[position:]
                    check_incomplete(data, runtime.limits)
                    self._keep_head(data, started)
                    break
                end = head.end
                if end - position > UNMEASURED:
                    check_size(data, position, end, runtime.limits)
            except HeadError as error:
                self._refuse(BadRequest(error))
                break
            if self.listener.removed and not self._follow():
                self._refuse(NoRoute(f"{self.listener.service} has left the mesh"))
                break
            self.received = end - position
            position = self._run(head, data, started)
            if position == size:
                break
            if self._closing:
                break
            if self._exchange is not None or self._turn:
                self._put_back(data, position)
                break
            budget -= 1
            if not budget:
                self._put_back(data, position)
                self._yield()
                break
            if self.write_paused:
                self._put_back(data, position)
                self.hold(OWN_FULL)
                break
        self._reading = False

    def _run(self, head: RequestHead, data: bytes, started: float) -> int:
        """Begin an exchange; return where in `data` its body, as far as it has come, ends."""
        runtime = self.runtime
        self._keep_alive = head.keep_alive
        self._modern = head.minor == b"1"
        self._to_head = head.method == b"HEAD"
        self._responding = False
        self.sent = 0
        exchange = self._exchange = Exchange(self, self.listener, head, started)
        if head.length == NO_BODY:
            self.deadline = started + (self.idle_time or runtime.limits.response_time)
            exchange.start(b"", True)
            return head.end
        body = self._body = Body(head.length, head.trailers and self.listener.spec.trailers)
        self.deadline = started + (self.idle_time or runtime.limits.stall_time)
        position, size = head.end, len(data)
        out = b""
        if position < size:
            rest = data[position:]
            try:
                used = body.take(rest)
            except HeadError as error:
                self._body = None
                exchange.fail(BadRequest(error))
                return size
            out = body.forwarded(rest if used == len(rest) else rest[:used])
            position += used
            self.received += used
        if body.done:
            self._body = None
            self.deadline = started + (self.idle_time or runtime.limits.response_time)
        elif position < size:
            self._yield()
        exchange.start(out, body.done)
        return position

    def _read_body(self, exchange: Exchange, body: Body, data: bytes) -> None:
        """Take more of the request's body."""
        if self.deadline != FOREVER and not self.write_paused:
            limits = self.runtime.limits
            self.deadline = self.runtime.now() + (self.idle_time or limits.stall_time)
        try:
            used = body.take(data)
        except HeadError as error:
            self._body = None
            self._keep_alive = False
            exchange.request_failed(BadRequest(error))
            return
        exact = used == len(data)
        self.received += used
        done = body.done
        out = body.forwarded(data if exact else data[:used])
        if done:
            self._body = None
            self._set_deadline(self.runtime.now())
        if not exact:
            self._put_back(data, used)
            if not done:
                self._yield()
        if out or done:
            exchange.request_data(out, done)

    def _yield(self) -> None:
        """Let others have their turn before reading on."""
        if not self._turn:
            self._turn = True
            self.hold(TURN)
            self.runtime.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """It is this connection's turn again."""
        self._turn = False
        if self._closing:
            self.let_go(TURN)
            return
        exchange, body = self._exchange, self._body
        if exchange is not None and body is not None and self._holds & PEER_FULL:
            self._turn = self._parked = True  # what waits is for an endpoint that does not keep up
            return
        if exchange is None:
            self._read_pending()
        elif body is not None and self._pending:
            data = self._pending[self._at :]
            self._pending, self._at = b"", 0
            self._read_body(exchange, body, data)
        if len(self._pending) - self._at <= self.runtime.limits.head_bytes:
            self.let_go(AHEAD)
        if not self._turn:
            self.let_go(TURN)

    def _follow(self) -> bool:
        """Follow a Service that has left the mesh and come back while the client stayed connected."""
        listener = self._listeners.get(self.listener.key)
        if listener is None or not listener.http:
            return False
        self.listener.count(CONNECTIONS_ACTIVE, -1)
        listener.count(CONNECTIONS_ACTIVE)
        self.listener = listener
        return True

    def _begins_other(self, data: bytes, now: float) -> bool:
        """Return whether a connection's first bytes are another protocol's, or may become that."""
        other = self._other
        if other is None:
            return False
        if data.startswith(other.preface):
            other.take_over(self, data)
        elif other.preface.startswith(data):
            self._keep_head(data, now)
        else:
            return False
        return True

    def hand_over(self) -> asyncio.Transport:
        """Leave the transport to a successor, which is counted in this one's place."""
        self._closing = self.lost = True
        self.runtime.connections.pop(self, None)
        return self.transport

    def _keep_head(self, data: bytes, now: float) -> None:
        """Keep an incomplete head; its time runs from its first byte."""
        self._pending, self._at = data, 0
        if self._idle_since != FOREVER:
            self._idle_since = FOREVER
            self.deadline = now + self.runtime.limits.head_time

    def _put_back(self, data: bytes, position: int) -> None:
        """Keep what comes after `position` of what was being read, in front of what has come since."""
        if self._pending:
            data, position = data[position:] + self._pending[self._at :], 0
        self._pending, self._at = data, position
        self._bound()

    def _keep(self, data: bytes) -> None:
        """Keep what belongs to a later request, or must wait."""
        if self._pending:
            data = self._pending[self._at :] + data
        self._pending, self._at = data, 0
        self._bound()
        if self.write_paused and self._exchange is None:
            self.hold(OWN_FULL)

    def _bound(self) -> None:
        """Stop reading when a lot is kept."""
        if len(self._pending) - self._at > self.runtime.limits.head_bytes:
            self.hold(AHEAD)

    def _refuse(self, error: ExchangeError) -> None:
        """Answer a request that is not forwarded, and close."""
        runtime, listener = self.runtime, self.listener
        if not isinstance(error, HeadTimeout):
            runtime.count(runtime.layout.malformed_column(error.reason))
        listener.refuse(self.source, error)
        self.transport.write(render_reply(reply_to(error), False, False, runtime.date))
        self._close_gently(runtime.now())

    # What the exchange calls

    def respond(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """Send the response's head with the beginning of its body."""
        self._responding = True
        if head.status == 101:
            self._switch(head, data)
            return
        fields = head.fields
        date = self.runtime.date
        if date:
            fields = dated(fields, date)
        keep_alive = self._keep_alive
        if keep_alive:
            gone = self._eof or self.runtime.draining or self.listener.removed
            keep_alive = not gone and (self._body is None or not end)
        length = head.length
        if length < 0:
            if self._modern:
                if length == UNTIL_CLOSE:
                    fields += b"Transfer-Encoding: chunked\r\n"
                    self._rechunk = True
                    data = chunk(data) + (LAST_CHUNK if end else b"")
            else:  # HTTP/1.0 knows no chunks: the end of the connection is the end of the body
                keep_alive = False
                if length == CHUNKED:
                    self._unchunked = Unchunked()
                    data = self._unchunked.payload(data)
        if not self._modern:
            fields = _without_transfer_encoding(fields)  # also that of a response to HEAD, which has no body
        if head.upgrade:  # 426: RFC 9110 section 15.5.22
            fields += b"Connection: upgrade\r\nUpgrade: %b\r\n" % head.upgrade
        if not keep_alive:
            fields += b"Connection: close\r\n"
        elif not self._modern:
            fields += b"Connection: keep-alive\r\n"
        self._keep_alive = keep_alive
        out = b"HTTP/1.1 %b\r\n%b\r\n%b" % (head.status_line, fields, data)
        self.sent += len(out)
        if not end:
            self._set_deadline(self.runtime.now())
        self.transport.write(out)

    def send_data(self, data: bytes, end: bool) -> None:
        """Send more of the body, or of a tunnel, where `end` is a half-close."""
        if self._rechunk:
            data = chunk(data) + (LAST_CHUNK if end else b"")
        elif self._unchunked is not None:
            data = self._unchunked.payload(data)
        if (self.idle_time is not None or self._eof) and not self.write_paused:
            self._set_deadline(self.runtime.now())
        transport = self.transport
        if transport.is_closing():
            return
        if data:
            self.sent += len(data)
            transport.write(data)
        if end and self._tunnels:
            transport.write_eof()

    def send_trailers(self, lines: bytes) -> None:
        """End a body that is sent in chunks; its trailers go on to a client that takes them."""
        if self._rechunk and not self.transport.is_closing():
            wanted = self._exchange is not None and self._exchange.takes_trailers
            out = b"0\r\n%b\r\n" % (lines if wanted else b"")
            self.sent += len(out)
            self.transport.write(out)

    def respond_reply(self, reply: Reply, close: bool) -> None:
        """Send a whole response of the mesh itself."""
        self._responding = True
        gone = self._eof or self.runtime.draining or self.listener.removed
        keep_alive = self._keep_alive and not (gone or close) and self._body is None
        self._keep_alive = keep_alive
        out = render_reply(reply, keep_alive, self._to_head, self.runtime.date)
        self.sent += len(out)
        if not self.transport.is_closing():
            self.transport.write(out)

    def informational(self, head: ResponseHead) -> None:
        """Pass a 1xx response on, not to HTTP/1.0 clients."""
        if self._modern:
            out = b"HTTP/1.1 %b\r\n%b\r\n" % (head.status_line, head.fields)
            self.sent += len(out)
            self.transport.write(out)

    def finished(self, now: float, abort: bool) -> None:
        """The exchange has ended: continue with the next request, or close."""
        exchange, self._exchange = self._exchange, None
        self._rechunk = False
        self._unchunked = None
        if abort:
            # Only a broken connection shows the client that the body is not complete.
            self._closing = True
            self._pending = b""
            self.reset()
        elif exchange is not None and exchange.tunnel:
            self._close(now)
        elif not self._keep_alive or self._eof or self._body is not None:
            self._close_gently(now)
        else:
            self._idle_since = now
            limits = self.runtime.limits
            self.deadline = now + (limits.stall_time if self.write_paused else limits.idle_time)
            if self._holds:
                self.let_go(PEER_FULL | AHEAD)
            if self._pending:
                if self.write_paused:
                    self.hold(OWN_FULL)
                else:
                    self._read_pending()

    def pause_reading(self) -> None:
        """Let the client wait with its body."""
        self.hold(PEER_FULL)

    def resume_reading(self) -> None:
        """Let the client send again."""
        if self._holds & PEER_FULL:
            self.let_go(PEER_FULL)
            if self._parked:
                self._parked = False
                self.runtime.loop.call_soon(self._go_on)

    # The connection's own

    def _switch(self, head: ResponseHead, data: bytes) -> None:
        """Switch protocols (RFC 9110 section 7.8): from now on both sides' bytes pass as they are."""
        self._keep_alive = False
        probe_peer(self.transport)
        out = b"HTTP/1.1 %b\r\n%bConnection: upgrade\r\nUpgrade: %b\r\n\r\n%b"
        out %= (head.status_line, head.fields, head.upgrade, data)
        self.sent += len(out)
        self.deadline = FOREVER if self.idle_time is None else self.runtime.now() + self.idle_time
        self.transport.write(out)
        exchange = self._exchange
        if exchange is not None and self._pending:
            ahead = self._pending[self._at :]
            self._pending, self._at = b"", 0
            self.received += len(ahead)
            exchange.request_data(ahead, False)
        self.let_go(AHEAD)
        if exchange is not None and self._eof:
            exchange.request_data(b"", True)

    def _close_gently(self, now: float) -> None:
        """Close for writing and continue to read for a moment: unread bytes at the close would reset the
        connection.
        """
        self._pending = b""
        self._body = None
        transport = self.transport
        if self._eof or transport.is_closing() or not transport.can_write_eof():
            self._close(now)
            return
        self._closing = True
        self._unsent, self._progress = transport.get_write_buffer_size(), now
        self.deadline = now + LINGER_TIME
        self.let_go(~TURN if self._turn and not self._parked else ~0)
        transport.write_eof()

    def _close(self, now: float) -> None:
        """Close; what has been written is still sent, to a client that reads."""
        self._closing = True
        self._unsent, self._progress = self.transport.get_write_buffer_size(), now
        self.deadline = now + LINGER_TIME
        self.transport.close()

    def _expire_closing(self, now: float) -> None:
        """Break off, unless the client is still reading the last response, however slowly."""
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent, self._progress = unsent, now
        if self._unsent and now - self._progress < self.runtime.limits.stall_time:
            self.deadline = now + LINGER_TIME
        else:
            self.reset()

    @property
    def _tunnels(self) -> bool:
        return self._exchange is not None and self._exchange.tunnel

    # Time

    def _set_deadline(self, now: float) -> None:
        """Set when the exchange under way is over its time, by what it waits for."""
        limits = self.runtime.limits
        if self.write_paused or (self._eof and not self._tunnels):
            self.deadline = now + limits.stall_time
        elif self.idle_time is not None:
            self.deadline = now + self.idle_time
        elif self._responding:
            self.deadline = FOREVER
        elif self._body is not None:
            self.deadline = now + limits.stall_time
        else:
            self.deadline = now + limits.response_time

    def expire(self, now: float) -> None:
        """The deadline has passed: end whatever took too long, and blame whom it belongs to."""
        exchange = self._exchange
        if exchange is not None:
            self._expire_exchange(exchange, now)
        elif self._closing:
            self._expire_closing(now)
        elif self._pending and not (self._turn or self.write_paused):
            self.runtime.count(WORKER_HEAD_TIMEOUTS)
            self._refuse(HeadTimeout("the request head was not complete in time"))
        elif self.write_paused:
            if self._reads_slowly():
                self.deadline = now + self.runtime.limits.stall_time
            else:
                self.reset()
        else:
            self._close(now)

    def _reads_slowly(self) -> bool:
        """Whether the client has read anything since this was asked last."""
        unsent, before = self.transport.get_write_buffer_size(), self._unsent
        self._unsent = unsent
        return unsent < before

    def _expire_exchange(self, exchange: Exchange, now: float) -> None:
        if self.write_paused and self._reads_slowly():
            self._set_deadline(now)
            return
        if self.write_paused and exchange.committed:
            exchange.request_failed(ClientStalled("the client does not read its response"))
        elif self.write_paused or (self._eof and not exchange.tunnel):
            self._closing, self._exchange = True, None
            exchange.client_gone()
            self.reset()
        elif self._body is not None and self._holds & PEER_FULL:
            exchange.stalled()
        elif self._body is not None and not self._responding:
            exchange.request_failed(BodyTimeout("the request body did not come in time"))
        elif self.idle_time is not None:
            exchange.idle(IdleTimeout(f"nothing moved for {self.idle_time:g}s (svc.mesh/idle-timeout)"))
        elif not self._responding:
            exchange.silent()
        if self._exchange is exchange and not self._closing:
            self._set_deadline(now)

    def drain(self, now: float) -> None:
        """While the worker drains: close if no request has come for a moment."""
        if self._exchange is None and not self._closing and now - self._idle_since >= DRAIN_IDLE_TIME:
            self._close(now)

    def listener_removed(self) -> None:
        """The Service has left the mesh: an idle client is let go at once."""
        if self._exchange is None and not self._closing and not self._pending:
            self._close(self.runtime.now())


def _without_transfer_encoding(fields: bytes) -> bytes:
    """Remove Transfer-Encoding, for clients that do not know it."""
    lines = fields.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"transfer-encoding:"))
