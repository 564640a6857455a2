"""Ports for servers that are stopped and started again: outside the range that connections use."""

from __future__ import annotations

import random
import socket

PORTS = range(20_000, 30_000)


def choose_ports(count: int) -> list[int]:
    """Return different ports of 127.0.0.1 that nobody listens on.

    Raises:
        OSError: none was found.
    """
    chosen: list[int] = []
    for port in random.sample(PORTS, 1000):
        if _is_free(port):
            chosen.append(port)
            if len(chosen) == count:
                return chosen
    raise OSError(f"no {count} free ports from {PORTS.start} to {PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
