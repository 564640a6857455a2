"""A connection to an endpoint: reads response heads and hands bytes to the exchange that owns it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from middleware.contract import UpstreamProtocolError
from nodeagent.proxy.head import HeadError, parse_response
from nodeagent.proxy.incomplete import UNMEASURED, check_incomplete, check_size
from nodeagent.settings import Limits

if TYPE_CHECKING:
    from nodeagent.proxy.exchange import Exchange
    from nodeagent.proxy.pool import Pool

_NO_TRANSPORT = cast("asyncio.Transport", None)
_HEAD_LIMITS = Limits(head_bytes=256 * 1024, head_fields=512)


class UpstreamConnection(asyncio.Protocol):
    """One HTTP/1.1 connection to an endpoint. `served` counts the exchanges it has completed."""

    __slots__ = ("_buffer", "exchange", "idle_since", "in_body", "keep_alive", "pool", "served", "transport")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.transport = _NO_TRANSPORT
        self.exchange: Exchange | None = None
        self.served = 0
        self.idle_since = 0.0
        self.in_body = False
        self.keep_alive = True
        self._buffer = b""

    @property
    def usable(self) -> bool:
        """True while nothing says that the far side has left."""
        return not self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio calls this once."""
        self.transport = cast("asyncio.Transport", transport)

    def start(self, exchange: Exchange, data: bytes) -> None:
        """Send the beginning of a request; what comes back belongs to `exchange`."""
        self.exchange = exchange
        self.in_body = False
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Asyncio calls this with what the endpoint sent."""
        exchange = self.exchange
        if exchange is None:  # nobody asked: whatever this is, it must not answer the next request
            self.close()
            return
        if self.in_body:
            exchange.response_data(data)
            return
        if self._buffer:
            held, self._buffer = self._buffer, b""
            if b"\n" not in data and len(held) + len(data) <= _HEAD_LIMITS.head_bytes:
                self._buffer = held + data  # no line was completed, so nothing new can be said of it
                return
            data = held + data
        try:
            self._read_heads(exchange, data)
        except HeadError as error:
            exchange.upstream_failed(
                UpstreamProtocolError(f"{self.pool.upstream} answered badly: {error.detail}")
            )

    def _read_heads(self, exchange: Exchange, data: bytes) -> None:
        while True:
            head = parse_response(data, exchange.to_head)
            if head is None:
                check_incomplete(data, _HEAD_LIMITS, response=True)
                self._buffer = data
                return
            if head.end > UNMEASURED:
                check_size(data, head.end, head.raw_fields, _HEAD_LIMITS)
            rest = data[head.end :]
            if head.status >= 200 or head.status == 101:
                self.in_body = True
                self.keep_alive = head.keep_alive
                exchange.response_started(head, rest)
                return
            exchange.informational(head)
            if not rest:
                return
            data = rest

    def eof_received(self) -> bool:
        """Asyncio calls this when the endpoint will send no more."""
        exchange = self.exchange
        if exchange is not None and self.in_body:
            return exchange.response_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio calls this once, last."""
        exchange = self.exchange
        if exchange is None:
            self.pool.forget(self)
        else:
            self.exchange = None
            exchange.upstream_lost(self)

    def pause_writing(self) -> None:
        """Asyncio: the endpoint reads slower than the client sends."""
        if self.exchange is not None:
            self.exchange.pause_request()

    def resume_writing(self) -> None:
        """Asyncio: the endpoint has caught up."""
        if self.exchange is not None:
            self.exchange.resume_request()

    def release(self, reusable: bool, now: float) -> None:
        """End the exchange: back to the pool, or close."""
        self.exchange = None
        self.served += 1
        if reusable and self.usable:
            self.pool.give_back(self, now)
        else:
            self.close()

    def close(self) -> None:
        """Close, sending what is still buffered."""
        if not self.transport.is_closing():
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.exchange = None
        self.transport.abort()
