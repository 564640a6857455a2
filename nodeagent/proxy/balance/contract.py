"""What a balancer is: pure, it neither waits nor connects, and its answers depend on its arguments alone
(and on the random numbers that it is given).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
"""The endpoints, of whatever type that is hashable; `str()` of one is its address."""

Fraction = Callable[[], float]
"""Returns random numbers from 0 up to, not including, 1."""


class Balancer(Protocol[T]):
    """Chooses among endpoints. What it remembers must bear that they come and go between two calls.

    Times are those of the monotonic clock, in seconds.
    """

    @property
    def watches(self) -> bool:
        """Whether it is to be told of tries: `begun`, `answered`, `failed` and `ended`."""
        ...

    def pick(
        self, endpoints: tuple[T, ...], avoid: Collection[T], key: bytes = b"", now: float = 0.0
    ) -> T | None:
        """Return the next endpoint that is not in `avoid`; None if there is none.

        `avoid` are those that the request has tried: a retry must not move the turn of first tries, or the
        next request begins where this one ended. Equal `key`s mean: rather the same endpoint.
        """
        ...

    def keep(self, endpoints: tuple[T, ...]) -> None:
        """Take note of all endpoints that there are from now on, whether they are well or not."""
        ...

    def circulate(self, healthy: tuple[T, ...]) -> None:
        """Take note of all endpoints that are healthy from now on, and not ejected, as far as is known."""
        ...

    def begun(self, endpoint: T, now: float) -> None:
        """A try begins: a request is sent, or a connection is made for it."""
        ...

    def answered(self, endpoint: T, took: float, now: float) -> None:
        """The endpoint has answered, this long after the try began; the rest of its answer may still come."""
        ...

    def failed(self, endpoint: T, took: float, now: float) -> None:
        """The endpoint has failed: it has answered with an error of its own, or not at all."""
        ...

    def ended(self, endpoint: T, waited: float, now: float) -> None:
        """The try is over. `waited`: how long it took if nothing at all was heard of the endpoint, else 0."""
        ...


class Unwatching(Generic[T]):
    """What a balancer that wants to know nothing of tries says to all of it."""

    __slots__ = ()

    @property
    def watches(self) -> bool:
        """No: nothing is told to it."""
        return False

    def keep(self, endpoints: tuple[T, ...]) -> None:
        """It remembers no endpoint."""

    def circulate(self, healthy: tuple[T, ...]) -> None:
        """It is the same to it."""

    def begun(self, endpoint: T, now: float) -> None:
        """It counts no tries."""

    def answered(self, endpoint: T, took: float, now: float) -> None:
        """It knows no latency."""

    def failed(self, endpoint: T, took: float, now: float) -> None:
        """It knows no failures."""

    def ended(self, endpoint: T, waited: float, now: float) -> None:
        """It counts no tries."""


class Outstanding:
    """Counts the tries that are under way at each endpoint."""

    __slots__ = ("_tries", "total")

    def __init__(self) -> None:
        self._tries: dict[object, int] = {}
        self.total = 0

    def __getitem__(self, endpoint: object) -> int:
        return self._tries.get(endpoint, 0)

    def begun(self, endpoint: object) -> None:
        """One more."""
        self._tries[endpoint] = self._tries.get(endpoint, 0) + 1
        self.total += 1

    def ended(self, endpoint: object) -> None:
        """One less; an endpoint without any is not remembered, so that none has to be forgotten."""
        left = self._tries.get(endpoint, 0) - 1
        if left > 0:
            self._tries[endpoint] = left
        elif left == 0:
            del self._tries[endpoint]
        else:
            return
        self.total -= 1


def two_of(
    endpoints: tuple[T, ...], avoid: Collection[T], fraction: Fraction = random.random
) -> tuple[T, T] | None:
    """Return two endpoints at random that are not in `avoid`; if there is only one, that one twice."""
    others = endpoints if not avoid else tuple(one for one in endpoints if one not in avoid)
    count = len(others)
    if count < 2:
        return (others[0], others[0]) if others else None
    first, second = divmod(int(fraction() * (count * (count - 1))), count - 1)
    return others[first], others[second if second < first else second + 1]
