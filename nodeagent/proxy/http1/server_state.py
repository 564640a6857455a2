"""What is known of a client's HTTP/1.1 connection, how long it may take, and how it is closed.

`ServerWriting` and `Http1Connection` are built on it, each on the one before.
"""

from __future__ import annotations

import asyncio
from typing import Final

from middleware.contract import ExchangeError
from nodeagent.proxy.body import Body, Unchunked
from nodeagent.proxy.connection import PEER_FULL, TURN, Connection
from nodeagent.proxy.errors import BodyTimeout, ClientStalled, HeadTimeout, IdleTimeout, reply_to
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.http1.render import render_reply
from nodeagent.proxy.listeners import RunningListener
from nodeagent.proxy.runtime import FOREVER
from nodeagent.proxy.streams import Source
from nodeagent.stats.columns import WORKER_HEAD_TIMEOUTS

LINGER_TIME: Final = 2.0
"""Seconds that a closing connection still reads, so that its last response is not lost to a reset."""
DRAIN_IDLE_TIME: Final = 1.0
"""Seconds without a request after which a draining worker closes a connection."""


class ServerState(Connection):
    """The fields of a client's connection, its deadlines, and its end."""

    __slots__ = (
        "_at",
        "_body",
        "_closing",
        "_eof",
        "_exchange",
        "_idle_since",
        "_keep_alive",
        "_modern",
        "_parked",
        "_pending",
        "_progress",
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
        self, listener: RunningListener, source: Source, connect_time: float, idle_time: float | None
    ) -> None:
        super().__init__(listener.runtime)
        self.listener = listener
        self.source = source
        self.connect_time = connect_time
        self.idle_time = idle_time
        self.received = 0
        self.sent = 0
        self._exchange: Exchange | None = None
        self._idle_since = 0.0
        self._pending = b""
        """What has come and belongs to later requests, or waits for its turn; from `_at` on."""
        self._at = 0
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

    def _reads_slowly(self) -> bool:
        """Whether the client has read anything since this was asked last."""
        unsent, before = self.transport.get_write_buffer_size(), self._unsent
        self._unsent = unsent
        return unsent < before

    def _expire_closing(self, now: float) -> None:
        """Break off, unless the client is still reading the last response, however slowly."""
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent, self._progress = unsent, now
        if self._unsent and now - self._progress < self.runtime.limits.stall_time:
            self.deadline = now + LINGER_TIME
        else:
            self.reset()

    def drain(self, now: float) -> None:
        """While the worker drains: close if no request has come for a moment."""
        if self._exchange is None and not self._closing and now - self._idle_since >= DRAIN_IDLE_TIME:
            self._close(now)

    def listener_removed(self) -> None:
        """The Service has left the mesh: an idle client is let go at once."""
        if self._exchange is None and not self._closing and not self._pending:
            self._close(self.runtime.now())

    # The end

    def _refuse(self, error: ExchangeError) -> None:
        """Answer a request that is not forwarded, and close."""
        runtime, listener = self.runtime, self.listener
        if not isinstance(error, HeadTimeout):
            runtime.count(runtime.layout.malformed_column(error.reason))
        listener.refuse(self.source, error)
        self.transport.write(render_reply(reply_to(error), False, False, runtime.date))
        self._close_gently(runtime.now())

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

    def hand_over(self) -> asyncio.Transport:
        """Leave the transport to a successor, which is counted in this one's place."""
        self._closing = self.lost = True
        self.runtime.connections.pop(self, None)
        return self.transport
