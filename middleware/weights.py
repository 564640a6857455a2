"""Choosing by weight: exact over each cycle, and as even as can be in it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd


class SmoothWeights:
    """Smooth weighted round robin as in nginx (`ngx_http_upstream_round_robin.c`); returns indices.

    Each turn everybody gains its weight and the richest is chosen and pays the sum of all: over a cycle (the
    sum by the greatest common divisor) each is chosen exactly as often as its weight says, never in a row for
    longer than need be.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = [(index, weight) for index, weight in enumerate(weights) if weight]
        self._sum = sum(weights)
        self._wealth = [0] * len(weights)
        self.cycle = self._sum // gcd(*weights)
        """Turns until the cycle begins again."""

    def pick(self) -> int:
        """Take a turn."""
        wealth = self._wealth
        richest, most = -1, 0
        for index, weight in self._weights:
            has = wealth[index] = wealth[index] + weight
            if has > most:
                richest, most = index, has
        wealth[richest] -= self._sum
        return richest
