"""Opens the sockets that DNS listens on."""

from __future__ import annotations

import ipaddress
import socket


def open_socket(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """Return a non-blocking socket bound to exactly this address, IPv4 or IPv6.

    SO_REUSEPORT lets the next agent start to answer before this one stops.

    Raises:
        ValueError: `address` is not an address.
        OSError: it cannot be bound; the message names it.
    """
    family = socket.AF_INET if ipaddress.ip_address(address).version == 4 else socket.AF_INET6
    opened = socket.socket(family, kind)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if kind == socket.SOCK_STREAM:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
    except OSError as error:
        opened.close()
        name = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
        raise OSError(
            error.errno, f"DNS cannot listen on {address} port {port} ({name}): {error.strerror}"
        ) from error
    return opened
