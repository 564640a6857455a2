"""A new connection: for which mesh address and port is it, and which kind of connection serves it?"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final, cast

from nodeagent.plan.model import RouteKey
from nodeagent.proxy.downstream import DownstreamConnection
from nodeagent.proxy.proxy import Proxy
from nodeagent.proxy.route import HttpRoute
from nodeagent.proxy.tcp import TcpDownstream, reset

_SO_ORIGINAL_DST: Final = 80
"""`linux/netfilter_ipv4.h`: the destination before DNAT, as a sockaddr_in."""

Destination = Callable[[socket.socket], RouteKey]


def original_destination(connection: socket.socket) -> RouteKey:
    """Return where the client meant to connect to, as the kernel's connection tracking remembers it.

    Raises:
        OSError: the connection was not redirected.
    """
    raw = connection.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
    port, address = struct.unpack_from("!2xH4s", raw)
    return (socket.inet_ntoa(address), port)


def local_address(connection: socket.socket) -> RouteKey:
    """Return the address and port that the connection was accepted on."""
    address, port = connection.getsockname()[:2]
    return (address, port)


class Accepted(asyncio.Protocol):
    """What a listener makes of a new connection; it hands over to the right kind at once."""

    __slots__ = ("_destination", "_proxy")

    def __init__(self, proxy: Proxy, destination: Destination) -> None:
        self._proxy = proxy
        self._destination = destination

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find the route and hand the connection over, or refuse it with a reset."""
        stream = cast("asyncio.Transport", transport)
        source = stream.get_extra_info("peername")[0]
        try:
            key = self._destination(stream.get_extra_info("socket"))
        except OSError:
            reset(stream)
            return
        route = self._proxy.admit(key, source)
        if route is None:
            reset(stream)
            return
        connection: DownstreamConnection | TcpDownstream
        if isinstance(route, HttpRoute):
            connection = DownstreamConnection(self._proxy, route, source)
        else:
            connection = TcpDownstream(self._proxy, route, source)
        stream.set_protocol(connection)
        connection.connection_made(stream)
