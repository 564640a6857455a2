"""Any of them, whatever came before."""

from __future__ import annotations

import random
from collections.abc import Collection

from nodeagent.proxy.balance.contract import Fraction, T, Unwatching


class Random(Unwatching[T]):
    """Draws lots. Many agents that begin at the same moment do not follow each other, as turns would."""

    __slots__ = ("_fraction",)

    def __init__(self, fraction: Fraction = random.random) -> None:
        self._fraction = fraction

    def pick(
        self, endpoints: tuple[T, ...], avoid: Collection[T], key: bytes = b"", now: float = 0.0
    ) -> T | None:
        """Return an endpoint that is not in `avoid`; None if there is none."""
        if avoid:
            endpoints = tuple(one for one in endpoints if one not in avoid)
        return endpoints[int(self._fraction() * len(endpoints))] if endpoints else None
