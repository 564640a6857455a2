"""Heads and header blocks for the differential tests: much that is right, and all that goes wrong."""

from __future__ import annotations

from random import Random
from typing import Final

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import strategies as st

from nodeagent.proxy.http2.integers import integer
from tests.http2.blocks import FieldList

_HUFFMAN: Final = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

METHODS: Final = (
    b"GET",
    b"GET",
    b"POST",
    b"HEAD",
    b"OPTIONS",
    b"PUT",
    b"CONNECT",
    b"get",
    b"",
    b"GET /x HTTP/1.1\r\n",
)
PATHS: Final = (
    b"/",
    b"/a?b=c",
    b"/a/b;c",
    b"*",
    b"",
    b"a",
    b"http://a/",
    b"/a b",
    b"/\r\n",
    b"/#",
    b"/\\",
    b"//",
    b"/\xff",
)
AUTHORITIES: Final = (b"a", b"a:80", b"[::1]", b"", b"u@a", b"a b", b"a\r\nx: y", b"A", b":80")
SCHEMES: Final = (b"http", b"https", b"http", b"ftp", b"", b"HTTP")
STATUSES: Final = (b"200", b"204", b"304", b"404", b"100", b"103", b"101", b"2", b"", b"600", b"299")
FIELDS: Final = (
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"user-agent", b"Mozilla/5.0 (X11)"),
    (b"x-a", b"b"),
    (b"x-a", b""),
    (b"x-a", b"\xe9\t\xff"),
    (b"cookie", b"a=b"),
    (b"cookie", b"c=d; e=f"),
    (b"te", b"trailers"),
    (b"expect", b"100-continue"),
    (b"x-forwarded-for", b"1.2.3.4"),
    (b"x-forwarded-for", b""),
    (b"authorization", b"Basic YTpi"),
    (b"authorization", b"Bearer 0123456789abcdef0123456789abcdef"),
    (b"content-length", b"3"),
    (b"content-length", b"0"),
    (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    (b"x-long", b"0123456789" * 30),
    (b"n" * 130, b"y"),
    (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
    (b"set-cookie", b"a=b; path=/"),
    (b"grpc-status", b"0"),
)
ODD_FIELDS: Final = (
    (b"host", b"a"),
    (b"host", b"b"),
    (b"host", b"A"),
    (b"host", b""),
    (b"content-length", b"03"),
    (b"content-length", b"5"),
    (b"content-length", b"+3"),
    (b"content-length", b"3, 3"),
    (b"content-length", b""),
    (b"content-length", b"3\r\ntransfer-encoding: chunked"),
    (b"content_length", b"3"),
    (b"transfer-encoding", b"chunked"),
    (b"transfer_encoding", b"chunked"),
    (b"transfer-encoding ", b"chunked"),
    (b"transfer-encoding: chunked\r\nx", b"y"),
    (b"connection", b"close"),
    (b"connection", b"x-a"),
    (b"keep-alive", b"1"),
    (b"proxy-connection", b"close"),
    (b"upgrade", b"h2c"),
    (b"te", b"gzip"),
    (b"te", b"Trailers"),
    (b"te", b"trailers, chunked"),
    (b"X-A", b"b"),
    (b"", b"a"),
    (b"x a", b"b"),
    (b"x:", b"b"),
    (b"x\r\nhost", b"b"),
    (b"x", b"a\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a"),
    (b"x", b"a\nb: c"),
    (b"x", b"a\rb"),
    (b"x", b"a\x00"),
    (b"x", b" a"),
    (b"x", b"a\t"),
    (b"x", b"\x7f"),
    (b":authority", b"a"),
    (b":authority", b"b"),
    (b":method", b"POST"),
    (b":path", b"/b"),
    (b":scheme", b"http"),
    (b":status", b"200"),
    (b":protocol", b"websocket"),
    (b":x", b"y"),
    (b":", b""),
)


def random_fields(random: Random, request: bool) -> FieldList:
    """Return a head's fields."""

    def mostly(values: tuple[bytes, ...], usual: int) -> bytes:
        return random.choice(values[:usual] if random.random() < 0.95 else values)

    if request:
        first = [
            (b":method", mostly(METHODS, 6)),
            (b":scheme", mostly(SCHEMES, 3)),
            (b":authority", mostly(AUTHORITIES, 3)),
            (b":path", mostly(PATHS, 3)),
        ]
        if random.random() < 0.3:
            random.shuffle(first)
        if random.random() < 0.1:
            del first[random.randrange(4)]
    else:
        first = [(b":status", mostly(STATUSES, 4))] if random.random() < 0.97 else []
    rest = random.sample(FIELDS, random.randint(0, 5))
    if random.random() < 0.4:
        rest += random.sample(ODD_FIELDS, random.choice((1, 1, 2)))
        random.shuffle(rest)
    fields = first + rest
    if fields and random.random() < 0.05:
        fields.insert(random.randint(0, len(fields)), random.choice(fields))
    if fields and random.random() < 0.1:
        at = random.randrange(len(fields))
        fields[at] = (_mutated(random, fields[at][0]), fields[at][1])
    if fields and random.random() < 0.1:
        at = random.randrange(len(fields))
        fields[at] = (fields[at][0], _mutated(random, fields[at][1]))
    return fields


def _mutated(random: Random, text: bytes) -> bytes:
    at = random.randint(0, len(text))
    kind = random.randrange(3)
    if kind == 0:
        return (
            text[:at]
            + random.choice((b"\r", b"\n", b"\x00", b" ", b"\t", b":", b"A", b"\xff", b"_"))
            + text[at:]
        )
    if kind == 1:
        return text[:at] + bytes((random.randrange(256),)) + text[at + 1 :]
    return text[:at] + text[at + 1 :]


def random_block(random: Random, entries: int) -> bytes:
    """Return representations of every kind, few of them wrong, for a table of so many fields."""

    def string(value: bytes) -> bytes:
        if random.random() < 0.5:
            coded = _HUFFMAN.encode(value)
            return integer(len(coded), 0x7F, 0x80) + coded
        return integer(len(value), 0x7F, 0) + value

    def index() -> int:
        if random.random() < 0.02:
            return random.randint(0, 140)
        return (
            random.randint(62, 61 + entries) if entries and random.random() < 0.5 else random.randint(1, 61)
        )

    out = b""
    if random.random() < 0.1:
        for _ in range(random.choice((1, 1, 1, 1, 2, 2, 2, 3))):
            out += integer(random.choice((0, 40, 100, 200, 1000, 4096, 4096)), 0x1F, 0x20)
    for _ in range(random.randint(0, 7)):
        name, value = random.choice(FIELDS if random.random() < 0.9 else ODD_FIELDS)
        mask, flags = random.choice(((0x3F, 0x40), (0x3F, 0x40), (0x0F, 0x00), (0x0F, 0x10)))
        kind = random.random()
        if kind < 0.4:
            out += integer(index(), 0x7F, 0x80)
        elif kind < 0.7:
            out += integer(index() or 1, mask, flags) + string(value)
        else:
            out += bytes((flags,)) + string(name) + string(value)
    kind = random.random()
    if kind < 0.05:
        return _mutated(random, out)
    return out[: random.randint(0, len(out))] if kind < 0.07 else out


SEEDS: Final = st.integers(0, 2**64)
