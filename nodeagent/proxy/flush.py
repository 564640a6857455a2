"""Writes at the end of a turn of the loop: whatever a turn adds to a connection leaves in one write.

A write is a system call, dearer than all of what makes a frame. One callback serves all connections of a
turn.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Flushed(Protocol):
    """A connection that has something to write."""

    def flush(self) -> None:
        """Write it."""
        ...


class Flush:
    """The connections of one loop that have something to write."""

    __slots__ = ("_loop", "_pending")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pending: list[Flushed] = []

    def add(self, connection: Flushed) -> None:
        """Have `connection.flush()` called when this turn's events have been dealt with."""
        if not self._pending:
            self._loop.call_soon(self._run)
        self._pending.append(connection)

    def _run(self) -> None:
        pending, self._pending = self._pending, []
        done = 0
        try:
            for connection in pending:
                done += 1
                connection.flush()
        finally:
            if done < len(pending):  # one has failed; the others must be written nevertheless
                self._pending[:0] = pending[done:]
                self._loop.call_soon(self._run)
