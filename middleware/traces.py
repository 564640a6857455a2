"""What is recorded of a request that is traced, and who takes it.

Part of `middleware.contract`, where authors import it from.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from middleware.grpc import GrpcStatus
from middleware.journey import Stage


class TracedRequest(msgspec.Struct, frozen=True, array_like=True):
    """A request that is over. Times are seconds of `Context.now`, ids as in W3C Trace Context."""

    trace_id: bytes
    span_id: bytes
    """Of the mesh; of a sampled request, the parent of what its endpoint does."""
    parent_id: bytes
    """The span that the client was in; empty: it named none."""
    sampled: bool
    """Whether that was decided at its beginning; False: at its end, so its endpoint does not know of it."""
    service: str
    """`namespace/name`."""
    port: int
    source: str
    source_port: int
    method: str
    path: str
    """Without the query, which may hold secrets."""
    status: int
    """0: the client left before a response."""
    grpc_status: GrpcStatus | None
    failure: str
    """Why it has failed, in a word that is stable; empty: it has not."""
    detail: str
    start: float
    end: float
    received: int
    sent: int
    stages: tuple[Stage, ...]
    http_version: str = "1.1"
    """As the client speaks it; see `Ended`."""


class TraceSink(Protocol):
    """Takes what is recorded."""

    def keep(self, request: TracedRequest) -> None:
        """Take a request; it is dropped, and counted, if there are too many."""
        ...
