"""What became of recorded requests on their way to the collector, as metrics show it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class TraceState(msgspec.Struct, frozen=True):
    """Since the agent's start."""

    waiting: int = 0
    """Requests that wait to be sent."""
    sent: int = 0
    """Spans that the collector has taken."""
    rejected: int = 0
    """Spans that it did not take of lots that it has taken."""
    dropped: Mapping[str, int] = {}
    """Requests whose spans are lost, by reason."""
