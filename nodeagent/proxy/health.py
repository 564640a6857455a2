"""Which endpoints of a backend are worth a try, judged by the outcomes of earlier tries. Pure: time is an
argument.

Passive: nothing is probed here (`nodeagent.health` does that). An endpoint that does not accept a connection
is skipped at once; one that breaks connections or does not answer is skipped after some failures in a row. It
is skipped for a second, twice as long after each further failure, up to half a minute; a success ends that.
Health is a guess and never makes a Service unreachable: endpoints that accept connections are skipped only
while at least half are left, and the caller finds one of the others (`Backend.pick` tries all before it gives
up).
"""

from __future__ import annotations

import enum
from typing import Final, Generic, TypeVar

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
FAILURES_IN_A_ROW: Final = 3

T = TypeVar("T")


class Outcome(enum.Enum):
    """What became of a try, as far as the endpoint is to blame."""

    ANSWERED = enum.auto()
    CONNECT_FAILED = enum.auto()
    RESET = enum.auto()
    TIMEOUT = enum.auto()


class _Trouble:
    """What is known against one endpoint."""

    __slots__ = ("failures", "hard", "pause", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.hard = False
        """It accepts no connection."""
        self.pause = 0.0
        self.until = float("-inf")


class Health(Generic[T]):
    """The health of the endpoints `T` of one backend. `troubles` is empty while all are well."""

    __slots__ = ("troubles",)

    def __init__(self) -> None:
        self.troubles: dict[T, _Trouble] = {}

    def keep(self, endpoints: tuple[T, ...]) -> None:
        """Forget all others."""
        if self.troubles:
            self.troubles = {one: known for one, known in self.troubles.items() if one in endpoints}

    def report(self, endpoint: T, outcome: Outcome, now: float) -> None:
        """Take note of an outcome."""
        if outcome is Outcome.ANSWERED:
            self.troubles.pop(endpoint, None)
            return
        trouble = self.troubles.setdefault(endpoint, _Trouble())
        trouble.failures += 1
        trouble.hard = outcome is Outcome.CONNECT_FAILED
        if trouble.hard or trouble.pause or trouble.failures >= FAILURES_IN_A_ROW:
            trouble.pause = min(max(FIRST_PAUSE, 2 * trouble.pause), LONGEST_PAUSE)
            trouble.until = now + trouble.pause

    def connected(self, endpoint: T) -> None:
        """Take note that this one accepts connections; what it does with them is another matter."""
        trouble = self.troubles.get(endpoint)
        if trouble is not None and trouble.hard:
            del self.troubles[endpoint]

    def usable(self, endpoints: tuple[T, ...], now: float) -> tuple[T, ...]:
        """Return those of `endpoints` that are worth a try; the same tuple while all are well."""
        if not self.troubles:
            return endpoints
        troubles = self.troubles.items()
        out = {one: trouble for one, trouble in troubles if trouble.until > now and one in endpoints}
        soft = [one for one, trouble in out.items() if not trouble.hard]
        if soft and 2 * (len(endpoints) - len(out)) < len(endpoints):
            for one in soft:  # rather a bad answer than all of the load on a few
                del out[one]
        return tuple(one for one in endpoints if one not in out) if out else endpoints
