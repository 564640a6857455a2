"""What a middleware would do with a request, decided without sending it.

A middleware may bring `explain(options, asked)` beside its layer (`Middleware.explain`). It is pure but for
`asked`, which it changes as its layer would change the request: what comes after it goes by that. It calls
the functions that the layer calls, so that the two cannot disagree. What depends on running state or on
chance it says in words, and names the statuses that may come of it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from middleware.exchange import Asked


class AskedHere(Asked, Protocol):
    """The same, with what a `Context` tells of the place."""

    @property
    def service(self) -> str:
        """`namespace/name` of the Service that is asked."""
        ...

    @property
    def port(self) -> int:
        """The Service's port."""
        ...


class Decision(msgspec.Struct, frozen=True):
    """What a middleware does with one request."""

    says: str
    """In a few words, for people."""
    status: int = 0
    """Of the answer that it gives by itself in any case; 0: the request goes on."""
    fields: tuple[tuple[str, str], ...] = ()
    """The header fields of that answer."""
    reason: str = ""
    """The word for that answer in the access log and in `Proxy-Status`."""
    perhaps: tuple[int, ...] = ()
    """Statuses that it may answer with, as running state or chance has it."""
    shares: tuple[tuple[str, int], ...] = ()
    """The backends among which it chooses, by name (empty: the Service itself), with their weights."""
    otherwise: str = ""
    """The backend that gets the request instead if running state says so, such as an open
    circuit breaker; empty: there is none."""
