"""Everybody in turn."""

from __future__ import annotations

from collections.abc import Collection

from nodeagent.proxy.balance.contract import T, Unwatching


class RoundRobin(Unwatching[T]):
    """Takes endpoints in turn; retries have a turn of their own.

    With one turn for both, and one of two endpoints failing, each retry would take the good one's turn and
    every request would begin at the bad one.
    """

    __slots__ = ("_next", "_next_retry")

    def __init__(self, first: int = 0) -> None:
        self._next = first
        self._next_retry = first

    def pick(
        self, endpoints: tuple[T, ...], avoid: Collection[T], key: bytes = b"", now: float = 0.0
    ) -> T | None:
        """Return the next endpoint that is not in `avoid`; None if there is none."""
        count = len(endpoints)
        if not avoid:
            if not count:
                return None
            self._next = turn = self._next + 1
            return endpoints[(turn - 1) % count]
        self._next_retry = turn = self._next_retry + 1
        for offset in range(count):
            endpoint = endpoints[(turn + offset) % count]
            if endpoint not in avoid:
                return endpoint
        return None
