"""Token buckets by key, which limit what is reported for each object and tenant. Pure.

A bucket holds `burst` tokens and gets `rate` of them a second. Only keys that have taken a token lately are
remembered; a key that is forgotten has a full bucket again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

REMEMBERED = 10_000
"""Keys of one throttle."""


class Throttle:
    """A token bucket for each key."""

    def __init__(self, burst: float, rate: float, remembered: int = REMEMBERED) -> None:
        self._burst = burst
        self._rate = rate
        self._remembered = remembered
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        """Tokens, and when they were counted; the key that was asked for last is at the end."""

    def allows(self, key: Hashable, now: float) -> bool:
        """Return whether the key has a token; none is taken."""
        return self._tokens(key, now) >= 1.0

    def take(self, key: Hashable, now: float) -> None:
        """Take a token of the key, which has one."""
        self._buckets[key] = (self._tokens(key, now) - 1.0, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._remembered:
            self._buckets.popitem(last=False)

    def _tokens(self, key: Hashable, now: float) -> float:
        tokens, counted = self._buckets.get(key, (self._burst, now))
        return min(self._burst, tokens + max(0.0, now - counted) * self._rate)


class Throttles:
    """Several throttles with a key for each: if one of them refuses, no token of the others is used."""

    def __init__(self, *throttles: Throttle) -> None:
        self._throttles = throttles

    def admit(self, now: float, *keys: Hashable) -> bool:
        """Take a token of each key from its throttle; return whether all had one. `now` is in seconds."""
        pairs = tuple(zip(self._throttles, keys, strict=True))
        if not all(throttle.allows(key, now) for throttle, key in pairs):
            return False
        for throttle, key in pairs:
            throttle.take(key, now)
        return True
