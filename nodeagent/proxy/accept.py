"""A new connection: for which mesh address and port is it, and which kind of connection serves it?"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final, cast

from middleware.contract import ExchangeError
from nodeagent.plan.model import ListenerKey
from nodeagent.proxy.connection import reset
from nodeagent.proxy.errors import ConnectionLimit, NoListener, NotRedirected, WorkerFull
from nodeagent.proxy.http1.server import Http1Connection, OtherProtocol
from nodeagent.proxy.http2.frames import PREFACE
from nodeagent.proxy.http2.server import Http2Connection
from nodeagent.proxy.listeners import ListenerTable, RunningListener
from nodeagent.proxy.observer import Refused
from nodeagent.proxy.runtime import Runtime
from nodeagent.proxy.streams import Source
from nodeagent.proxy.tcp import TcpConnection
from nodeagent.stats.columns import WORKER_REFUSED_FULL, WORKER_REFUSED_NO_ROUTE

_SO_ORIGINAL_DST: Final = 80
"""`linux/netfilter_ipv4.h`: the destination before DNAT, as a sockaddr_in."""

Destination = Callable[[socket.socket], ListenerKey]


def original_destination(connection: socket.socket) -> ListenerKey:
    """Return where the client meant to connect to, as the kernel's connection tracking remembers it.

    Raises:
        OSError: the connection was not redirected.
    """
    raw = connection.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
    port, address = struct.unpack_from("!2xH4s", raw)
    return (socket.inet_ntoa(address), port)


def local_address(connection: socket.socket) -> ListenerKey:
    """Return the address and port that the connection was accepted on."""
    address, port = connection.getsockname()[:2]
    return (address, port)


class _Arrival:
    """A new connection as gates see it. Implements `middleware.contract.Connection`."""

    __slots__ = ("connect_time", "idle_time", "source")

    def __init__(self, source: str, connect_time: float) -> None:
        self.source = source
        self.connect_time = connect_time
        self.idle_time: float | None = None


class Accepted(asyncio.Protocol):
    """What a listening socket makes of a new connection; it hands over to the right kind at once."""

    __slots__ = ("_destination", "_listeners", "_runtime")

    def __init__(self, runtime: Runtime, listeners: ListenerTable, destination: Destination) -> None:
        self._runtime = runtime
        self._listeners = listeners
        self._destination = destination

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find the listener and hand the connection over, or refuse it with a reset."""
        stream = cast("asyncio.Transport", transport)
        connection = self._admit(stream)
        if connection is None:
            reset(stream)
            return
        stream.set_protocol(connection)
        connection.connection_made(stream)

    def _admit(self, stream: asyncio.Transport) -> Http1Connection | TcpConnection | None:
        runtime = self._runtime
        peer = stream.get_extra_info("peername")
        if peer is None:  # it has reset before it was accepted
            return None
        source = Source(*peer[:2])
        try:
            key = self._destination(stream.get_extra_info("socket"))
        except OSError:
            self._tell_of_stranger(source, "", NotRedirected("it was not made to a mesh address"))
            return None
        listener = self._listeners.get(key)
        if listener is None:
            runtime.count(WORKER_REFUSED_NO_ROUTE)
            destination = f"{key[0]}:{key[1]}"
            self._tell_of_stranger(source, destination, NoListener(f"no Service is served at {destination}"))
            return None
        arrival = _Arrival(source.address, runtime.limits.connect_time)
        if listener.gates and not self._let_in(listener, arrival, source):
            return None
        if runtime.shedding and not listener.http:  # a client of HTTP gets an answer
            runtime.count(WORKER_REFUSED_FULL)
            listener.refuse(source, WorkerFull("the worker has no memory for more"), connection=True)
            return None
        if not runtime.admit(source.address):
            listener.refuse(source, self._over_limit(), connection=True)
            return None
        times = (arrival.connect_time, arrival.idle_time)
        if listener.http:
            other = OtherProtocol(PREFACE, self._begin_http2)
            return Http1Connection(listener, self._listeners, source, *times, other)
        return TcpConnection(listener, source, *times)

    def _begin_http2(self, connection: Http1Connection, data: bytes) -> None:
        """The client has begun as HTTP/2 does (RFC 9113 section 3.4)."""
        times = (connection.connect_time, connection.idle_time)
        successor = Http2Connection(connection.listener, self._listeners, connection.source, *times)
        transport = connection.hand_over()
        transport.set_protocol(successor)
        successor.take_over(transport)
        successor.data_received(data)

    def _tell_of_stranger(self, source: Source, destination: str, error: ExchangeError) -> None:
        """Tell of a connection that is for none of the Services."""
        refused = Refused("", 0, source.address, source.port, destination, error, connection=True)
        self._runtime.observer.refused(refused)

    def _over_limit(self) -> ExchangeError:
        """Return why the runtime admits no connection."""
        limits = self._runtime.limits
        if self._runtime.clients >= limits.connections:
            return WorkerFull(f"the worker has {limits.connections} connections already")
        return ConnectionLimit(f"the client has {limits.connections_per_source} connections already")

    def _let_in(self, listener: RunningListener, arrival: _Arrival, source: Source) -> bool:
        """Ask the listener's gates; what they refuse, or fail at, is refused."""
        try:
            for gate in listener.gates:
                gate(arrival)
        except ExchangeError as error:
            listener.refuse(source, error, connection=True)
            return False
        except Exception as error:
            self._runtime.observer.layer_failed(listener.service, listener.port, error)
            return False
        return True
