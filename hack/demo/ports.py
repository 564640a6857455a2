"""What demos that run side by side must not share: the block of addresses, and ports."""

from __future__ import annotations

import socket

from hack.kit.ports import NothingFree, claim_number, is_free

BLOCKS = 256
STEP = 1000


def claim_block() -> tuple[int, socket.socket]:
    """Return the first number that no other demo of this machine has; it is held until the socket is closed.

    Raises:
        NothingFree: there are 256 demos already.
    """
    return claim_number("svcmesh-demo", BLOCKS)


def choose_port(address: str, preferred: int) -> int:
    """Return `preferred`, or the next port in steps of 1000 that is free at the address.

    Raises:
        NothingFree: none is.
    """
    for port in range(preferred, 65536, STEP):
        if is_free(address, port):
            return port
    raise NothingFree(f"no port like {preferred} is free at {address}")
