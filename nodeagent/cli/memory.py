"""How much memory a worker may take before it breaks off the client that makes it hold most."""

from __future__ import annotations

import os
from typing import Final

from nodeagent.cli.control_group import ControlGroup

MIB: Final = 1024 * 1024
LEAST: Final = 96 * MIB
"""A worker takes a third of this when nothing happens."""
SHARE: Final = 0.7
"""Of the container's memory, for all workers together; the rest is the agent's, the sockets' and spare."""


def worker_memory(workers: int, group: ControlGroup | None = None, physical: int | None = None) -> int:
    """Return the bytes of one of so many workers: of the container's limit, else of half the machine."""
    limits = [int(text) for text in (group or ControlGroup()).limits("memory.max") if text.isdigit()]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if physical is None else physical
    return max(LEAST, int(min([*limits, machine // 2]) * SHARE / workers))
