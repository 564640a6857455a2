"""Of two, the one with fewer requests under way."""

from __future__ import annotations

import random
from collections.abc import Collection

from nodeagent.proxy.balance.contract import Fraction, Outstanding, T, Unwatching, two_of


class LeastRequest(Unwatching[T]):
    """Draws two endpoints and takes the one with fewer tries under way (Mitzenmacher, 2001).

    Looking for the least of all would send what all workers and nodes have at the same moment to the same
    endpoint, and costs more the more endpoints there are.
    """

    __slots__ = ("_fraction", "_outstanding")

    @property
    def watches(self) -> bool:
        """Yes."""
        return True

    def __init__(self, fraction: Fraction = random.random) -> None:
        self._fraction = fraction
        self._outstanding = Outstanding()

    def pick(
        self, endpoints: tuple[T, ...], avoid: Collection[T], key: bytes = b"", now: float = 0.0
    ) -> T | None:
        """Return the less loaded of two that are not in `avoid`; None if there is none."""
        drawn = two_of(endpoints, avoid, self._fraction)
        if drawn is None:
            return None
        first, second = drawn
        outstanding = self._outstanding
        return first if outstanding[first] <= outstanding[second] else second

    def begun(self, endpoint: T, now: float) -> None:
        """One more is under way."""
        self._outstanding.begun(endpoint)

    def ended(self, endpoint: T, waited: float, now: float) -> None:
        """One less is."""
        self._outstanding.ended(endpoint)
