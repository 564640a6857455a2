"""Of two, the one that answers sooner, as far as one can tell: peak EWMA, as in Finagle and Linkerd.

Each endpoint has a moving average of its latency, in which an answer weighs the less the older it is. An
answer that took longer than the average *becomes* the average, so that an endpoint that gets slow is noticed
at its first slow answer, and is forgiven slowly. The cost of an endpoint is this average times the tries that
it would then have under way.

The average falls towards zero while nothing is heard of an endpoint. So one that was slow is asked again,
with one request at a time: that is how the balancer learns that it is fast again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from typing import Final

from nodeagent.proxy.balance.contract import Fraction, T, Unwatching, two_of

DECAY: Final = 10.0
"""Seconds after which what was heard weighs 1/e of what it did."""
UNHEARD: Final = 1.0
"""The latency of an endpoint that has never answered, in seconds, while it has a first try: until its answer
comes it gets no further one unless the others are that slow."""
FAILED: Final = 0.1
"""A failure counts as an answer that took at least this long, in seconds, and at least the average: else one
that fails at once would seem to be the fastest. No more than that: an endpoint that rightly answers 500 now
and then must not be cut off."""


class _Known:
    """What is known of one endpoint: `average` as of `heard`, and the tries under way."""

    __slots__ = ("average", "heard", "under_way")

    def __init__(self) -> None:
        self.average = 0.0
        self.heard = -math.inf
        self.under_way = 0


class Ewma(Unwatching[T]):
    """Draws two endpoints and takes the one with the lower cost; see the module."""

    __slots__ = ("_decay", "_fraction", "_known")

    @property
    def watches(self) -> bool:
        """Yes."""
        return True

    def __init__(self, decay: float = DECAY, fraction: Fraction = random.random) -> None:
        self._decay = decay
        self._fraction = fraction
        self._known: dict[object, _Known] = {}

    def pick(
        self, endpoints: tuple[T, ...], avoid: Collection[T], key: bytes = b"", now: float = 0.0
    ) -> T | None:
        """Return the one of two with the lower cost that is not in `avoid`; None if there is none."""
        drawn = two_of(endpoints, avoid, self._fraction)
        if drawn is None:
            return None
        first, second = drawn
        return first if self.cost(first, now) <= self.cost(second, now) else second

    def cost(self, endpoint: object, now: float) -> float:
        """Return what one more try at an endpoint would cost, in seconds."""
        known = self._known.get(endpoint)
        if known is None:
            return 0.0
        under_way = known.under_way
        if known.heard == -math.inf:
            return UNHEARD * under_way
        return known.average * math.exp((known.heard - now) / self._decay) * (under_way + 1)

    def keep(self, endpoints: tuple[T, ...]) -> None:
        """Forget all others."""
        stay = set(endpoints)
        self._known = {one: known for one, known in self._known.items() if one in stay}

    def begun(self, endpoint: T, now: float) -> None:
        """One more is under way."""
        known = self._known.get(endpoint)
        if known is None:
            known = self._known[endpoint] = _Known()
        known.under_way += 1

    def answered(self, endpoint: T, took: float, now: float) -> None:
        """Take its latency into the average."""
        known = self._known.get(endpoint)
        if known is not None:
            self._hear(known, took, now)

    def failed(self, endpoint: T, took: float, now: float) -> None:
        """Count it as a slow answer."""
        known = self._known.get(endpoint)
        if known is not None:
            self._hear(known, max(took, FAILED, self._average(known, now)), now)

    def ended(self, endpoint: T, waited: float, now: float) -> None:
        """One less is under way; one that was waited for in vain would have taken longer still."""
        known = self._known.get(endpoint)
        if known is None:
            return
        known.under_way = max(known.under_way - 1, 0)
        if waited > self._average(known, now):
            self._hear(known, waited, now)

    def _average(self, known: _Known, now: float) -> float:
        return known.average * math.exp((known.heard - now) / self._decay)

    def _hear(self, known: _Known, took: float, now: float) -> None:
        weight = math.exp(min(known.heard - now, 0.0) / self._decay)
        average = known.average * weight + took * (1.0 - weight)
        known.average = max(average, took)
        known.heard = now
