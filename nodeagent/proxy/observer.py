"""Who is told what happens to single requests and connections, for the access log, and what is told.

Values only: nobody who is told gets hold of a live exchange or connection.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from middleware.contract import Ended, ExchangeError

ALL: Final = 0
FAILURES: Final = 500
NO_STATUS: Final = 1000
"""For `Observer.from_status`: everything; what failed; nothing, for no response has a status that high."""


class Refused(msgspec.Struct, frozen=True):
    """A request, or (`connection`) a whole connection, that was refused before there was an exchange."""

    service: str
    """`namespace/name`; empty if the connection was for none that is known."""
    port: int
    source: str
    """The client's address."""
    source_port: int
    destination: str
    """`address:port` that the client connected to; empty if that is not known."""
    error: ExchangeError
    connection: bool = False


class Closed(msgspec.Struct, frozen=True):
    """A connection to a tcp port that is over. Times in seconds, sizes in bytes."""

    service: str
    port: int
    source: str
    source_port: int
    destination: str
    endpoint: str
    """`address:port` of the endpoint, or of the last one tried; empty if there was none."""
    took: float
    received: int
    """From the client."""
    sent: int
    """To the client."""
    reason: str
    """Why it ended, in a word that is stable."""
    detail: str = ""
    failed: bool = False
    """It did not end because one side had said all it wanted, or the client had left."""


class Circulation(msgspec.Struct, frozen=True):
    """An endpoint is ejected by outlier detection, or used again."""

    service: str
    port: int
    endpoint: str
    """`address:port`."""
    ejected: bool
    reason: str
    seconds: float
    """How long it will be ejected, or was to be."""
    times: int
    """How often it was ejected lately."""
    left: int
    """How many endpoints of the port are not ejected."""


class Observer(Protocol):
    """Who is told."""

    wants_all: bool
    """False: of tcp connections only those that failed are told."""
    from_status: int
    """Exchanges that ended with this status or a higher one are told, and all that have an error."""

    def ended(self, ended: Ended) -> None:
        """Learn of an exchange that ended."""
        ...

    def takes_reply(self, service: str, port: int, reason: str) -> bool:
        """Return whether to tell of an exchange that a middleware answered with a status from 400 to 499."""
        ...

    def closed(self, closed: Closed) -> None:
        """Learn of a connection to a tcp port that ended."""
        ...

    def refused(self, refused: Refused) -> None:
        """Learn of a request or connection that was refused."""
        ...

    def layer_failed(self, service: str, port: int, error: Exception) -> None:
        """Learn that a middleware raised what it may not raise."""
        ...

    def circulated(self, circulation: Circulation) -> None:
        """Learn that an endpoint is not used any more, or again."""
        ...


class NoObserver:
    """Nobody is told anything."""

    wants_all = False
    from_status = NO_STATUS

    def ended(self, ended: Ended) -> None:
        """Not told."""

    def takes_reply(self, service: str, port: int, reason: str) -> bool:
        """Return False."""
        return False

    def closed(self, closed: Closed) -> None:
        """Not told."""

    def refused(self, refused: Refused) -> None:
        """Not told."""

    def layer_failed(self, service: str, port: int, error: Exception) -> None:
        """Not told."""

    def circulated(self, circulation: Circulation) -> None:
        """Not told."""
