"""Memories: what is of use stays, what comes once leaves nothing, and all of it is bounded."""

from __future__ import annotations

from random import Random

import hpack
import pytest

from nodeagent.proxy.http2.headers import HeaderDecoder, HeaderEncoder, Shared
from nodeagent.proxy.memory import Memory
from nodeagent.proxy.message import ResponseHead
from nodeagent.settings import Limits
from tests.http2.blocks import GET, SOURCE, encode, plain


class Thing:
    def __init__(self, cost: int) -> None:
        self.cost = cost


def test_the_second_time_is_told() -> None:
    memory: Memory[bytes, Thing] = Memory(1000)
    assert not memory.again(b"a")
    assert memory.again(b"a")
    assert not memory.again(b"b")


def test_first_times_are_bounded() -> None:
    memory: Memory[bytes, Thing] = Memory(128 * 10)
    for number in range(1000):
        memory.again(b"%d" % number)
    assert len(memory._once) <= 10


def test_what_is_asked_for_outlives_what_is_not() -> None:
    memory: Memory[bytes, Thing] = Memory(1000)
    hot = Thing(100)
    memory.keep(b"hot", hot)
    for number in range(100):
        memory.keep(b"%d" % number, Thing(100))
        assert (memory.young.get(b"hot") or memory.older(b"hot")) is hot
        assert sum(thing.cost for thing in memory.young.values()) <= 1000
        assert memory.held <= 2000
    assert memory.young.get(b"5") is None
    assert memory.older(b"5") is None


def test_what_is_too_large_is_not_kept() -> None:
    memory: Memory[bytes, Thing] = Memory(1000)
    memory.keep(b"a", Thing(126))
    memory.keep(b"b", Thing(125))
    assert list(memory.young) == [b"b"]


def test_cleared_it_knows_nothing() -> None:
    memory: Memory[bytes, Thing] = Memory(1000)
    for number in range(20):
        memory.keep(b"%d" % number, Thing(100))
    memory.clear()
    assert memory.held == 0
    assert all(memory.older(b"%d" % number) is None for number in range(20))


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_connection_of_ever_new_heads_keeps_little(repeats: int) -> None:
    """However many: 200 heads of 1 KiB, each once or some times, by each of its memories."""
    random, shared = Random(1), Shared()
    headers, encoder, sender = HeaderDecoder(Limits(), 4096, shared), HeaderEncoder(), hpack.Encoder()
    for _ in range(200):
        fields = [*GET, *((b"x-%d" % n, random.randbytes(40).hex().encode()) for n in range(8))]
        for _ in range(repeats):
            head = headers.request(encode(fields, sender), True)
            encoder.request(head, SOURCE)
            encoder.response(ResponseHead(200, b"1", b"200 OK", head.fields, 0))
            headers.request(plain(fields), True)
    assert headers.held + encoder.held < 128 * 1024
    assert shared.blocks.held + shared.pathless.held + shared.fields.held <= 6 * 256 * 1024


def test_an_idle_connection_keeps_next_to_nothing() -> None:
    headers, encoder = HeaderDecoder(Limits(), 4096, Shared()), HeaderEncoder()
    assert headers.held + encoder.held == 0
    for _ in range(3):
        encoder.request(headers.request(encode(GET), True), SOURCE)
    assert headers.held + encoder.held < 4096
