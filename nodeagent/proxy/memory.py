"""What has been worked out once and is not worked out again: bounded memories of bytes.

A memory has two generations. What is found in the older one moves to the younger, so when the older one is
dropped, whatever has been of use since stays. And it takes only what comes a second time, so values that are
each used once, which are many, do not push the others out: of a first time nothing is kept but a hash.
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

PATIENCE: Final = 16
"""After this many new heads in a row on a connection, only a few of its heads are looked up: if each has its
own id, looking up wastes time."""
SELDOM: Final = 31
"""A mask: one of this number plus one is looked up nevertheless."""
_BYTES_PER_HASH: Final = 128
"""Of room: hashes are kept in proportion to it."""


class Costly(Protocol):
    """What a memory can hold."""

    @property
    def cost(self) -> int:
        """Bytes that it takes, with its key, about."""
        ...


K = TypeVar("K", bound="bytes | tuple[bytes, ...]")
V = TypeVar("V", bound=Costly)


class Memory(Generic[K, V]):
    """A map of at most about `room` bytes in each of two generations.

    Look into `young` first, then ask `older`: the first mostly is enough, and need not be a call.
    """

    __slots__ = ("_left", "_most_hashes", "_old", "_once", "_room", "young")

    def __init__(self, room: int) -> None:
        self._room = self._left = room
        self._most_hashes = room // _BYTES_PER_HASH
        self._old: dict[K, V] = {}
        self._once: set[int] = set()
        self.young: dict[K, V] = {}

    def older(self, key: K) -> V | None:
        """Return what the older generation has, or None."""
        value = self._old.get(key)
        if value is not None:
            self._put(key, value)
        return value

    def again(self, key: K) -> bool:
        """Note that `key` has come; return whether it had before, so that it is worth keeping."""
        seen = hash(key)
        if seen in self._once:
            return True
        if len(self._once) >= self._most_hashes:
            self._once.clear()
        self._once.add(seen)
        return False

    def keep(self, key: K, value: V) -> None:
        """Remember something, unless it is so large that it would push out too much."""
        if value.cost <= self._room >> 3:
            self._put(key, value)

    @property
    def held(self) -> int:
        """Bytes that it takes, about, and at most."""
        return self._room - self._left + (self._room if self._old else 0)

    def clear(self) -> None:
        """Forget everything but what has come."""
        if self.young or self._old:
            self.young.clear()
            self._old.clear()
            self._left = self._room

    def _put(self, key: K, value: V) -> None:
        self._left -= value.cost
        if self._left < 0:
            self._old, self.young = self.young, {}
            self._left = self._room - value.cost
        self.young[key] = value
