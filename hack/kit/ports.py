"""Ports of this machine to listen on. What is free may be taken a moment later."""

from __future__ import annotations

import contextlib
import random
import socket

LOCALHOST = "127.0.0.1"
PORTS = range(20_000, 30_000)
"""Outside the range that connections use, so that a server that is stopped gets its port again."""


class NothingFree(Exception):
    """The machine has no room for what was asked; the message says for what."""


def free_ports(count: int) -> list[int]:
    """Return different ports that are free at every address.

    Raises:
        NothingFree: there are not so many.
    """
    chosen: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if is_free("", port):
            chosen.append(port)
            if len(chosen) == count:
                return chosen
    raise NothingFree(f"no {count} ports from {PORTS.start} to {PORTS.stop} are free")


def free_port() -> int:
    """Return a port that is free at every address."""
    return free_ports(1)[0]


def claim_number(what: str, count: int) -> tuple[int, socket.socket]:
    """Return the first number below `count` that nobody on this machine has claimed of `what`.

    It is held until the last copy of the socket is closed: those that processes inherited count too.

    Raises:
        NothingFree: all are claimed.
    """
    for number in range(count):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0{what}/{number}")
        except OSError:
            claim.close()
        else:
            return number, claim
    raise NothingFree(f"all {count} numbers of {what} are in use on this machine")


def is_free(address: str, port: int) -> bool:
    """Return whether this process could listen there, for TCP and UDP; every address is the empty one."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
        # Connections that ended a moment ago (TIME_WAIT) do not matter here, nor for the servers.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((address, port))
        tcp.listen(1)
        udp.bind((address, port))
        return True
    return False


def listens(address: str, port: int) -> bool:
    """Return whether a connection to this address and port is accepted."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
