"""New endpoints get their share little by little, whatever balancer chooses.

One that has just started compiles, connects and fills its caches; with its full share at once its first
requests are slow, and with `least-request` it even gets more than that, since it has none under way yet.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Final, Generic

from nodeagent.proxy.balance.contract import Balancer, Fraction, T

LEAST: Final = 0.1
"""The part of its share that an endpoint gets at once: without any request it would not warm up."""
TRIES: Final = 3
"""Picks for one request; if all of them bring an endpoint that is passed over, the last one gets it."""


class SlowStart(Generic[T]):
    """Passes over, now and then, what `inner` has picked: the more often, the newer it is.

    Those that are there at first are not new: nothing is known of when they came. With `recovered`, those
    that are healthy again count as new.
    """

    __slots__ = ("_fraction", "_fresh", "_healthy", "_inner", "_known", "_new", "_recovered", "_window")

    def __init__(
        self,
        inner: Balancer[T],
        window: float,
        fraction: Fraction = random.random,
        recovered: bool = False,
    ) -> None:
        self._inner = inner
        self._window = window
        self._recovered = recovered
        self._healthy: frozenset[T] | None = None
        """As told last."""
        self._fraction = fraction
        self._known: frozenset[T] | None = None
        self._fresh: frozenset[T] = frozenset()
        """New endpoints that no request could have gone to yet: their time begins with the next one."""
        self._new: dict[T, float] = {}
        """Endpoints that may still be warming up, and since when."""

    @property
    def watches(self) -> bool:
        """What the balancer says that really chooses."""
        return self._inner.watches

    def keep(self, endpoints: tuple[T, ...]) -> None:
        """Take note of those that are new."""
        everybody = frozenset(endpoints)
        if self._known:
            self._fresh = (self._fresh | (everybody - self._known)) & everybody
        self._known = everybody
        self._new = {one: since for one, since in self._new.items() if one in everybody}
        self._inner.keep(endpoints)

    def circulate(self, healthy: tuple[T, ...]) -> None:
        """Take note of those that are healthy again."""
        if self._recovered and self._known:
            now_healthy = frozenset(healthy)
            before = self._healthy if self._healthy is not None else self._known
            self._fresh |= (now_healthy - before) & self._known
            self._healthy = now_healthy
        self._inner.circulate(healthy)

    def pick(
        self, endpoints: tuple[T, ...], avoid: Collection[T], key: bytes = b"", now: float = 0.0
    ) -> T | None:
        """Return what `inner` picks, or what it picks next if the first is new and not its turn yet."""
        if self._fresh:
            self._new |= dict.fromkeys(self._fresh, now)
            self._fresh = frozenset()
        picked = self._inner.pick(endpoints, avoid, key, now)
        if not self._new or picked is None:
            return picked
        passed_over: tuple[T, ...] = ()
        while not self._takes(picked, now) and len(passed_over) < TRIES:
            passed_over = (*passed_over, picked)
            other = self._inner.pick(endpoints, (*avoid, *passed_over), key, now)
            if other is None:
                return passed_over[0]
            picked = other
        return picked

    def _takes(self, endpoint: T, now: float) -> bool:
        since = self._new.get(endpoint)
        if since is None:
            return True
        share = (now - since) / self._window
        if share >= 1.0:
            del self._new[endpoint]
            return True
        return self._fraction() < max(LEAST, share)

    def begun(self, endpoint: T, now: float) -> None:
        """Passed on."""
        self._inner.begun(endpoint, now)

    def answered(self, endpoint: T, took: float, now: float) -> None:
        """Passed on."""
        self._inner.answered(endpoint, took, now)

    def failed(self, endpoint: T, took: float, now: float) -> None:
        """Passed on."""
        self._inner.failed(endpoint, took, now)

    def ended(self, endpoint: T, waited: float, now: float) -> None:
        """Passed on."""
        self._inner.ended(endpoint, waited, now)
