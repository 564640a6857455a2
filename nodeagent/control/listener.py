"""The workers' listening sockets in nftables capture, which the agent makes and keeps.

All of an agent's workers listen on one port (SO_REUSEPORT spreads connections over them); agents that overlap
during an upgrade listen on different ones, so that the predecessor gets no new connection once its successor
has replaced the kernel's map, and can leave without resetting one that waits to be accepted.
"""

from __future__ import annotations

import socket
from typing import Final

from nodeagent.settings import WORKER_PORTS, Settings

BACKLOG: Final = 4096
_IP_FREEBIND: Final = 15
"""`linux/in.h`: bind an address that is not local yet; the capture makes it local later."""


class NoWorkerPortError(Exception):
    """Every port that workers may listen on is taken."""


def free_worker_port(settings: Settings) -> int:
    """Return the first port on which no other agent's workers listen.

    Raises:
        NoWorkerPortError: there is none.
    """
    for port in WORKER_PORTS:
        with _socket() as probe:
            try:
                probe.bind((settings.worker_address, port))
                probe.listen(1)
            except OSError:
                continue
            return port
    raise NoWorkerPortError(
        f"all ports from {WORKER_PORTS.start} to {WORKER_PORTS.stop - 1} of {settings.worker_address} are "
        "taken; are that many agents running?"
    )


def open_listener(settings: Settings) -> socket.socket:
    """Return one more listening socket on the agent's worker port.

    Raises:
        OSError: the port was taken in between.
    """
    listener = _socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((settings.worker_address, settings.worker_port))
    listener.listen(BACKLOG)
    return listener


def _socket() -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
    return opened
