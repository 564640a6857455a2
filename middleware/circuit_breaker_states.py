"""Which state a circuit breaker is in, and what that means for a request. Pure; see `circuit_breaker`."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from middleware.circuit_breaker_options import Options
from middleware.condition import TOTAL, Condition
from middleware.contract import NodeWindow

SECOND: Final = 1_000_000_000
"""In nanoseconds, as moments are."""


class State(enum.IntEnum):
    """As the metric shows it."""

    CLOSED = 0
    RECOVERING = 1
    OPEN = 2


class Event(enum.Enum):
    """What ends a state."""

    CONDITION_HOLDS = enum.auto()
    TIME_IS_UP = enum.auto()


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.CLOSED, Event.CONDITION_HOLDS): State.OPEN,
    (State.OPEN, Event.TIME_IS_UP): State.RECOVERING,
    (State.RECOVERING, Event.CONDITION_HOLDS): State.OPEN,
    (State.RECOVERING, Event.TIME_IS_UP): State.CLOSED,
}
"""What is not in the table does not change the state."""

STAGES: Final = {State.RECOVERING: 1, State.CLOSED: 2}
"""What `NodeWindow.reach` calls the states that follow an opening."""


class Change(msgspec.Struct, frozen=True):
    """The breaker has entered a state; the figures are those it was decided by, or stood at."""

    state: State
    first: bool
    """Whether this worker is the first of the node to see the change: it is the one that logs it."""
    outcomes: int = 0
    figures: str = ""
    """`NetworkErrorRatio()=0.62`, for every figure of the expression."""


class CircuitBreaker:
    """The policy of one worker; what it shares with the others is in `window`, made for the condition's
    counters. `now` in seconds never goes back.

    A request asks for `window.moment()` when it comes: if that is not `settled`, `advance` and `admit`
    decide on it. With the same moment it goes to `record` when it is answered.
    """

    def __init__(self, condition: Condition, window: NodeWindow, options: Options | None = None) -> None:
        options = options or Options()
        self._check_every = options.check_every
        self._recovery = options.recovery
        self._troubled = options.open_for + options.recovery
        """For how long after an opening it is not closed."""
        self._samples = options.samples
        self._durations = {State.OPEN: options.open_for, State.RECOVERING: options.recovery}
        """Being closed has no end."""
        self._condition = condition
        self._indices = condition.indices
        self._window = window
        self._add = window.add
        self.state = State.CLOSED
        """As of the last `advance` or `record`."""
        self.settled = 0
        """The moment of an opening (0: none) after which the breaker is closed again: all requests pass. -1:
        it is not."""
        self._opened = 0
        """The moment that `state` follows from."""
        self._ends = float("inf")
        """When `state` ends, unless the condition holds again."""
        self._next_check = float("-inf")
        self._credit = 0.0
        """Requests that may pass in recovery, the whole part of it."""

    def advance(self, now: float, opened: int) -> Iterator[Change]:
        """Make the state follow the moment of the last opening and the clock; yield the changes."""
        if opened != self._opened:
            self._opened = opened
            if opened:  # by another worker, or before this one came
                self._enter(State.OPEN, opened / SECOND)
                yield Change(State.OPEN, first=False)
            elif self.state is not State.CLOSED:  # the window was not used for so long that it is gone
                self._enter(State.CLOSED, now)
                yield Change(State.CLOSED, first=False)
        while now >= self._ends:
            self._enter(TRANSITIONS[self.state, Event.TIME_IS_UP], self._ends)
            first = self._window.reach(opened, STAGES[self.state])
            yield self._change(self._window.sums(now), first=first)
        self.settled = opened if self.state is State.CLOSED else -1

    def admit(self, now: float) -> bool:
        """Decide on a request, after `advance`."""
        if self.state is State.CLOSED:
            return True
        # A window that nobody uses for a minute may be forgotten, but the breaker may be open for longer.
        self._add(now, (), self._opened)
        if self.state is State.OPEN:
            return False
        # A share that grows with time, spent a whole request at a time: even at one request a second.
        self._credit += 1 - (self._ends - now) / self._recovery
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def record(
        self, now: float, opened: int, latency: float, status: int, network_error: bool = False
    ) -> Change | None:
        """Count what became of a request that came when `opened` was the moment of the last opening.

        Opens the breaker if that is due.
        """
        if not self._add(now, self._indices(status, latency, network_error), opened):
            return None
        if now < self._next_check:
            return None
        self._next_check = now + self._check_every
        return self._check(now, opened)

    def retry_after(self, now: float) -> float:
        """Return the seconds until requests may pass (again, or all of them)."""
        return max(self._ends - now, 0.0)

    def _check(self, now: float, opened: int) -> Change | None:
        sums = self._window.sums(now)
        recovering = opened and now < opened / SECOND + self._troubled
        fewest = 1 if recovering else self._samples
        if sums[TOTAL] < fewest or not self._condition.holds(sums) or not self._window.begin(now, opened):
            return None
        self._opened, self.settled = self._window.moment(), -1
        self._enter(State.OPEN, self._opened / SECOND)
        return self._change(sums, first=True)

    def _enter(self, state: State, since: float) -> None:
        self.state, self._credit = state, 0.0
        self._ends = since + self._durations.get(state, float("inf"))

    def _change(self, sums: Sequence[int], first: bool) -> Change:
        return Change(self.state, first, sums[TOTAL], self._condition.figures(sums))


def latency(now: float, started: float, completed: float | None) -> float:
    """Return how long the endpoints took for a request that came to the breaker at `started`.

    Its last byte came at `completed`; None: it has not come yet, so they were not waited for.
    """
    return now - max(started, completed) if completed is not None else 0.0
