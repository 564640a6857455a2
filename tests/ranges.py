"""Mesh ranges for the agents that tests start on this machine, which other processes of tests do too.

Two agents of one range would serve the same addresses, and each would take the other for its successor.
"""

from __future__ import annotations

import itertools
import socket
from functools import cache
from typing import Final

from hack.kit.ports import claim_number

FIRST: Final = 128
"""The soak begins at 228."""
BLOCKS: Final = 10
EACH: Final = 10
"""Ranges that a process has, to use in turn: what the last agent has left behind is gone until then."""
_turns = itertools.count()


@cache
def _block() -> tuple[int, socket.socket]:
    """Return the block of ranges of this process, which has it until it ends."""
    return claim_number("svcmesh-tests", BLOCKS)


def next_range() -> str:
    """Return the beginning, `127.N`, of a range that no other process of tests uses."""
    return f"127.{FIRST + _block()[0] * EACH + next(_turns) % EACH}"
