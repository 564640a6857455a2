"""Tokens of a limit that all nodes share, taken in advance from the store that keeps it. Pure.

One round trip takes as many tokens as come in a tenth of a second (at most the burst), so that a request
hardly ever costs one. Tokens that were taken and not used are lost after a second: the limit is never
exceeded, and an idle worker holds back at most a tenth of a second's worth.
"""

from __future__ import annotations

from typing import Final, Literal

PERIOD: Final = 0.1
"""Seconds' worth of tokens that are taken at once."""
KEPT: Final = 1.0
"""Seconds after which tokens that were taken are not used any more."""
LONGEST_PAUSE: Final = 0.05
"""Seconds for which the store is not asked again after it had less than was asked for: at a high rate the
next token would be there at once, and each request would ask for one. Less if the burst would be full before,
so that nothing is lost."""
AWAY: Final = 1.0
"""Seconds for which the store is not asked again after it could not be reached."""

Answer = Literal["pass", "refuse", "ask", "away"]


class Lease:
    """What one worker holds of one limit. `interval` is in seconds."""

    __slots__ = (
        "_away_until",
        "_good_until",
        "_pause",
        "_refused_until",
        "asking",
        "batch",
        "tokens",
        "wait",
    )

    def __init__(self, interval: float, burst: int) -> None:
        self.batch = max(1, min(burst, int(PERIOD / interval)))
        self.tokens = 0
        self.wait = 0.0
        """Seconds until there is a token again, when the store had none."""
        self.asking = False
        """Whether the store is being asked."""
        self._pause = min(LONGEST_PAUSE, interval * burst / 2)
        self._good_until = 0.0
        self._refused_until = 0.0
        self._away_until = 0.0

    def take(self, now: float) -> Answer:
        """Take a token. `ask`: the store has to be asked first; `away`: it cannot be."""
        if self.tokens and now < self._good_until:
            self.tokens -= 1
            return "pass"
        self.tokens = 0
        if now < self._away_until:
            return "away"
        if now < self._refused_until:
            self.wait = self._refused_until - now
            return "refuse"
        return "ask"

    def runs_low(self, now: float) -> bool:
        """Whether to ask for more before they are needed."""
        return (
            self.tokens * 2 <= self.batch
            and not self.asking
            and now >= self._refused_until
            and now >= self._away_until
            and self.batch > 1
        )

    def granted(self, count: int, asked: int, wait: float, now: float) -> None:
        """The store has given so many of the tokens it was asked for, or none and when there will be one."""
        self.asking = False
        if count:
            self.tokens += count
            self._good_until = now + KEPT
        if count < asked:
            self._refused_until = now + max(wait, self._pause)

    def unreachable(self, now: float) -> None:
        """The store could not be asked."""
        self.asking = False
        self._away_until = now + AWAY
