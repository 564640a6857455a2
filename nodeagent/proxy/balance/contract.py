"""What a balancer is: pure, it neither waits nor connects, and its answers depend on its arguments alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, TypeVar

T = TypeVar("T")
"""The endpoints, of whatever type."""


class Balancer(Protocol):
    """Chooses among endpoints. What it remembers must bear that they come and go between two calls."""

    def pick(self, endpoints: tuple[T, ...], avoid: Collection[T], key: bytes) -> T | None:
        """Return the next endpoint that is not in `avoid`; None if there is none.

        `avoid` are those that the request has tried: a retry must not move the turn of first tries, or the
        next request begins where this one ended. Equal `key`s mean: rather the same endpoint.
        """
        ...
