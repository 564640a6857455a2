"""What becomes of a lot of spans that is sent to a collector, and when the next one is sent. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, Protocol

import msgspec

from nodeagent.agent.collector_fields import Fields

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds between two lots while the collector does not take them, unless it asks for more."""
MOST_ASKED: Final = 300.0
"""Seconds; a collector that asks for a longer pause is asked again after these."""
LONGEST_WORDS: Final = 300
"""Characters of what a collector says that are shown."""


class Verdict(msgspec.Struct, frozen=True):
    """What a collector did with a lot."""

    fate: Literal["taken", "later", "refused"]
    """`later`: the same is to be sent again. `refused`: it is not."""
    words: str = ""
    """Why it did not take it, or not all of it; of a lot that it has taken, also a warning."""
    rejected: int = 0
    """Spans that it did not take of a lot that it has taken. They must not be sent again."""
    pause: float = 0.0
    """Seconds that it asks us to wait; 0: it says nothing."""


class Sender(Protocol):
    """Sends lots to a collector, one at a time."""

    async def send(self, body: bytes, fields: Fields = ()) -> Verdict:
        """Send one, with these header fields. Who waits no longer cancels it.

        Raises:
            OSError: the collector cannot be reached, or the connection broke.
        """
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


class Pauses:
    """How long to wait: twice as long each time, or as long as the collector asks.

    `jitter` makes a number from 0 to 1, so that the agents of all nodes do not come back at the same time.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._pause = FIRST_PAUSE

    def taken(self) -> None:
        """Begin anew: the collector takes what it is sent."""
        self._pause = FIRST_PAUSE

    def next(self, asked: float) -> float:
        """Return the seconds to wait after a failure; at least those that the collector has asked for."""
        pause = self._pause * (0.5 + self._jitter() / 2)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        return max(pause, min(asked, MOST_ASKED))


def shown(text: str) -> str:
    """Return what a collector says, cut off."""
    return text if len(text) <= LONGEST_WORDS else text[:LONGEST_WORDS] + "..."
