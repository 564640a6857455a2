"""What demos that run side by side must not share: the block of addresses, and ports."""

from __future__ import annotations

import socket

from hack.kit.ports import NothingFree, is_free

BLOCKS = 256
STEP = 1000


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


def choose_port(address: str, preferred: int) -> int:
    """Return `preferred`, or the next port in steps of 1000 that is free at the address.

    Raises:
        NothingFree: none is.
    """
    for port in range(preferred, 65536, STEP):
        if is_free(address, port):
            return port
    raise NothingFree(f"no port like {preferred} is free at {address}")
