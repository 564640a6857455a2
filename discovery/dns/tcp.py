"""DNS over TCP (RFC 7766): messages with a length prefix, pipelined, on bounded and mortal connections.

A client may send byte by byte, many queries at once, or never read: it costs one connection and little
memory, until it has been idle for too long or a newer connection needs its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from typing import Any, cast

from discovery.dns.responder import Responder

MAX_CONNECTIONS = 512
"""When one more comes, the connection that has been idle for longest is closed."""

IDLE_TIME = 10.0
"""Seconds from one complete query to the next (RFC 7766 section 6.2.3 asks for some seconds)."""

MAX_QUERY = 4096
"""Bytes; no honest query is longer."""

CLOSE_TIME = 1.0
"""Seconds that clients have to take their last answers when the listener closes."""

BACKLOG = 256

_BUFFER_SIZE = MAX_QUERY + 2


class TcpListener:
    """Answers on one address until it is closed; start it with `start`."""

    def __init__(self, responder: Responder, idle_time: float, max_connections: int) -> None:
        self.responder = responder
        self._idle_time = idle_time
        self._max_connections = max_connections
        self._server: asyncio.Server | None = None
        # In the order of their last complete query, the idlest first.
        self._active_since: dict[TcpConnection, float] = {}
        self._emptied = asyncio.Event()

    async def start(self, listening: socket.socket) -> None:
        """Accept connections on a bound socket, which is the listener's from then on.

        Raises:
            OSError: the socket cannot listen.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: TcpConnection(self), sock=listening, backlog=BACKLOG)

    async def close(self) -> None:
        """Stop accepting, close every connection when its answers are sent; wait for that, but not long."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._active_since):
            connection.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wait_until_empty(), CLOSE_TIME)
        for connection in list(self._active_since):
            connection.abort()
        await self._wait_until_empty()

    async def _wait_until_empty(self) -> None:
        while self._active_since:
            self._emptied.clear()
            await self._emptied.wait()

    def close_idle(self, now: float) -> None:
        """Close the connections that have been idle for too long at the loop's time `now`."""
        overdue = itertools.takewhile(
            lambda item: now - item[1] >= self._idle_time, self._active_since.items()
        )
        for connection, _ in list(overdue):
            connection.abort()

    def admit(self, connection: TcpConnection, now: float) -> None:
        """Take a new connection in, in the place of the idlest if there are too many."""
        self._active_since[connection] = now
        if len(self._active_since) > self._max_connections:
            next(iter(self._active_since)).abort()

    def note_activity(self, connection: TcpConnection, now: float) -> None:
        """Put a connection last in the row of those to be closed."""
        if self._active_since.pop(connection, None) is not None:
            self._active_since[connection] = now

    def forget(self, connection: TcpConnection) -> None:
        """Strike out a connection that is closed."""
        self._active_since.pop(connection, None)
        if not self._active_since:
            self._emptied.set()


class TcpConnection(asyncio.BufferedProtocol):
    """One client. Holds at most one buffer of queries; all that are complete are answered at once."""

    def __init__(self, listener: TcpListener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(_BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._transport: asyncio.Transport | None = None
        self._source: tuple[Any, ...] = ("",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Enter the connection into the listener's books."""
        self._transport = cast("asyncio.Transport", transport)
        self._source = transport.get_extra_info("peername") or ("",)
        self._listener.admit(self, self._loop.time())

    def connection_lost(self, exc: Exception | None) -> None:
        """Strike it out again."""
        self._transport = None
        self._listener.forget(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the free part of the buffer: never empty, as what is complete has been taken out."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Answer every query that is complete now."""
        self._filled += nbytes
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        respond = self._listener.responder.respond_tcp
        replies: list[bytes] = []
        for query in self._take_queries():
            reply = respond(query, self._source)
            if reply is None:
                # Not DNS, or no query: where the next message begins is anyone's guess.
                self._send(transport, replies)
                transport.close()
                return
            replies.append(reply)
        self._send(transport, replies)

    def pause_writing(self) -> None:
        """The client does not read: neither do we, until it does or has been idle for too long."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has read."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Close once everything written is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _take_queries(self) -> list[bytes]:
        """Take the complete messages out of the buffer; a message of an impossible length is empty."""
        queries = []
        start, end = 0, self._filled
        while end - start >= 2:
            length = int.from_bytes(self._view[start : start + 2], "big")
            if length > MAX_QUERY:
                queries.append(b"")
                break
            if end - start < 2 + length:
                break
            queries.append(bytes(self._view[start + 2 : start + 2 + length]))
            start += 2 + length
        self._buffer[: end - start] = self._buffer[start:end]
        self._filled = end - start
        return queries

    def _send(self, transport: asyncio.Transport, replies: list[bytes]) -> None:
        if not replies:
            return
        self._listener.responder.counters.tcp += len(replies)
        self._listener.note_activity(self, self._loop.time())
        transport.write(b"".join(len(reply).to_bytes(2, "big") + reply for reply in replies))
