"""What is open and under way in one worker, counted at every sweep: for the gauges, and to find what is left.

Counted by looking rather than kept as a sum: a look cannot drift, and costs a request nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from nodeagent.proxy.runtime import Timed


class Census(msgspec.Struct, frozen=True):
    """What there was at one look."""

    clients: int = 0
    exchanges: int = 0
    """Under way for clients."""
    upstreams_active: int = 0
    upstreams_idle: int = 0
    paused: int = 0
    longest_pause: float = 0.0
    """Seconds, measured from the first look that has seen the pause."""


class CensusTaker:
    """Takes a census now and then, and remembers what was paused the last time."""

    def __init__(self) -> None:
        self._since: dict[Timed, float] = {}

    def take(self, connections: Iterable[Timed], now: float) -> Census:
        """Count these connections."""
        clients = exchanges = active = idle = 0
        since: dict[Timed, float] = {}
        before = self._since
        for connection in connections:
            if connection.of_client:
                clients += 1
                exchanges += connection.busy
            elif connection.busy:
                active += 1
            else:
                idle += 1
            if connection.paused:
                since[connection] = before.get(connection, now)
        self._since = since
        longest = now - min(since.values()) if since else 0.0
        return Census(clients, exchanges, active, idle, len(since), longest)
