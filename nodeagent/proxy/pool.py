"""Connections to one endpoint: those in use, those idle, and how new ones are made.

A pool never waits on behalf of an exchange: `take` returns an idle connection or None, `connect` calls back.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING, Protocol

from nodeagent.plan.model import Upstream
from nodeagent.settings import Limits

if TYPE_CHECKING:
    from nodeagent.proxy.upstream import UpstreamConnection


class ConnectionTaker(Protocol):
    """Who asked for a connection."""

    def connected(self, connection: UpstreamConnection) -> None:
        """Take the new connection into use."""
        ...

    def connect_failed(self, upstream: Upstream, error: Exception) -> None:
        """Learn that the endpoint accepted none."""
        ...


class Pool:
    """The HTTP/1.1 connections of this worker to one endpoint; the idle ones are re-used newest first."""

    __slots__ = ("_connecting", "_idle", "_limits", "closed", "loop", "upstream")

    def __init__(self, upstream: Upstream, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.upstream = upstream
        self.loop = loop
        self.closed = False
        self._limits = limits
        self._idle: deque[UpstreamConnection] = deque()
        self._connecting: set[asyncio.Task[None]] = set()

    def take(self, probe: bool) -> UpstreamConnection | None:
        """Return an idle connection, or None. `probe` looks first whether the far side has closed it.

        A probe costs a system call; it is worth it for a request that could not be sent twice.
        """
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable and not (probe and _closed_by_peer(connection)):
                return connection
            connection.close()
        return None

    def give_back(self, connection: UpstreamConnection, now: float) -> None:
        """Keep a connection for the next exchange, or close it when there are enough."""
        if self.closed or len(self._idle) >= self._limits.upstream_idle_connections:
            connection.close()
            return
        connection.idle_since = now
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop an idle connection that has been lost."""
        try:
            self._idle.remove(connection)
        except ValueError:
            return

    def close_idle(self, before: float) -> None:
        """Close connections that have been idle since `before` (loop time)."""
        while self._idle and self._idle[0].idle_since <= before:
            self._idle.popleft().close()

    def connect(self, taker: ConnectionTaker) -> None:
        """Open a connection; `taker.connected` or `taker.connect_failed` is called when it is decided."""
        task = self.loop.create_task(self._connect(taker))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, taker: ConnectionTaker) -> None:
        from nodeagent.proxy.upstream import UpstreamConnection

        try:
            async with asyncio.timeout(self._limits.connect_time):
                _, connection = await self.loop.create_connection(
                    lambda: UpstreamConnection(self), self.upstream.address, self.upstream.port
                )
        except (OSError, TimeoutError) as error:
            taker.connect_failed(self.upstream, error)
        else:
            taker.connected(connection)

    def close(self) -> None:
        """Close idle connections; those in use close when their exchange ends."""
        self.closed = True
        while self._idle:
            self._idle.pop().close()


def _closed_by_peer(connection: UpstreamConnection) -> bool:
    """Look at the socket itself: an end of stream may wait there that the loop has not seen yet."""
    peer: socket.socket = connection.transport.get_extra_info("socket")
    try:
        # The transport's socket may only be looked at, so a duplicate of it is peeked into.
        with socket.socket(fileno=socket.dup(peer.fileno())) as duplicate:
            return duplicate.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
