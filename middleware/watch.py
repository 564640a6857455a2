"""Who holds the loop: the time that users' layers take from all others of their worker.

A layer that computes or waits without `await` stops every request of its worker. Each stretch that a user's
layer runs without giving the loop back is timed by two readings of the clock. Another user's layer inside of
it has its own time; what the mesh does inside of it takes microseconds, and is not told apart. Where no
user's layer is, nothing is timed.

A stretch that has ended is judged at once, in `enter` and `leave`. One that does not end can only be seen
from another thread: `Watch.held` is for that.
"""

from __future__ import annotations

import time
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, NamedTuple

PAUSE: Final = 10.0
"""Seconds between two reports about one place."""
SECOND: Final = 1_000_000_000


class Place:
    """A user's middleware at one port of one Service. `budget` is in nanoseconds."""

    __slots__ = ("budget", "left_out", "middleware", "port", "service", "silent_until")

    def __init__(self, middleware: str, service: str, port: int, budget: float) -> None:
        self.middleware = middleware
        self.service = service
        self.port = port
        self.budget = int(budget * SECOND)
        self.silent_until = 0
        self.left_out = 0


class Overrun(NamedTuple):
    """A stretch that was longer than it may be. `left_out`: reports about this place that were not made."""

    place: Place
    seconds: float
    left_out: int


class Held(NamedTuple):
    """A stretch that has not ended. `since` tells it from others."""

    place: Place
    since: int
    seconds: float


class Watch:
    """Whose code runs on one loop now. `report` is told of stretches over their budget, but not of all."""

    __slots__ = ("_clock", "_place", "_report", "_since")

    def __init__(
        self, report: Callable[[Overrun], None], clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._report = report
        self._clock = clock
        self._place: Place | None = None
        self._since = 0

    def enter(self, place: Place) -> Place | None:
        """Take note that `place` runs from now on; return who ran before, for `leave`."""
        now = self._clock()
        before = self._place
        if before is not None and now - self._since > before.budget:
            self._overrun(before, now)
        self._place = place
        self._since = now
        return before

    def leave(self, place: Place, before: Place | None) -> None:
        """Take note that `place` runs no more, and `before` runs on; None: nobody who is watched."""
        now = self._clock()
        if now - self._since > place.budget:
            self._overrun(place, now)
        self._place = before
        self._since = now

    def held(self) -> Held | None:
        """Return who runs now, and for how long; may be called in another thread."""
        place, since = self._place, self._since
        return Held(place, since, (self._clock() - since) / SECOND) if place is not None else None

    def _overrun(self, place: Place, now: int) -> None:
        if now < place.silent_until:
            place.left_out += 1
            return
        left_out, place.left_out = place.left_out, 0
        place.silent_until = now + int(PAUSE * SECOND)
        self._report(Overrun(place, (now - self._since) / SECOND, left_out))


def watched(watch: Watch, place: Place, function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Any]:
    """Return the function such that each stretch of what it returns is timed as that of `place`.

    It returns a coroutine that is made of a generator: one frame, and no object beside it.
    """

    @types.coroutine
    def run(argument: Any) -> Generator[Any, Any, Any]:
        before = watch.enter(place)
        try:
            made: Any = function(argument)
            steps = made if type(made) is types.CoroutineType else made.__await__()
            waits_for = steps.send(None)
        except StopIteration as stop:
            return stop.value
        finally:
            watch.leave(place, before)
        while True:
            raised: BaseException | None = None
            outcome = None
            try:
                outcome = yield waits_for
            except GeneratorExit:
                before = watch.enter(place)
                try:
                    steps.close()
                finally:
                    watch.leave(place, before)
                raise
            except BaseException as error:
                raised = error
            before = watch.enter(place)
            try:
                waits_for = steps.send(outcome) if raised is None else steps.throw(raised)
            except StopIteration as stop:
                return stop.value
            finally:
                watch.leave(place, before)

    return run
