"""How much memory a worker may take before it refuses requests, and resets who makes it hold most."""

from __future__ import annotations

import os
from typing import Final

from nodeagent.cli.control_group import ControlGroup

MIB: Final = 1024 * 1024
LEAST: Final = 96 * MIB
"""An idle worker takes a third of this."""
SHARE: Final = 0.7
"""The share of the container's memory for all workers together; the rest is for the agent, for sockets, and
spare."""


def worker_memory(workers: int, group: ControlGroup | None = None, physical: int | None = None) -> int:
    """Return the bytes that one of `workers` may take: a share of the container's limit, or else of half the
    machine.
    """
    limits = [int(text) for text in (group or ControlGroup()).limits("memory.max") if text.isdigit()]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if physical is None else physical
    return max(LEAST, int(min([*limits, machine // 2]) * SHARE / workers))
