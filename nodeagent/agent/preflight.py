"""What can be found out before anything is started or changed: is there such a source, are the ports free?

What may become right by waiting is not an error here: an API server that does not answer, or a plugin that
fails. On a node a predecessor that is being replaced may have the ports; it shares them.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from typing import Final, NamedTuple

from discovery.source import Source, SourceError
from nodeagent.admin.access import LOOPBACK, wants_loopback
from nodeagent.capture.occupant import Transport, occupant
from nodeagent.settings import DNS_PORT, Settings

_IP_FREEBIND: Final = 15
"""`linux/in.h`: bind an address that is not local yet; the capture makes the mesh range local later."""
_KINDS: Final[dict[Transport, socket.SocketKind]] = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class StartError(Exception):
    """The agent cannot start; the message says what to change."""


class _Port(NamedTuple):
    """An address that the agent is going to listen on. `flag` is empty where no flag sets the address."""

    flag: str
    address: str
    port: int
    transport: Transport

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        what = self.flag or "the DNS address of the mesh range"
        return f"{what} {address}:{self.port} ({self.transport.upper()})"


async def check_source(settings: Settings, source: Source) -> None:
    """Make sure that there is what `--source` names.

    Raises:
        StartError: there is not, and waiting will not help.
    """
    try:
        await source.check()
    except SourceError as error:
        hint = ". To read Services from files instead: --source file:PATH"
        said = str(error).removesuffix(".") + (hint if settings.source == "kube" else "")
        raise StartError(f"--source {settings.source}: {said}") from error


def check_ports(settings: Settings) -> None:
    """Make sure that the agent will be able to listen where it has to.

    Raises:
        StartError: something else listens there, or nobody may; the message names the flag.
    """
    share = settings.capture == "nftables"
    for port in _ports(settings):
        error = _bind(port, share=False)
        if error == errno.EADDRINUSE and share and _is_shared(port):
            continue
        if error:
            raise StartError(_describe(port, error))


def _ports(settings: Settings) -> Iterator[_Port]:
    yield _Port("--admin-listen", *settings.admin_listen, "tcp")
    if wants_loopback(settings.admin_listen[0]):
        yield _Port("--admin-listen", LOOPBACK, settings.admin_listen[1], "tcp")
    addresses = {settings.dns_listen: "--dns-listen"}
    if settings.capture == "nftables":
        addresses[settings.dns_address, DNS_PORT] = ""
    for (address, port), flag in addresses.items():
        yield _Port(flag, address, port, "tcp")
        yield _Port(flag, address, port, "udp")


def _is_shared(port: _Port) -> bool:
    """Whether the program that listens there shares the port with this agent, as another agent does
    (SO_REUSEPORT).

    Only TCP is tried: a UDP socket would, once bound, take packets that are meant for the other program. An
    agent that answers DNS listens on both.
    """
    tcp = port._replace(transport="tcp")
    return _bind(tcp, share=False) == errno.EADDRINUSE and _bind(tcp, share=True) == 0


def _bind(port: _Port, *, share: bool) -> int:
    """Bind an address and let go of it again; return the number of the error, 0 if there was none."""
    family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
    try:
        with socket.socket(family, _KINDS[port.transport]) as probe:
            if port.transport == "tcp":  # on UDP it would let two sockets have the port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if not port.flag:
                probe.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((port.address, port.port))
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _describe(port: _Port, error: int) -> str:
    reason = os.strerror(error)
    another = f"choose another address with {port.flag}" if port.flag else "choose another with --mesh-range"
    if error == errno.EADDRINUSE:
        taken_by = occupant(port.address, port.port, port.transport)
        return f"{port}: {reason}{taken_by and f': {taken_by}'}; stop that program, or {another}"
    if error == errno.EADDRNOTAVAIL:
        return f"{port}: {reason}; choose an address of this machine with {port.flag}"
    if error == errno.EACCES:
        return f"{port}: {reason}: a port below 1024 needs privileges; {another}"
    return f"{port}: {reason}; {another}"
