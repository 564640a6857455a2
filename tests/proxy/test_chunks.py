"""Chunked bodies: where they end, what is refused, in whatever pieces they come."""

from __future__ import annotations

import pytest

from nodeagent.proxy.chunks import ChunkedReader
from nodeagent.proxy.message import HeadError

NEXT = b"GET / HTTP/1.1\r\n"


def read(parts: list[bytes]) -> tuple[int, bytes, bool] | str:
    """Return (bytes of the body, payload, done), or the reason of the refusal."""
    reader = ChunkedReader(keep_payload=True, trailer_limit=200)
    used = 0
    try:
        for part in parts:
            while part and not reader.done:
                followed = reader.feed(part)
                used += followed
                part = part[followed:]
    except HeadError as error:
        return error.reason
    return used, b"".join(reader.payload), reader.done


def in_every_way(wire: bytes) -> tuple[int, bytes, bool] | str:
    whole = read([wire])
    for cut in range(1, len(wire)):
        assert read([wire[:cut], wire[cut:]]) == whole, cut
    assert read([wire[i : i + 1] for i in range(len(wire))]) == whole
    return whole


@pytest.mark.parametrize(
    ("wire", "payload"),
    [
        (b"0\r\n\r\n", b""),
        (b"000\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
        (b"000000000000003\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"3;a\r\nabc\r\n1;a=b;c=d\r\n\n\r\n0;z\r\n\r\n", b"abc\n"),
        (b'3;a="b;\tc \xc3"\r\n'.replace(b"\xc3", b"!") + b"abc\r\n0\r\n\r\n", b"abc"),
        (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
        (b"0\r\nX: y\r\nGrpc-Status:0\r\nZ:\xe9\r\n\r\n", b""),
    ],
)
def test_accepted(wire: bytes, payload: bytes) -> None:
    assert in_every_way(wire + NEXT) == (len(wire), payload, True)
    for end in range(len(wire)):
        result = read([wire[:end]])
        assert isinstance(result, tuple)
        assert not result[2]


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"\r\n", "chunk"),
        (b"x\r\n", "chunk"),
        (b"+3\r\nabc", "chunk"),
        (b"80000000\r\n", "chunk"),
        (b"100000003\r\nabc", "chunk"),
        (b"1;" + b"a" * 4000 + b"\r\nx\r\n" + (b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 5, "chunk"),
        (b"-1\r\n", "chunk"),
        (b"0x3\r\nabc", "chunk"),
        (b"1_0\r\n", "chunk"),
        (b" 3\r\nabc", "chunk"),
        (b"3 \r\nabc", "chunk"),
        (b"3 ;a\r\nabc", "chunk"),
        (b"3\nabc\n0\n\n", "chunk"),
        (b"3\r\r\nabc", "chunk"),
        (b"3\rabc", "chunk"),
        (b"3;a\nabc", "chunk"),
        (b"3;a\rb\r\nabc", "chunk"),
        (b"3;a\x00\r\nabc", "chunk"),
        (b"3;\r\nabc", "chunk"),
        (b"3;=\r\nabc", "chunk"),
        (b"3;a=\r\nabc", "chunk"),
        (b'3;a="\r\nabc', "chunk"),
        (b'3;a="\\""\r\nabc', "chunk"),
        (b"3;a b\r\nabc", "chunk"),
        (b"3,3\r\nabc", "chunk"),
        (b"10000000000000003\r\nabc", "chunk"),
        (b"ffffffffffffffff\r\n", "chunk"),
        (b"3\r\nabcd\r\n", "chunk"),
        (b"3\r\nabc0\r\n\r\n", "chunk"),
        (b"3\r\nabc\n0\r\n\r\n", "chunk"),
        (b"3\r\nabc\r0\r\n\r\n", "chunk"),
        (b"3\r\nab\r\n0\r\n\r\n", "chunk"),
        (b"1;" + b"a" * 5000 + b"\r\nx\r\n", "chunk"),
        (b"0" * 5000, "chunk"),
        (b"0\r\n\n", "trailer"),
        (b"0\r\n\r\r\n", "trailer"),
        (b"0\r\n x: y\r\n\r\n", "trailer"),
        (b"0\r\nx: y\r\n z\r\n\r\n", "trailer"),
        (b"0\r\nx : y\r\n\r\n", "trailer"),
        (b"0\r\nx\r\n\r\n", "trailer"),
        (b"0\r\nx: y\n\r\n", "trailer"),
        (b"0\r\nx: \x00\r\n\r\n", "trailer"),
        (b"0\r\nx: \x7f", "trailer"),
        (b"0\r\n" + b"x: y\r\n" * 50 + b"\r\n", "trailer"),
        (b"0\r\nx: " + b"y" * 300, "trailer"),
    ],
)
def test_refused_whatever_came_before(wire: bytes, reason: str) -> None:
    for before in (b"", b"3;a=b\r\nabc\r\n"):
        assert in_every_way(before + wire) == reason if len(wire) < 1000 else read([before + wire]) == reason
        assert read([(before + wire)[i : i + 1] for i in range(len(before + wire))]) == reason


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length",
        b"transfer-encoding",
        b"HOST",
        b"Trailer",
        b"Connection",
        b"Authorization",
        b"Cookie",
        b"Set-Cookie",
        b"Content-Type",
        b"Content-Encoding",
        b"X-Forwarded-For",
        b"TE",
        b"Upgrade",
        b"Expect",
    ],
)
def test_fields_that_may_not_be_trailers(name: bytes) -> None:
    for before in (b"", b"x: y\r\n"):
        wire = b"1\r\na\r\n0\r\n" + before + name + b": 1\r\n\r\n"
        assert in_every_way(wire) == "trailer"
        assert isinstance(in_every_way(wire.replace(name, b"X-" + name[1:])), tuple)


def test_limits_hold_to_the_byte_in_one_piece_and_in_many() -> None:
    for length, refused in ((200, False), (201, True)):
        wire = b"0\r\nx:" + b"y" * (length - 6) + b"\r\n\r\n"
        assert (in_every_way(wire) == "trailer") is refused
    for length, refused in ((4096, False), (4097, True)):
        wire = b"1;" + b"a" * (length - 4) + b"\r\n"
        assert (read([wire]) == "chunk") is refused
        assert (read([wire[i : i + 1] for i in range(len(wire))]) == "chunk") is refused


def test_what_is_held_is_one_line_only() -> None:
    reader = ChunkedReader()
    assert reader.feed(b"ffffff\r\n") == 8
    assert reader.feed(b"x" * 100_000) == 100_000
    assert reader.payload == []
    assert not reader._held


def test_nothing_is_taken_after_the_end() -> None:
    reader = ChunkedReader()
    assert reader.feed(b"0\r\n\r") == 4
    assert reader.feed(b"\n" + NEXT) == 1
    assert reader.done
    assert reader.feed(NEXT) == 0
