"""Answers queries from the zone that is in force: through the cache where it can, counting what it did."""

from __future__ import annotations

from typing import Any

from discovery.dns.answer import Answer, Result, answer
from discovery.dns.cache import AnswerCache, CachedAnswer
from discovery.dns.counters import DnsCounters
from discovery.dns.index import TYPE_A, TYPE_AAAA, TYPE_PTR, TYPE_SRV, ZoneIndex
from discovery.dns.malformed import MalformedTally
from discovery.dns.query import HEADER_LENGTH, PLAIN_OPT_LENGTH, Query

_MIN_CACHED = HEADER_LENGTH + 5
"""Bytes of the shortest query with a question (of the root)."""
_TYPE_HTTPS = 65
_CACHED_TYPES = frozenset((TYPE_A, TYPE_AAAA, TYPE_SRV, TYPE_PTR, _TYPE_HTTPS))
"""What clients ask for; of other types there are too many."""


class Responder:
    """The zone in force, with its cache (None: each query is answered anew) and counters."""

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
        if cache is None or len(wire) < _MIN_CACHED:
            return self._respond(wire, source, udp=True).wire
        # The key is the query without its id and with its name in lower case. The type is left as it is: 65
        # (HTTPS) is also a capital letter. That these bytes are a name, and the last ones a plain OPT record,
        # was checked for the query that filled the cache, and holds for all that differ from it in case only.
        end = len(wire) - PLAIN_OPT_LENGTH if wire[11] else len(wire)
        key = wire[2:12] + wire[12 : end - 4].lower() + wire[end - 4 :]
        cached = cache.get_young(key) or cache.get(key)
        if cached is None:
            return self._respond_and_remember(wire, source, key, cache)
        head, tail, nodata = cached
        if nodata:
            self.counters.nodata += 1
        else:
            self.counters.noerror += 1
        return wire[:2] + head + wire[12:end] + tail

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
            head, tail = given.wire[2:HEADER_LENGTH], given.wire[query.question_end :]
            cache.put(key, CachedAnswer(head, tail, given.result == "nodata"))
        return given.wire


def _worth_remembering(query: Query, result: Result) -> bool:
    """Names that do not exist are not remembered: there is no end of them, and answering them is cheap."""
    return query.plain and query.qtype in _CACHED_TYPES and result in ("noerror", "nodata")
