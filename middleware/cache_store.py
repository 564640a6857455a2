"""Where a cache keeps its responses: bounded in bytes, the one that was used longest ago makes room.

A resource's responses are told apart by the request's fields that its latest response varies by (RFC 9111
section 4.1). Responses that vary by other fields than the latest one are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from middleware.cache_purge import PurgeTimes
from middleware.cache_rules import Stored, selecting
from middleware.contract import Context, Headers, NodeWindow

MOST_VARIANTS: Final = 64
"""Responses of one resource; a client that sends ever new values must not push out everything else."""
MOST_REMEMBERED: Final = 4096
"""Resources that are remembered as not storable."""
REMEMBERED: Final = 30.0
"""Seconds."""


Key = tuple[str, str, str]
"""What a response is an answer to: host, target, and the Service that was asked in place of the own one."""


class _Resource(msgspec.Struct):
    """The responses of one resource that are kept, by the values of the fields they vary by."""

    vary: tuple[str, ...]
    values: OrderedDict[tuple[str, ...], None]


class Found(NamedTuple):
    """What is kept for a request."""

    stored: Stored | None
    known: bool
    """Whether there are other responses of the same resource."""
    values: tuple[str, ...]
    """What tells its responses apart, of this request; empty if that is not known."""


class Store:
    """The responses of one port in one worker. `size` is the most bytes, `held` how many there are."""

    __slots__ = ("_entries", "_evicted", "_passes", "_purges", "_reserved", "_resources", "_size", "held")

    def __init__(self, size: int, evicted: Callable[[int], None] = lambda _count: None) -> None:
        self._size = size
        self._evicted = evicted
        self._entries: OrderedDict[tuple[Key, tuple[str, ...]], Stored] = OrderedDict()
        self._resources: dict[Key, _Resource] = {}
        self._passes: OrderedDict[Key, float] = OrderedDict()
        self._purges = PurgeTimes()
        self._reserved = 0
        self.held = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, headers: Headers) -> Stored | None:
        """Return the response that is kept for a request with these fields."""
        resource = self._resources.get(key)
        if resource is None:
            return None
        at = (key, selecting(headers, resource.vary) if resource.vary else ())
        stored = self._entries.get(at)
        if stored is not None:
            self._entries.move_to_end(at)
        return stored

    def find(self, key: Key, headers: Headers) -> Found:
        """Return what is kept for a request with these fields."""
        resource = self._resources.get(key)
        if resource is None:
            return Found(None, False, ())
        values = selecting(headers, resource.vary)
        return Found(self._entries.get((key, values)), True, values)

    def put(self, key: Key, headers: Headers, stored: Stored) -> bool:
        """Keep a response to a request with these fields; return False if it is too large for that, or was
        asked for before a purge.
        """
        if self._purges.covers(key[1], stored.requested):
            return False
        size = self._cost(key, stored)
        if size > self._size:
            self.drop(key, headers)
            return False
        resource = self._resources.get(key)
        if resource is None or resource.vary != stored.vary:
            self.forget(key)
            resource = self._resources[key] = _Resource(stored.vary, OrderedDict())
        values = selecting(headers, stored.vary)
        self._remove(key, values)
        if len(resource.values) >= MOST_VARIANTS:
            self._remove(key, next(iter(resource.values)))
            self._evicted(1)
        self._resources[key] = resource  # `_remove` forgets one without responses
        resource.values[values] = None
        self._entries[key, values] = stored
        self.held += size
        self._passes.pop(key, None)
        self._make_room()
        return True

    def drop(self, key: Key, headers: Headers) -> None:
        """Forget the response to a request with these fields."""
        resource = self._resources.get(key)
        if resource is not None:
            self._remove(key, selecting(headers, resource.vary))

    def forget(self, key: Key) -> None:
        """Forget all responses of a resource."""
        resource = self._resources.get(key)
        for values in tuple(resource.values) if resource is not None else ():
            self._remove(key, values)

    def purge(self, path: str, now: float) -> int:
        """Forget all responses whose targets begin like this, and keep none that was asked for by now; return
        how many were forgotten.
        """
        self._purges.add(path, now)
        for key in [key for key in self._passes if key[1].startswith(path)]:
            del self._passes[key]
        before = len(self._entries)
        for key in [key for key in self._resources if key[1].startswith(path)]:
            self.forget(key)
        return before - len(self._entries)

    def purged(self, key: Key, stored: Stored) -> bool:
        """Return whether a response that was kept is not any more because of a purge."""
        resource = self._resources.get(key)
        if resource is not None and any(self._entries[key, one] is stored for one in resource.values):
            return False
        return self._purges.covers(key[1], stored.requested)

    def reserve(self, amount: int) -> bool:
        """Count bytes of a response that is still coming; return False if all such together get too large."""
        if self._reserved + amount > self._size:
            return False
        self._reserved += amount
        return True

    def release(self, amount: int) -> None:
        """Take back what `reserve` has counted."""
        self._reserved -= amount

    def remember(self, key: Key, now: float) -> None:
        """Note that the responses of a resource cannot be kept, so that nobody waits for one."""
        self._passes[key] = now + REMEMBERED
        self._passes.move_to_end(key)
        if len(self._passes) > MOST_REMEMBERED:
            self._passes.popitem(last=False)

    def passes(self, key: Key, now: float) -> bool:
        """Return whether that was noted a short while ago."""
        until = self._passes.get(key)
        if until is None:
            return False
        if now < until:
            return True
        del self._passes[key]
        return False

    def _make_room(self) -> None:
        while self.held > self._size:
            (key, values), _ = next(iter(self._entries.items()))
            self._remove(key, values)
            self._evicted(1)

    def _remove(self, key: Key, values: tuple[str, ...]) -> None:
        stored = self._entries.pop((key, values), None)
        if stored is None:
            return
        self.held -= self._cost(key, stored)
        resource = self._resources[key]
        del resource.values[values]
        if not resource.values:
            del self._resources[key]

    @staticmethod
    def _cost(key: Key, stored: Stored) -> int:
        return stored.size + len(key[0]) + len(key[1])


class Invalidations:
    """What has been invalidated on this node, by whichever worker (RFC 9111 section 4.4).

    When something is invalidated, its time goes into the table that the node's workers share, and the moment
    that they share becomes another. A stored response remembers the moment at which it was compared with the
    table, so that a look-up costs the comparison of two numbers. The table forgets what was written longest
    ago, so an invalidation is lost after as many others as it has places.
    """

    __slots__ = ("_prefix", "_shared", "_time", "_window")

    def __init__(self, context: Context) -> None:
        self._shared = context.shared
        self._window: NodeWindow = context.window("cache", 1)
        self._prefix = f"{context.service}|{context.port}|"
        self._time = 0

    def moment(self) -> int:
        """Return the moment of the latest invalidation."""
        return self._window.moment()

    def invalidate(self, host: str, target: str, now: float) -> None:
        """Make all that is stored of this resource invalid that was asked for before."""
        time = int(now * 1e9)
        self._shared.update(self._key(host, target), lambda before: max(before, time))
        while True:
            seen = self._window.moment()
            # A moment that is equal to the one before would not be noticed.
            if self._window.begin(max(now, seen / 1e9 + 1e-6), seen):
                return
            # Another worker has begun one, maybe before the table was written.

    def valid(self, key: Key, stored: Stored, moment: int) -> bool:
        """Return whether a response is valid though there was another invalidation since it was compared."""
        self._time = 0
        self._shared.update(self._key(key[0], key[1]), self._read)
        if self._time >= int(stored.requested * 1e9):
            return False
        stored.moment = moment
        return True

    def _key(self, host: str, target: str) -> bytes:
        text = f"{self._prefix}{host}|{target}"
        return b"cache|" + blake2b(text.encode("latin-1", "replace"), digest_size=16).digest()

    def _read(self, time: int) -> None:
        self._time = time
