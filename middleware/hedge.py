"""`svc.mesh/hedge: 95%`: a second try, at another endpoint, when the first is slower than 95 % usually are.

The policy knows how long endpoints took to answer in the last ten seconds and says after which time a second
try may help. Times are counted in classes that are a fifth wide (four for each doubling), so that memory is
constant and a request costs an addition. What is said is the upper bound of a class, so never less than the
quantile. A response of the second try counts with the whole time since the first was sent, of which the first
would have taken more: so hedging does not lower the quantile that it goes by.

"The Tail at Scale" (Dean and Barroso, 2013) is where the idea is from. The tries share the budget of retries,
so a Service that gets slow as a whole is not sent twice as much.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log2
from typing import Final

from middleware.contract import Handler, Request, Response
from middleware.values import WHOLE
from middleware.window import RollingWindow

SHORTEST: Final = 0.001
"""Seconds; nothing is hedged sooner, and shorter times are one class."""
CLASSES_PER_DOUBLING: Final = 4
CLASSES: Final = 80
"""Up to about 17 minutes."""
FEWEST: Final = 20
"""Responses of the last ten seconds, below which nobody knows what is usual."""
WINDOW: Final = 10


class UsualTime:
    """Says after which time a response is later than `share` (in hundredths of a per cent) of all are."""

    def __init__(self, share: int) -> None:
        self._share = share
        self._window = RollingWindow(lambda: [0] * CLASSES, count=WINDOW, width=1.0)
        self._known_until = float("-inf")
        self._known: float | None = None

    def answered(self, now: float, took: float) -> None:
        """Count a response that took so many seconds."""
        self._window.current(now)[class_of(took)] += 1

    def wait(self, now: float) -> float | None:
        """Return after which time another try may begin, in seconds; None: too little is known.

        It is found out once a second.
        """
        if now >= self._known_until:
            self._known_until = now + 1.0
            self._known = self._find(now)
        return self._known

    def _find(self, now: float) -> float | None:
        counts = [sum(one) for one in zip(*self._window.buckets(now), strict=True)]
        total = sum(counts)
        if total < FEWEST:
            return None
        rank, seen = ceil(total * self._share / WHOLE), 0
        for number, count in enumerate(counts):
            seen += count
            if seen >= rank:
                return upper_bound(number)
        return None


def class_of(seconds: float) -> int:
    """Return the class of a time."""
    if seconds <= SHORTEST:
        return 0
    return min(ceil(log2(seconds / SHORTEST) * CLASSES_PER_DOUBLING), CLASSES - 1)


def upper_bound(number: int) -> float:
    """Return the longest time of a class, but for the last one, which has no bound."""
    return float(SHORTEST * 2 ** (number / CLASSES_PER_DOUBLING))


def hedged(
    handler: Handler,
    usual: UsualTime,
    methods: frozenset[str],
    now: Callable[[], float],
    permit: Callable[[], bool],
) -> Handler:
    """Return the handler with a second try for slow requests with these methods; `permit` allows each."""

    async def hedge(request: Request) -> Response:
        if request.method not in methods or request.completed is None or not request.replayable:
            return await handler(request)
        sent = now()
        seconds = usual.wait(sent)
        if seconds is None:
            response = await handler(request)
        else:
            race = request.race(seconds, permit)
            try:
                response = await handler(request)
            finally:
                race.cancel()
        answered = now()
        usual.answered(answered, answered - sent)
        return response

    return hedge
