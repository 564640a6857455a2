"""The outcome of every request, and which failures are excused. Pure: times are arguments.

A failure is excused by a window (a worker was killed or hung while the request was under way) or by a rule of
`docs/failure.md` (a POST that was on its way to an endpoint that reset). Everything else is a violation.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

SETTLE = 0.25
"""Seconds after a window in which its failures may still be noticed: clients have a loop of their own."""
MOST_KEPT = 10_000
"""Failures of which the details are kept."""


class Result(enum.Enum):
    """The kinds of outcome of a request, connection or query."""

    OK = "ok"
    MEANT = "meant"
    """Failed, as its Service asks for: a fault, a limit, an open circuit, a timeout."""
    FAILED = "failed"


class Break(enum.Enum):
    """How a request failed."""

    CONNECTION = "connection"
    """Reset, refused, or ended too early."""
    TIMEOUT = "timeout"
    ANSWER = "answer"
    """An answer other than the right one."""


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of one request, from `started` to `ended` (seconds of one clock)."""

    kind: str
    service: str
    started: float
    ended: float
    result: Result = Result.OK
    why: str = ""
    how: Break | None = None
    unsafe: bool = False
    """May not be sent twice: a POST, a tunnel, a tcp connection."""


class Window(msgspec.Struct):
    """A time in which requests under way may fail. `until` is infinite while it lasts."""

    reason: str
    since: float
    until: float = float("inf")
    any_break: bool = False
    """Whether they may fail in any way, and not just by a broken connection."""

    def excuses(self, outcome: Outcome) -> bool:
        """Whether this may be why it failed."""
        overlaps = outcome.started <= self.until + SETTLE and outcome.ended >= self.since
        return overlaps and (self.any_break or outcome.how is Break.CONNECTION)


class Verdict(msgspec.Struct, frozen=True):
    """A failure that was judged; `excuse` is empty if nothing excuses it."""

    outcome: Outcome
    excuse: str


class Ledger:
    """Keeps count of outcomes. `resetting` names the Services that have endpoints which reset or stall."""

    def __init__(self, resetting: Iterable[str] = ()) -> None:
        self.counts: Counter[tuple[str, str, Result]] = Counter()
        """By kind, Service and result."""
        self.meant: Counter[tuple[str, str]] = Counter()
        """By Service and reason."""
        self.windows: list[Window] = []
        self.failures: list[Outcome] = []
        self.failed = 0
        self._resetting = frozenset(resetting)

    @property
    def total(self) -> int:
        """How many outcomes there were."""
        return self.counts.total()

    def open(self, reason: str, now: float, *, any_break: bool = False) -> Window:
        """Begin a time in which requests under way may fail."""
        window = Window(reason, now, any_break=any_break)
        self.windows.append(window)
        return window

    def record(self, outcome: Outcome) -> None:
        """Take note of one outcome."""
        self.counts[outcome.kind, outcome.service, outcome.result] += 1
        if outcome.result is Result.MEANT:
            self.meant[outcome.service, outcome.why] += 1
        elif outcome.result is Result.FAILED:
            self.failed += 1
            if len(self.failures) < MOST_KEPT:
                self.failures.append(outcome)

    def judge(self) -> list[Verdict]:
        """Return every failure with its excuse."""
        return [Verdict(outcome, self._excuse(outcome)) for outcome in self.failures]

    def _excuse(self, outcome: Outcome) -> str:
        for window in self.windows:
            if window.excuses(outcome):
                return window.reason
        if outcome.unsafe and outcome.service in self._resetting and outcome.how is Break.ANSWER:
            return "sent to an endpoint that reset or stalled, and may not be sent twice"
        return ""


def tally(verdicts: Sequence[Verdict]) -> Counter[str]:
    """Return how many failures each excuse covers; those without one are under the empty text."""
    return Counter(verdict.excuse for verdict in verdicts)
