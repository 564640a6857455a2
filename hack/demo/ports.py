"""Which addresses and ports of this machine are free for a demo. What is free may be taken a moment later."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

BLOCKS = 256
STEP = 1000
TRIES = 100


class NothingFree(Exception):
    """The machine has no room for what was asked; the message says for what."""


def claim_block() -> tuple[int, socket.socket]:
    """Return the first number that no other demo of this machine has; it is held until the socket is closed.

    Raises:
        NothingFree: there are 256 demos already.
    """
    for block in range(BLOCKS):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0svcmesh-demo/{block}")
        except OSError:
            claim.close()
        else:
            return block, claim
    raise NothingFree(f"{BLOCKS} demos run on this machine already")


def choose_port(address: str, preferred: int, *, udp: bool = False) -> int:
    """Return `preferred`, or the next port in steps of 1000 that is free at the address (`udp`: of UDP too).

    Raises:
        NothingFree: none is.
    """
    for port in range(preferred, 65536, STEP):
        if is_free(address, port, udp=udp):
            return port
    raise NothingFree(f"no port like {preferred} is free at {address}")


def is_free(address: str, port: int, *, udp: bool = False) -> bool:
    """Return whether this process could listen there, and nobody does."""
    kinds = [socket.SOCK_STREAM, *([socket.SOCK_DGRAM] if udp else [])]
    try:
        with contextlib.ExitStack() as stack:
            for kind in kinds:
                _bind(stack, address, port, kind)
    except OSError:
        return False
    return True


def free_port(addresses: Sequence[str]) -> int:
    """Return a port that is free at all these addresses at once.

    Raises:
        NothingFree: none was found.
    """
    for _ in range(TRIES):
        with contextlib.ExitStack() as stack:
            candidate = _bind(stack, addresses[0], 0, socket.SOCK_STREAM)
        if all(is_free(address, candidate) for address in addresses):
            return candidate
    raise NothingFree(f"no port is free at {', '.join(addresses)}")


def _bind(stack: contextlib.ExitStack, address: str, port: int, kind: socket.SocketKind) -> int:
    probe = stack.enter_context(socket.socket(socket.AF_INET, kind))
    if kind == socket.SOCK_STREAM:
        # What ended a moment ago (TIME_WAIT) is not in the way, as it is not for the servers.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind((address, port))
    if kind == socket.SOCK_STREAM:
        probe.listen(1)
    return int(probe.getsockname()[1])
