"""A client's HTTP/1.1 connection: reads request heads, runs one exchange at a time, answers in order.

Implements `nodeagent.proxy.streams.ClientStream`. What a client may use up is bounded: a head in bytes,
fields and time; idle time; requests and chunks in one turn of the loop; and, when it does not read,
everything: no request of it is read until it does. Pipelined requests wait in `_pending`, bounded by ceasing
to read.

This module reads. `server_writing` writes responses; `server_state` has fields and deadlines, and closes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from nodeagent.proxy.body import Body
from nodeagent.proxy.connection import AHEAD, OWN_FULL, PEER_FULL, TURN
from nodeagent.proxy.errors import BadRequest, BodyCut, NoRoute
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.http1.incomplete import UNMEASURED, check_incomplete, check_size
from nodeagent.proxy.http1.known import RequestReader
from nodeagent.proxy.http1.server_writing import ServerWriting
from nodeagent.proxy.listeners import ListenerTable, RunningListener
from nodeagent.proxy.message import NO_BODY, HeadError, RequestHead
from nodeagent.proxy.runtime import FOREVER
from nodeagent.proxy.streams import Source
from nodeagent.stats.columns import CONNECTIONS, CONNECTIONS_ACTIVE

REQUESTS_PER_TURN: Final = 32
"""Requests that are answered at once before others have their turn."""
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*+")
"""RFC 9112 section 2.2: empty lines before a request are ignored."""


class OtherProtocol(NamedTuple):
    """What else a connection may turn out to be, by its first bytes."""

    preface: bytes
    take_over: Callable[[Http1Connection, bytes], None]
    """Called with all that has come."""


class Http1Connection(ServerWriting):
    """One client connection to an http port. `other` takes it over if it begins with the preface of another
    protocol.
    """

    __slots__ = ("_heads", "_listeners", "_other", "_reading")

    def __init__(
        self,
        listener: RunningListener,
        listeners: ListenerTable,
        source: Source,
        connect_time: float,
        idle_time: float | None,
        other: OtherProtocol | None = None,
    ) -> None:
        super().__init__(listener, source, connect_time, idle_time)
        self._listeners = listeners
        self._other = other
        self._heads = RequestReader()
        self._reading = False

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

    @property
    def http_version(self) -> str:
        """Of the request under way."""
        return "1.1" if self._modern else "1.0"

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

    # What the exchange calls; the rest is in `server_writing`

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
