"""How a request spent its time, stage by stage.

Part of `middleware.contract`: `Ended.journey` shows it to those who asked for it.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

StageKind = Literal["queue", "connect", "try", "backoff", "middleware"]
QUEUE: Final = "queue"
"""Waited for others: for a place among `svc.mesh/max-requests`, for a limit of the whole cluster, for the
response to an equal request (cache), or for a connection that others used."""
CONNECT: Final = "connect"
"""A new connection to an endpoint was made."""
TRY: Final = "try"
"""An endpoint had the request, or was sent it: from its first byte until the try was over."""
BACKOFF: Final = "backoff"
"""The pause before a retry."""
MIDDLEWARE: Final = "middleware"
"""All the rest: the layers' own time, and what they waited for without saying so."""


class Stage(msgspec.Struct, frozen=True, array_like=True):
    """One stage. Times are seconds of the clock that the data plane uses (`Context.now`)."""

    kind: StageKind
    start: float
    end: float
    endpoint: str = ""
    """`address:port`, of `connect` and `try`, and of `queue` for a connection."""
    number: int = 0
    """Of the try that it belongs to, from 1; 0: it belongs to none."""
    outcome: str = ""
    """How a `connect` or `try` ended: the response's status, or the reason of an error, or `abandoned`."""
    answered: float | None = None
    """When the head of the try's response came; None: it did not."""

    @property
    def took(self) -> float:
        """Its length in seconds."""
        return self.end - self.start


class Journey(msgspec.Struct, frozen=True):
    """The stages of one exchange, in the order in which they began.

    Only a second try that runs beside the first one (`Request.race`) overlaps another stage.
    """

    start: float
    end: float
    stages: tuple[Stage, ...] = ()
    left_out: int = 0
    """Stages that there were beyond those that are kept."""

    def spent(self, kind: StageKind) -> float:
        """Return the seconds in stages of this kind; those that overlap count once."""
        total, reached = 0.0, self.start
        for stage in self.stages:
            if stage.kind == kind:
                total += max(0.0, stage.end - max(stage.start, reached))
                reached = max(reached, stage.end)
        return total

    @property
    def tries(self) -> int:
        """How many tries there were, those without a connection included."""
        return max((stage.number for stage in self.stages), default=0)
