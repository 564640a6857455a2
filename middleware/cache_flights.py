"""Requests of a cache that are on their way, and the equal ones that wait for their responses."""

from __future__ import annotations

import asyncio
from typing import Literal

from middleware.cache_store import Key

Outcome = Literal["kept", "left", "failed"]
"""What became of a request that others wait for: its response is kept; its client left before; or there is
nothing to wait for."""


class Flight:
    """A request that is on its way, for whose response others may wait."""

    __slots__ = ("_waiters", "waiting")

    def __init__(self) -> None:
        self._waiters: asyncio.Future[Outcome] | None = None
        self.waiting = 0

    def landed(self) -> asyncio.Future[Outcome]:
        """Return what those await that wait."""
        if self._waiters is None:
            self._waiters = asyncio.get_running_loop().create_future()
        return self._waiters

    def land(self, outcome: Outcome) -> None:
        """Let those go on that wait."""
        if self._waiters is not None and not self._waiters.done():
            self._waiters.set_result(outcome)


FlightKey = tuple[Key, tuple[str, ...]]


class Landing:
    """Tells those who wait for a request, if anybody may, what became of it: once."""

    __slots__ = ("_at", "_flight", "_flights", "later")

    def __init__(self, flights: dict[FlightKey, Flight], at: FlightKey, flight: Flight | None) -> None:
        self._flights = flights
        self._at = at
        self._flight = flight
        self.later = False
        """It lands when its body has passed to the client."""

    def land(self, outcome: Outcome) -> None:
        """Let those go on that wait."""
        flight, self._flight = self._flight, None
        if flight is not None:
            del self._flights[self._at]
            flight.land(outcome)
