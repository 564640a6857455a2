"""Answers queries from the zone that is in force: through the cache where possible; counts the answers."""

from __future__ import annotations

from typing import Any

from discovery.dns.answer import Answer, Result, answer
from discovery.dns.cache import AnswerCache, CachedAnswer
from discovery.dns.counters import DnsCounters
from discovery.dns.index import TYPE_A, TYPE_AAAA, TYPE_PTR, TYPE_SRV, ZoneIndex
from discovery.dns.malformed import MalformedTally
from discovery.dns.query import Query

_TYPE_HTTPS = 65
_CACHED_TYPES = frozenset((TYPE_A, TYPE_AAAA, TYPE_SRV, TYPE_PTR, _TYPE_HTTPS))
"""What clients ask for; of other types there are too many."""


class Responder:
    """The zone in force, with its cache (None: each answer is made again) and counters."""

    def __init__(self, index: ZoneIndex, cache: AnswerCache | None) -> None:
        self.counters = DnsCounters()
        self.malformed = MalformedTally()
        self._index = index
        self._cache = cache

    def use(self, index: ZoneIndex) -> None:
        """Answer from another zone from now on."""
        self._index = index
        if self._cache is not None:
            self._cache.clear()

    def respond_udp(self, wire: bytes, source: tuple[Any, ...]) -> bytes | None:
        """Answer a datagram from the socket address `source`; None if it must not be answered."""
        cache = self._cache
        if cache is None:
            return self._respond(wire, source, udp=True).wire
        # All that an answer depends on but the id, which it echoes.
        key = wire[2:]
        cached = cache.get_young(key) or cache.get(key)
        if cached is None:
            return self._respond_and_remember(wire, source, key, cache)
        rest, nodata = cached
        if nodata:
            self.counters.nodata += 1
        else:
            self.counters.noerror += 1
        return wire[:2] + rest

    def respond_tcp(self, wire: bytes, source: tuple[Any, ...]) -> bytes | None:
        """Answer a message from the socket address `source`; None if it must not be answered."""
        return self._respond(wire, source, udp=False).wire

    def _respond(self, wire: bytes, source: tuple[Any, ...], *, udp: bool) -> Answer:
        given = answer(self._index, wire, udp=udp)
        setattr(self.counters, given.result, getattr(self.counters, given.result) + 1)
        if given.result in ("formerr", "dropped"):
            self.malformed.add(source[0])
        return given

    def _respond_and_remember(
        self, wire: bytes, source: tuple[Any, ...], key: bytes, cache: AnswerCache
    ) -> bytes | None:
        given = self._respond(wire, source, udp=True)
        query = given.query
        if given.wire is not None and query is not None and _worth_remembering(query, given.result):
            cache.put(key, CachedAnswer(given.wire[2:], given.result == "nodata"))
        return given.wire


def _worth_remembering(query: Query, result: Result) -> bool:
    """Say whether it is likely to be asked again and small.

    Names that do not exist are not remembered: there is no end of them, and answering them is cheap.
    """
    return query.plain and query.qtype in _CACHED_TYPES and result in ("noerror", "nodata")
