"""What a node is like before an agent runs on it, as values.

`nodeagent node-check` reads them, and meshctl judges them.

Nothing here needs the kernel, so that a command on another machine can read the values.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Iterator
from typing import Literal

import msgspec

_LISTENS = "0A"
"""The state TCP_LISTEN in /proc/net/tcp."""
_UNCONNECTED = "07"
"""The state of a UDP socket without a peer."""

Transport = Literal["tcp", "udp"]


class Listening(msgspec.Struct, frozen=True, order=True):
    """A socket that waits for connections or datagrams."""

    transport: Transport
    address: str
    port: int

    @property
    def everywhere(self) -> bool:
        """Whether it takes the port on every IPv4 address of the node."""
        return self.address in ("0.0.0.0", "::")


class NodeFacts(msgspec.Struct, frozen=True):
    """What was found on a node. Texts that say what is wrong are empty where nothing is."""

    version: str
    """Of svc.mesh, in the image that looked."""
    kernel: str
    net_admin: bool
    """Whether the container runtime grants the capability NET_ADMIN to the agent's user."""
    ruleset: str
    """Why the kernel does not take the agent's nftables table; it was tried without being put in force."""
    table: str
    """Who made a table `ip svcmesh` that is there: the agent's mark, or `unknown`; empty without one."""
    routes: tuple[str, ...]
    """Routes into the mesh range that are not an agent's."""
    addresses: tuple[str, ...]
    """Addresses of the node's interfaces within the mesh range."""
    listening: tuple[Listening, ...]


def parse_listening(transport: Transport, table: str) -> Iterator[Listening]:
    """Yield the waiting sockets of `/proc/net/{tcp,tcp6,udp,udp6}`; strange lines are left out."""
    wanted = _LISTENS if transport == "tcp" else _UNCONNECTED
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) > 3 and words[3] == wanted:
            address, _, port = words[1].partition(":")
            try:
                yield Listening(transport, _address(address), int(port, 16))
            except ValueError:
                continue


def _address(text: str) -> str:
    """Read an address of 4 or 16 bytes, written as words of four bytes in the order of the machine."""
    data = bytes.fromhex(text)
    words = [data[start : start + 4] for start in range(0, len(data), 4)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    family = socket.AF_INET if len(data) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words))


def within(network: ipaddress.IPv4Network, prefix: str) -> bool:
    """Whether a prefix lies in the mesh range; the broadcast address of everybody does not count."""
    found = ipaddress.ip_network(prefix, strict=False)
    return (
        isinstance(found, ipaddress.IPv4Network)
        and found.subnet_of(network)
        and str(found) != "255.255.255.255/32"
    )
