"""Bodies in every framing: how many bytes belong to them, what goes on, when they are done."""

from __future__ import annotations

import pytest

from nodeagent.proxy.body import LAST_CHUNK, Body
from nodeagent.proxy.head import CHUNKED, NO_BODY, UNTIL_CLOSE, HeadError

CHUNKS = b"3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: u\r\n\r\n"


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
    assert body.end() == b""


def test_a_length_ends_to_the_byte() -> None:
    for parts in cuts(b"abcdefNEXT"):
        body = Body(6)
        assert pass_on(body, parts) == (6, b"abcdef")
        assert body.done
        assert body.end() == b""


def test_a_length_cut_short_has_no_end() -> None:
    body = Body(6)
    assert pass_on(body, [b"abc", b"", b"de"]) == (5, b"abcde")
    assert not body.done
    assert body.end() is None
    assert pass_on(body, [b"f!"]) == (1, b"f")
    assert body.done


def test_chunks_go_on_as_they_came() -> None:
    for parts in cuts(CHUNKS + b"NEXT"):
        body = Body(CHUNKED)
        assert pass_on(body, parts) == (len(CHUNKS), CHUNKS)
        assert body.done
        assert body.end() == b""


def test_chunks_are_taken_off_for_who_does_not_know_them() -> None:
    for parts in cuts(CHUNKS + b"NEXT"):
        body = Body(CHUNKED, unchunk=True)
        assert pass_on(body, parts) == (len(CHUNKS), b"abcde")
        assert body.done


def test_chunks_cut_short_have_no_end() -> None:
    for end in range(len(CHUNKS)):
        body = Body(CHUNKED)
        pass_on(body, [CHUNKS[:end]])
        assert not body.done
        assert body.end() is None


def test_bad_chunks_are_an_error() -> None:
    body = Body(CHUNKED)
    with pytest.raises(HeadError):
        body.take(b"3\r\nabcd\r\n")


def test_a_body_without_length_lasts_until_the_end() -> None:
    body = Body(UNTIL_CLOSE)
    assert pass_on(body, [b"abc", b"de"]) == (5, b"abcde")
    assert not body.done
    assert body.end() == b""
    assert body.done


def test_a_body_without_length_gets_chunks() -> None:
    for parts in cuts(b"abcde"):
        body = Body(UNTIL_CLOSE, rechunk=True)
        used, forwarded = pass_on(body, [*parts, b""])
        end = body.end()
        assert end == LAST_CHUNK
        assert used == 5
        assert pass_on(Body(CHUNKED, unchunk=True), [forwarded + end]) == (len(forwarded + end), b"abcde")
