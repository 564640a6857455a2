"""Notes the stages of one exchange while it is on its way, for observers that want to know how it spent its
time.

Pure: the exchange says what happens, and when. It has a recorder only if somebody wants its journey, so other
exchanges pay for one look at that. Each try has a number, from 1. It begins with `began`, which names its
endpoint; `connected` ends the wait for a connection; `answered` is its response's head, and `over` its end.
What is still open when the exchange ends is closed then, and time that belongs to no stage is `middleware`.
"""

from __future__ import annotations

from typing import Final

from middleware.journey import BACKOFF, CONNECT, MIDDLEWARE, QUEUE, TRY, Journey, Stage, StageKind

__all__ = [
    "BACKOFF",
    "CONNECT",
    "LEAST_GAP",
    "MIDDLEWARE",
    "MOST_STAGES",
    "QUEUE",
    "TRY",
    "Journey",
    "Recorder",
    "Stage",
    "StageKind",
]

MOST_STAGES: Final = 64
"""Of one exchange; a custom middleware may try again as often as it likes."""
LEAST_GAP: Final = 0.0001
"""Seconds between two stages below which nothing is said of the time between them."""
ABANDONED: Final = "abandoned"
"""The outcome of a try that was given up before its endpoint had answered."""


class _Open:
    """A stage that has not ended."""

    __slots__ = ("answered", "endpoint", "kind", "number", "outcome", "start")

    def __init__(self, kind: StageKind, endpoint: str, number: int, start: float) -> None:
        self.kind: StageKind = kind
        self.endpoint = endpoint
        self.number = number
        self.start = start
        self.outcome = ""
        self.answered: float | None = None

    def until(self, now: float) -> Stage:
        """Return the stage as it is if it ends now."""
        return Stage(self.kind, self.start, now, self.endpoint, self.number, self.outcome, self.answered)


class Recorder:
    """The stages of one exchange so far. `current` is the number of the exchange's own try, `second` that of
    a try beside it; 0: there was none yet.
    """

    __slots__ = ("_numbers", "_open", "_stages", "_start", "current", "left_out", "second")

    def __init__(self, start: float) -> None:
        self._start = start
        self._open: dict[int, _Open] = {}
        """By the number of the try."""
        self._numbers = 0
        self._stages: list[Stage] = []
        self.current = 0
        self.second = 0
        self.left_out = 0

    def began(self, endpoint: str, now: float, connecting: bool) -> int:
        """A try begins at this endpoint, with a connection or (`connecting`) by waiting for one; return its
        number.
        """
        self._numbers += 1
        number = self._numbers
        self._open[number] = _Open(CONNECT if connecting else TRY, endpoint, number, now)
        return number

    def next_try(self, endpoint: str, now: float, connecting: bool) -> None:
        """The exchange's own try begins, in place of the one before it."""
        self.over(self.current, now)
        self.current = self.began(endpoint, now, connecting)

    def adopt_second(self, now: float) -> None:
        """The second try is the exchange's own from now on."""
        self.over(self.current, now)
        self.current, self.second = self.second, 0

    def connected(self, number: int, now: float, used_before: bool) -> None:
        """The try has its connection; one that was `used_before` is one that it has waited for."""
        stage = self._open.get(number)
        if stage is None or stage.kind != CONNECT:
            return
        if used_before:
            if now - stage.start < LEAST_GAP:  # it did not wait
                stage.kind = TRY
                return
            stage.kind = QUEUE
        self._close(stage, now)
        self._open[number] = _Open(TRY, stage.endpoint, number, now)

    def answered(self, number: int, now: float, outcome: str) -> None:
        """The head of the try's response is there: `outcome` is its status."""
        stage = self._open.get(number)
        if stage is not None:
            stage.answered = now
            stage.outcome = outcome

    def over(self, number: int, now: float, outcome: str = "") -> None:
        """The try has ended, with this reason if there was an error; a second call changes nothing."""
        stage = self._open.pop(number, None)
        if stage is not None:
            stage.outcome = outcome or stage.outcome or ABANDONED
            self._close(stage, now)

    def waited(self, kind: StageKind, start: float, now: float) -> None:
        """A layer has waited, and says what for."""
        self._add(Stage(kind, max(start, self._start), now))

    def end(self, now: float, outcome: str = "") -> Journey:
        """Return the journey of the exchange, which is over; `outcome` is the reason of its error, if any."""
        for number in list(self._open):
            self.over(number, now, outcome)
        return self._journey(self._stages, now)

    def so_far(self, now: float) -> Journey:
        """Return the journey up to now, as if it ended here: of a try under way, what there is of it."""
        return self._journey([*self._stages, *(stage.until(now) for stage in self._open.values())], now)

    def _journey(self, stages: list[Stage], now: float) -> Journey:
        if len(stages) == 1:  # nearly every request
            only = stages[0]
            if only.start - self._start < LEAST_GAP and now - only.end < LEAST_GAP:
                return Journey(self._start, now, (only,), self.left_out)
        stages = sorted(stages, key=_order)
        return Journey(self._start, now, _without_gaps(stages, self._start, now), self.left_out)

    def _close(self, stage: _Open, now: float) -> None:
        self._add(stage.until(now))

    def _add(self, stage: Stage) -> None:
        if len(self._stages) < MOST_STAGES:
            self._stages.append(stage)
        else:
            self.left_out += 1


def _order(stage: Stage) -> tuple[float, float]:
    return (stage.start, stage.end)


def _without_gaps(stages: list[Stage], start: float, end: float) -> tuple[Stage, ...]:
    """Return the stages with a `middleware` one wherever there is time between them."""
    filled: list[Stage] = []
    reached = start
    for stage in stages:
        if stage.start - reached >= LEAST_GAP:
            filled.append(Stage(MIDDLEWARE, reached, stage.start))
        filled.append(stage)
        reached = max(reached, stage.end)
    if end - reached >= LEAST_GAP:
        filled.append(Stage(MIDDLEWARE, reached, end))
    return tuple(filled)
