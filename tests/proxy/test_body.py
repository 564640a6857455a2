"""Bodies in every framing: how many bytes belong to them, what goes on, when they are done."""

from __future__ import annotations

import pytest

from nodeagent.proxy.body import LAST_CHUNK, Body, Unchunked, chunk
from nodeagent.proxy.chunks import CHUNKS_PER_TURN
from nodeagent.proxy.message import CHUNKED, NO_BODY, UNTIL_CLOSE, HeadError

CHUNKS = b"3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n"
WITH_TRAILERS = CHUNKS[:-2] + b"T: u\r\nV:\r\n\r\n"


def pass_on(body: Body, parts: list[bytes]) -> tuple[int, bytes]:
    """Feed the parts as an exchange does; return (bytes that belong to the body, bytes that go on)."""
    used, forwarded = 0, b""
    for part in parts:
        taken = body.take(part)
        used += taken
        forwarded += body.forwarded(part[:taken])
    return used, forwarded


def cuts(data: bytes) -> list[list[bytes]]:
    return [[data], [bytes([b]) for b in data], *([data[:i], data[i:]] for i in range(1, len(data)))]


def test_no_body_is_done_from_the_start() -> None:
    body = Body(NO_BODY)
    assert body.done
    assert pass_on(body, [b"next"]) == (0, b"")
    assert body.end()


def test_a_length_ends_to_the_byte() -> None:
    for parts in cuts(b"abcdefNEXT"):
        body = Body(6)
        assert pass_on(body, parts) == (6, b"abcdef")
        assert body.done
        assert body.end()


def test_a_length_cut_short_has_no_end() -> None:
    body = Body(6)
    assert pass_on(body, [b"abc", b"", b"de"]) == (5, b"abcde")
    assert not body.done
    assert not body.end()
    assert pass_on(body, [b"f!"]) == (1, b"f")
    assert body.done


def test_chunks_go_on_as_they_came() -> None:
    for parts in cuts(CHUNKS + b"NEXT"):
        body = Body(CHUNKED)
        assert pass_on(body, parts) == (len(CHUNKS), CHUNKS)
        assert body.done
        assert body.end()


def test_trailers_do_not_go_on() -> None:
    for parts in cuts(WITH_TRAILERS + b"NEXT"):
        body = Body(CHUNKED)
        assert pass_on(body, parts) == (len(WITH_TRAILERS), CHUNKS)
        assert body.done


def test_trailers_go_on_where_they_are_wanted() -> None:
    for parts in cuts(WITH_TRAILERS + b"NEXT"):
        body = Body(CHUNKED, trailers=True)
        assert pass_on(body, parts) == (len(WITH_TRAILERS), WITH_TRAILERS)
        assert body.done


def test_chunks_are_taken_off_for_who_does_not_know_them() -> None:
    for parts in cuts(CHUNKS):
        unchunked = Unchunked()
        assert b"".join(map(unchunked.payload, parts)) == b"abcde"


def test_many_chunks_are_followed_in_several_turns() -> None:
    data = b"1\r\nx\r\n" * (3 * CHUNKS_PER_TURN) + b"0\r\n\r\n"
    body, turns, passed = Body(CHUNKED), 0, b""
    while not body.done:
        used = body.take(data)
        assert used
        passed += body.forwarded(data[:used])
        data = data[used:]
        turns += 1
    assert 3 <= turns <= 5
    assert Unchunked().payload(passed) == b"x" * (3 * CHUNKS_PER_TURN)


def test_chunks_cut_short_have_no_end() -> None:
    for end in range(len(CHUNKS)):
        body = Body(CHUNKED)
        pass_on(body, [CHUNKS[:end]])
        assert not body.done
        assert not body.end()


def test_bad_chunks_are_an_error() -> None:
    body = Body(CHUNKED)
    with pytest.raises(HeadError):
        body.take(b"3\r\nabcd\r\n")


def test_a_body_without_length_lasts_until_the_end() -> None:
    body = Body(UNTIL_CLOSE)
    assert pass_on(body, [b"abc", b"de"]) == (5, b"abcde")
    assert not body.done
    assert body.end()
    assert body.done


def test_what_has_no_chunks_can_get_some() -> None:
    for parts in cuts(b"abcde"):
        chunked = b"".join(map(chunk, [*parts, b""])) + LAST_CHUNK
        assert pass_on(Body(CHUNKED), [chunked]) == (len(chunked), chunked)
        assert Unchunked().payload(chunked) == b"abcde"
