"""The same endpoint for the same key, as long as it is there: a ring, on request with bounded loads.

Every endpoint has `POINTS` places on a ring of 64-bit numbers, made of its address alone, so that all workers
and nodes have the same ring. A key belongs to the first place at or after its own hash, and if the endpoint
there may not be used now, to the next one that may.

Why not Maglev (Eisenbud et al., 2016): its table has to be built anew for every change of what may be used,
which takes Python tens of milliseconds in which nothing else is served. On a ring an endpoint that is
unhealthy for a second is walked past: only its own keys move, each to the endpoint that is next on the ring
*for this key*, and they come back exactly. A bound of the load (Mirrokni et al., 2016) is one more reason to
walk on.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from bisect import bisect_left
from collections.abc import Collection
from typing import Final

from nodeagent.proxy.balance.contract import Outstanding, T, Unwatching
from nodeagent.proxy.balance.round_robin import RoundRobin

POINTS: Final = 128
"""Places of each endpoint. The shares of the keys then differ from even by a tenth or so."""
_PLACES: Final = struct.Struct(f"<{POINTS}Q")
_KEY: Final = struct.Struct("<Q")
_SLOT: Final = 0xFFFF
"""The bits of a place that say whose it is; the others are its hash."""
_HASH: Final = 0xFFFF_FFFF_FFFF_0000
MOST: Final = _SLOT + 1
"""Endpoints of a ring; there are no keys for further ones."""


class ConsistentHash(Unwatching[T]):
    """Gives each key an endpoint; requests without a key go to all in turn.

    `factor` bounds what one endpoint has under way to this many per cent of the mean; 0: there is no bound.
    """

    __slots__ = (
        "_all",
        "_factor",
        "_free",
        "_outstanding",
        "_ring",
        "_seen",
        "_slots",
        "_turns",
        "_usable",
        "_whose",
    )

    def __init__(self, first: int = 0, factor: int = 0) -> None:
        self._factor = factor
        self._turns: RoundRobin[T] = RoundRobin(first)
        self._outstanding = Outstanding()
        self._ring = array("Q")
        """The places in order: the hash, and below it the number of the endpoint."""
        self._whose: dict[int, T] = {}
        self._slots: dict[T, int] = {}
        self._free: list[int] = []
        self._all: tuple[T, ...] = ()
        self._seen: tuple[T, ...] = ()
        self._usable: Collection[T] = ()

    @property
    def watches(self) -> bool:
        """Only if it has a bound to keep."""
        return self._factor > 0

    def keep(self, endpoints: tuple[T, ...]) -> None:
        """Take others out of the ring, and new ones into it."""
        self._all = endpoints
        wanted = dict.fromkeys(endpoints[:MOST])
        gone = [one for one in self._slots if one not in wanted]
        if gone:
            freed = {self._slots.pop(one) for one in gone}
            self._ring = array("Q", [place for place in self._ring if place & _SLOT not in freed])
            self._free += freed
            for slot in freed:
                del self._whose[slot]
        added: list[int] = []
        for one in wanted:
            if one not in self._slots:
                slot = self._free.pop() if self._free else len(self._slots)
                self._slots[one], self._whose[slot] = slot, one
                added += [place & _HASH | slot for place in _places(str(one))]
        if added:
            self._ring = array("Q", sorted([*self._ring, *added]))

    def pick(
        self, endpoints: tuple[T, ...], avoid: Collection[T], key: bytes = b"", now: float = 0.0
    ) -> T | None:
        """Return the endpoint of this key that is not in `avoid`, of those that are given."""
        ring = self._ring
        if not key or not ring or not endpoints:
            return self._turns.pick(endpoints, avoid)
        at = bisect_left(ring, _KEY.unpack(hashlib.blake2b(key, digest_size=8).digest())[0] & _HASH)
        if not avoid and not self._factor and endpoints is self._all:
            return self._whose[ring[at if at < len(ring) else 0] & _SLOT]
        if endpoints is not self._seen:
            self._seen, self._usable = endpoints, frozenset(endpoints)
        return self._walk(at, avoid) or self._turns.pick(endpoints, avoid)

    def begun(self, endpoint: T, now: float) -> None:
        """One more is under way."""
        self._outstanding.begun(endpoint)

    def ended(self, endpoint: T, waited: float, now: float) -> None:
        """One less is."""
        self._outstanding.ended(endpoint)

    def _walk(self, at: int, avoid: Collection[T]) -> T | None:
        """Return the first from this place on that may be used, if possible one that is below the bound."""
        ring, whose, usable, outstanding = self._ring, self._whose, self._usable, self._outstanding
        most = -(-self._factor * (outstanding.total + 1) // (100 * len(usable)))
        first: T | None = None
        passed: set[T] = set()
        count = len(ring)
        for offset in range(count):
            one = whose[ring[(at + offset) % count] & _SLOT]
            if one in passed:
                continue
            passed.add(one)
            if one in usable and one not in avoid:
                if not most or outstanding[one] < most:
                    return one
                first = first or one
                if len(passed) == len(whose):
                    break
        return first


def _places(name: str) -> tuple[int, ...]:
    """Return the places of an endpoint of this name: the same in every process."""
    return _PLACES.unpack(hashlib.shake_128(name.encode()).digest(_PLACES.size))
