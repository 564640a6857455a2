"""A client's HTTP/1.1 connection: reads request heads, runs one exchange at a time, answers in order.

What a client may use up is bounded: a head in bytes, fields and time; idle time; and, when it does not read,
the time in which nothing moves. Pipelined requests wait in `_pending`, bounded by ceasing to read.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, cast

from middleware.contract import ExchangeError
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.head import HeadError, RequestHead, parse_request
from nodeagent.proxy.incomplete import UNMEASURED, check_incomplete, check_size
from nodeagent.proxy.respond import (
    BadRequest,
    BodyTimeout,
    HeadTimeout,
    NoRoute,
    UpstreamStalled,
    render_error,
)
from nodeagent.stats.columns import (
    CONNECTIONS,
    CONNECTIONS_ACTIVE,
    UPSTREAM_STALLED,
    WORKER_HEAD_TIMEOUTS,
)

if TYPE_CHECKING:
    from nodeagent.proxy.proxy import Proxy
    from nodeagent.proxy.route import HttpRoute

FOREVER: Final = float("inf")
LINGER_TIME: Final = 2.0
"""Seconds that a closing connection still reads, so that its last response is not lost to a reset."""
DRAIN_IDLE_TIME: Final = 1.0
"""Seconds without a request after which a draining worker closes a connection."""
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*+")
"""RFC 9112 section 2.2: empty lines before a request are ignored."""


class DownstreamConnection(asyncio.Protocol):
    """One client connection to an http port. `deadline` is in the loop's time; see `Proxy.sweep`."""

    __slots__ = (
        "_closing",
        "_eof",
        "_pending",
        "_read_paused",
        "_reading",
        "_write_paused",
        "deadline",
        "exchange",
        "forwarded_for",
        "idle_since",
        "proxy",
        "route",
        "source",
        "source_bytes",
        "transport",
    )

    def __init__(self, proxy: Proxy, route: HttpRoute, source: str) -> None:
        self.proxy = proxy
        self.route = route
        self.source = source
        self.source_bytes = source.encode("ascii")
        self.forwarded_for = b"X-Forwarded-For: %b\r\n\r\n" % self.source_bytes
        self.transport = cast("asyncio.Transport", None)
        self.exchange: Exchange | None = None
        self.deadline = FOREVER
        self.idle_since = 0.0
        self._pending = b""
        self._reading = False
        self._closing = False
        self._eof = False
        self._read_paused = False
        self._write_paused = False

    @property
    def stays_open(self) -> bool:
        """True if the response may promise that the connection stays open."""
        return not (self._eof or self.proxy.draining or self.route.removed)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the client has the time of an idle connection for its first request."""
        self.transport = cast("asyncio.Transport", transport)
        self.idle_since = now = self.proxy.now()
        self.deadline = now + self.proxy.limits.idle_time
        self.route.count(CONNECTIONS)
        self.route.count(CONNECTIONS_ACTIVE)
        self.proxy.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client: of the body under way, of the next request, or of a switched protocol."""
        exchange = self.exchange
        if exchange is None:
            if not self._closing:
                self._read_requests(data)
        elif exchange.tunnel:
            exchange.tunnel_data(data)
        elif exchange.request_done:
            self._hold(data)
        else:
            if self.deadline != FOREVER:
                self.deadline = self.proxy.now() + self.proxy.limits.stall_time
            used = exchange.request_data(data)
            if used < len(data) and not self._closing:
                self._hold(data[used:])

    def eof_received(self) -> bool:
        """The client sends no more: it has half-closed and waits, or it has left, which looks the same.

        What it has asked for is still answered, if that does not take longer than a stall may.
        """
        exchange = self.exchange
        if exchange is None or self._closing:
            return False
        self._eof = True
        if exchange.tunnel:
            exchange.tunnel_eof()
            return True
        self.deadline = self.proxy.now() + self.proxy.limits.stall_time
        return exchange.request_done

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it the exchange that was under way."""
        self.proxy.connections.discard(self)
        self.proxy.connection_closed(self.source)
        self.route.count(CONNECTIONS_ACTIVE, -1)
        exchange, self.exchange = self.exchange, None
        self._closing = True
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        """The client reads slower than the endpoint sends: stop reading from there."""
        self._write_paused = True
        exchange = self.exchange
        if exchange is not None:
            self.deadline = self.proxy.now() + self.proxy.limits.stall_time
            if exchange.upstream is not None:
                exchange.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._write_paused = False
        exchange = self.exchange
        if exchange is not None:
            self.deadline = FOREVER
            if exchange.upstream is not None:
                exchange.upstream.transport.resume_reading()

    # Requests

    def _read_requests(self, data: bytes) -> None:
        """Run the requests in `data` one after another until one has to wait for its endpoint."""
        if self._pending:
            held, self._pending = self._pending, b""
            if b"\n" not in data and len(held) + len(data) <= self.proxy.limits.head_bytes:
                self._pending = held + data  # no line was completed, so nothing new can be said of it
                return
            data = held + data
        self._reading = True
        while data:
            started = self.proxy.now()
            try:
                head = parse_request(data, self.route.default_host)
                if head is None:
                    if data[:2] == b"\r\n":
                        data = data[_EMPTY_LINES.match(data).end() :]  # type: ignore[union-attr]
                        continue
                    check_incomplete(data, self.proxy.limits)
                    self._hold_head(data, started)
                    break
                if head.end > UNMEASURED:
                    check_size(data, head.end, head.raw_fields, self.proxy.limits)
            except HeadError as error:
                self._refuse(BadRequest(error))
                break
            if self.route.removed and not self._rerouted():
                self._refuse(NoRoute(f"{self.route.service} has left the mesh"))
                break
            data = self._run(head, data[head.end :], started)
        self._reading = False

    def _run(self, head: RequestHead, rest: bytes, started: float) -> bytes:
        """Begin an exchange; return what the next one may be read from, if this one has ended already."""
        exchange = self.exchange = Exchange(self, self.route, head, started)
        self.deadline = FOREVER if exchange.request_done else started + self.proxy.limits.stall_time
        left = rest[exchange.start(rest) :]
        if not self._busy:
            return left
        if left and not self._closing:
            self._hold(left)
        return b""

    @property
    def _busy(self) -> bool:
        return self._closing or self.exchange is not None

    def _rerouted(self) -> bool:
        """Follow a Service that has left the mesh and come back while the client stayed connected."""
        route = self.proxy.http_route(self.route.key)
        if route is None:
            return False
        self.route.count(CONNECTIONS_ACTIVE, -1)
        route.count(CONNECTIONS_ACTIVE)
        self.route = route
        return True

    def _hold_head(self, data: bytes, now: float) -> None:
        """Keep an incomplete head; its time runs from its first byte."""
        self._pending = data
        limit = now + self.proxy.limits.head_time
        if self.idle_since != FOREVER:
            self.idle_since = FOREVER
            self.deadline = limit

    def _hold(self, data: bytes) -> None:
        """Keep what belongs to a later request, and stop reading when it is a lot."""
        self._pending += data
        if len(self._pending) > self.proxy.limits.head_bytes:
            self.pause_reading()

    def exchange_finished(self, keep_alive: bool, now: float, abort: bool) -> None:
        """The response is written: go on with the next request, or close."""
        self.exchange = None
        self.idle_since = now
        if abort:
            # Only a broken connection tells the client that the body is not whole.
            self._closing = True
            self.transport.abort()
            return
        if not keep_alive or self._eof:
            self._close_gently(now)
            return
        self.deadline = now + self.proxy.limits.idle_time
        if self._read_paused:
            self.resume_reading()
        if self._pending and not self._reading:
            data, self._pending = self._pending, b""
            self._read_requests(data)

    def _refuse(self, error: ExchangeError) -> None:
        """Answer a request that is not forwarded, and close."""
        self.proxy.refused(self.route, error)
        self.transport.write(self.render(error, keep_alive=False, to_head=False))
        self._close_gently(self.proxy.now())

    def render(self, error: ExchangeError, keep_alive: bool, to_head: bool) -> bytes:
        """Return the response that the mesh makes of an error."""
        return render_error(error, keep_alive, to_head)

    def _close_gently(self, now: float) -> None:
        """Close for writing and read on for a moment: bytes unread at close would reset the connection."""
        self._closing = True
        self._pending = b""
        if self._eof or self.transport.is_closing() or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.resume_reading()
        self.transport.write_eof()
        self.deadline = now + LINGER_TIME

    # Flow

    def write(self, data: bytes) -> None:
        """Send bytes to the client; empty ones are no bytes."""
        if data:
            self.transport.write(data)

    def write_eof(self) -> None:
        """Say that nothing more will be sent."""
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()

    def start_tunnel(self) -> None:
        """Pass what the client sent ahead of the switch."""
        self.deadline = FOREVER
        exchange = self.exchange
        if exchange is not None and self._pending:
            data, self._pending = self._pending, b""
            exchange.tunnel_data(data)

    def pause_reading(self) -> None:
        """Let the client wait."""
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Let the client send again."""
        if self._read_paused and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()

    # Time

    def expire(self, now: float) -> None:
        """The deadline has passed: end whatever took too long."""
        exchange = self.exchange
        if exchange is not None:
            if exchange.request_done or exchange.committed:
                self.transport.abort()
            elif self._read_paused:
                self.route.count(UPSTREAM_STALLED)
                exchange.give_up(UpstreamStalled(f"{exchange.endpoint} does not read the request's body"))
            else:
                exchange.give_up(BodyTimeout("the request body did not come in time"))
        elif self._pending and not self._closing:
            self.proxy.count(WORKER_HEAD_TIMEOUTS)
            self._refuse(HeadTimeout("the request head was not complete in time"))
        elif self._closing:
            self.transport.abort()
        else:
            self.transport.close()

    def drain(self, now: float) -> None:
        """While the worker drains: close if no request has come for a moment."""
        if self.exchange is None and not self._closing and now - self.idle_since >= DRAIN_IDLE_TIME:
            self.transport.close()

    def route_removed(self) -> None:
        """The Service has left the mesh: an idle client is let go at once."""
        if self.exchange is None and not self._closing and not self._pending:
            self.transport.close()
