"""Remembers answers by the bytes of the query after its id, so that a name asked again costs one look-up.

Another case of letters is another key: folding it costs every look-up a tenth of the whole query, and hardly
a client in a cluster mixes cases; one that does is answered without the cache.

Two generations: what is used moves into the young one, and when that is full the old one is thrown away.
Names that are asked only once can thus push out only what was not asked for a whole generation, and never
grow the cache beyond twice its capacity.
"""

from __future__ import annotations

from typing import NamedTuple

CAPACITY = 4096
"""Answers in one generation: A and AAAA, with and without EDNS, for 1,000 Services. About 0.4 KiB each."""


class CachedAnswer(NamedTuple):
    """An answer without its id."""

    rest: bytes
    nodata: bool


class AnswerCache:
    """Answers by query, at most twice `capacity`."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._young: dict[bytes, CachedAnswer] = {}
        self._old: dict[bytes, CachedAnswer] = {}
        self.get_young = self._young.get
        """The look-up of the young generation alone, for the hot path; try `get` where it has nothing."""

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> CachedAnswer | None:
        """Return the answer and keep it for another generation."""
        found = self._young.get(key)
        if found is None and (found := self._old.pop(key, None)) is not None:
            self.put(key, found)
        return found

    def put(self, key: bytes, answer: CachedAnswer) -> None:
        """Remember an answer."""
        if len(self._young) >= self._capacity:
            self._old, self._young = self._young, {}
            self.get_young = self._young.get
        self._young[key] = answer

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}
        self.get_young = self._young.get
