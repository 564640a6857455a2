"""A client's connection to a tcp port: bytes both ways, half-close and backpressure, nothing read into.

The endpoint is connected at once, before the client has said anything, so protocols in which the server
speaks first work. What the client sends meanwhile waits, bounded.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Final, cast

from nodeagent.plan.model import Upstream
from nodeagent.proxy.exchange import CONNECT_TRIES
from nodeagent.stats.columns import (
    BYTES_RECEIVED,
    BYTES_SENT,
    CONNECTIONS,
    CONNECTIONS_ACTIVE,
    UPSTREAM_CONNECT_FAILED,
    UPSTREAM_CONNECT_TIMEOUT,
    UPSTREAM_CONNECTIONS,
    UPSTREAM_NO_ENDPOINT,
)

if TYPE_CHECKING:
    from nodeagent.proxy.proxy import Proxy
    from nodeagent.proxy.route import TcpRoute

FOREVER: Final = float("inf")
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class _Side(asyncio.Protocol):
    """One of the two connections; `peer` is the other one."""

    __slots__ = ("peer", "route", "sent", "transport")

    def __init__(self, route: TcpRoute) -> None:
        self.route = route
        self.transport = cast("asyncio.Transport", None)
        self.peer: _Side | None = None
        self.sent = False

    def data_received(self, data: bytes) -> None:
        peer = self.peer
        if peer is not None:
            peer.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the end on; our own side of the connection stays open for what still comes."""
        peer = self.peer
        if peer is None or peer.transport.is_closing():
            return False
        peer.transport.write_eof()
        peer.sent = True
        if self.sent:  # both have ended
            self.transport.close()
            peer.transport.close()
        return True

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        peer, self.peer = self.peer, None
        if peer is None:
            return
        peer.peer = None
        if exc is not None:
            peer.reset()
        else:
            peer.transport.close()

    def reset(self) -> None:
        """Close so that the far side sees a reset: the conversation was broken off, not ended."""
        reset(self.transport)


class TcpUpstream(_Side):
    """The connection to the endpoint of `downstream`."""

    __slots__ = ("_downstream",)

    def __init__(self, route: TcpRoute, downstream: TcpDownstream) -> None:
        super().__init__(route)
        self._downstream = downstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the two at once: what the endpoint says first may come before the connecting task goes on."""
        self.transport = cast("asyncio.Transport", transport)
        self._downstream.join(self)

    def data_received(self, data: bytes) -> None:
        """Bytes for the client."""
        peer = self.peer
        if peer is not None:
            self.route.count(BYTES_SENT, len(data))
            peer.transport.write(data)


class TcpDownstream(_Side):
    """The client's connection."""

    __slots__ = ("_connecting", "_early", "_early_eof", "deadline", "proxy", "source")

    def __init__(self, proxy: Proxy, route: TcpRoute, source: str) -> None:
        super().__init__(route)
        self.proxy = proxy
        self.source = source
        self.deadline = FOREVER
        self._early: list[bytes] = []
        self._early_eof = False
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: connect to an endpoint."""
        self.transport = cast("asyncio.Transport", transport)
        self.route.count(CONNECTIONS)
        self.route.count(CONNECTIONS_ACTIVE)
        self.proxy.connections.add(self)
        self._connecting = self.proxy.loop.create_task(self._connect())

    async def _connect(self) -> None:
        route = self.route
        balancer = route.balancer
        tried: tuple[Upstream, ...] = ()
        for _ in range(CONNECT_TRIES):
            endpoint = balancer.pick(tried, self.proxy.now())
            if endpoint is None:
                break
            tried = (*tried, endpoint)
            try:
                async with asyncio.timeout(self.proxy.limits.connect_time):
                    await self.proxy.loop.create_connection(
                        lambda: TcpUpstream(route, self), endpoint.address, endpoint.port
                    )
            except (OSError, TimeoutError) as error:
                if self._connecting is None:
                    return  # it was connected, and broke: `connection_lost` of the two has dealt with it
                timed_out = isinstance(error, TimeoutError)
                route.count(UPSTREAM_CONNECT_TIMEOUT if timed_out else UPSTREAM_CONNECT_FAILED)
                balancer.connect_failed(endpoint, self.proxy.now())
            else:
                balancer.connected(endpoint)
                return
        if not tried:
            route.count(UPSTREAM_NO_ENDPOINT)
        self.proxy.tcp_failed(route, self.source, tried)
        self._connecting = None
        self.reset()

    def join(self, upstream: TcpUpstream) -> None:
        """Let bytes go both ways between the client and an endpoint that has just been connected."""
        if self.transport.is_closing():  # the client is gone; the task that connects is told so next
            upstream.transport.abort()
            return
        self._connecting = None
        self.route.count(UPSTREAM_CONNECTIONS)
        self.peer = upstream
        upstream.peer = self
        if self._early:
            upstream.transport.write(b"".join(self._early))
            self._early.clear()
        if self._early_eof:
            upstream.transport.write_eof()
            upstream.sent = True
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Bytes for the endpoint."""
        self.route.count(BYTES_RECEIVED, len(data))
        peer = self.peer
        if peer is not None:
            peer.transport.write(data)
        elif self._connecting is not None:
            self._early.append(data)
            # Bounded by one read. Not in `connection_made`: uvloop starts to read after it, whatever it says.
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more."""
        if self._connecting is not None:
            self._early_eof = True
            return True
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client's connection is gone."""
        self.proxy.connections.discard(self)
        self.proxy.connection_closed(self.source)
        self.route.count(CONNECTIONS_ACTIVE, -1)
        if self._connecting is not None:
            self._connecting.cancel()
        super().connection_lost(exc)

    def expire(self, now: float) -> None:
        """Unused: a quiet tcp connection is nobody's fault."""

    def drain(self, now: float) -> None:
        """A tcp connection is served to its end or to the end of the drain time."""

    def route_removed(self) -> None:
        """A tcp connection that is under way is served to its end."""


def reset(transport: asyncio.Transport) -> None:
    """Close a transport with a TCP reset."""
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
