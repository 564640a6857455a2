"""The cache stays small and keeps what is used."""

from __future__ import annotations

from discovery.dns.cache import AnswerCache, CachedAnswer
from discovery.dns.malformed import MalformedReport, MalformedTally

ANSWER = CachedAnswer(b"rest", nodata=False)


def test_never_more_than_two_generations() -> None:
    cache = AnswerCache(10)
    for number in range(1000):
        cache.put(b"%d" % number, ANSWER)
        assert len(cache) <= 20


def test_what_is_used_outlives_what_is_not() -> None:
    cache = AnswerCache(10)
    cache.put(b"used", ANSWER)
    for number in range(1000):
        cache.put(b"%d" % number, ANSWER)
        assert (cache.get_young(b"used") or cache.get(b"used")) is ANSWER
    assert cache.get(b"0") is None


def test_clear() -> None:
    cache = AnswerCache(2)
    for key in (b"a", b"b", b"c"):
        cache.put(key, ANSWER)
    cache.clear()
    assert len(cache) == 0
    assert cache.get_young(b"c") is None
    assert cache.get(b"a") is None


def test_malformed_packets_are_reported_at_most_every_interval() -> None:
    tally = MalformedTally(10.0)
    assert tally.take(0.0) is None
    tally.add("192.0.2.1")
    assert tally.take(1.0) == MalformedReport(1, "192.0.2.1")
    tally.add("192.0.2.2")
    tally.add("192.0.2.3")
    assert tally.take(10.9) is None
    assert tally.take(11.0) == MalformedReport(2, "192.0.2.3")
    assert tally.take(100.0) is None
