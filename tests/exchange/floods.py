"""Attacks over HTTP/1: what is cheap to send, and might not be cheap to take. Named after what they spend."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.http2.attacks import Attack

COUNT = 2_000
GET = b"GET / HTTP/1.1\r\nHost: web\r\n"
POST = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n"
Write = Callable[[], Iterator[bytes]]


def again(what: bytes, *, first: bytes = b"", count: int = COUNT) -> Write:
    """Say the same again and again, behind something else."""

    def write() -> Iterator[bytes]:
        if first:
            yield first
        for _ in range(count):
            yield what

    return write


def numbered(what: bytes, *, first: bytes = b"", count: int = COUNT) -> Write:
    """Say the same again and again, each with a number of its own, so that nothing is remembered of it."""

    def write() -> Iterator[bytes]:
        if first:
            yield first
        for number in range(count):
            yield what % number

    return write


def flood(name: str, write: Write) -> Attack:
    """Return one; how its connection ends is not what it is about."""
    return Attack(name, write, ends=False)


FIELDS = b"".join(b"x-%d: y\r\n" % number for number in range(120))
CRUMBS = b"".join(b"cookie: a%d=b\r\n" % number for number in range(120))
FORWARDED = b"x-forwarded-for: 1.2.3.4\r\n" * 120
HOPS = b"connection: " + b",".join(b"x%d" % number for number in range(4000)) + b"\r\n"
NUMBER = b"n: %d\r\n\r\n"

FLOODS = [
    flood("a head that never ends", again(b"a: b\r\n", first=GET)),
    flood("a head in bytes", again(b"a", first=GET + b"x: ", count=20_000)),
    flood("a line that never ends", again(b"a" * 1000, first=b"GET /")),
    flood("heads of 120 fields", numbered(GET + FIELDS + NUMBER, count=200)),
    flood("heads of 120 crumbs of a cookie", numbered(GET + CRUMBS + NUMBER, count=200)),
    flood("heads of 120 forwarded addresses", numbered(GET + FORWARDED + NUMBER, count=200)),
    flood("heads whose Connection names 4,000 fields", numbered(GET + HOPS + NUMBER, count=50)),
    flood("heads of 60 KiB", numbered(GET + b"x: " + b"a" * 60_000 + b"\r\n" + NUMBER, count=50)),
    flood("pipelined requests", again(GET + b"\r\n")),
    flood("pipelined requests, no two alike", numbered(b"GET /%d HTTP/1.1\r\nHost: web\r\n\r\n")),
    flood("empty lines", again(b"\r\n" * 500)),
    flood("chunks of a byte", again(b"1\r\na\r\n", first=POST)),
    flood("chunks of a byte with extensions", again(b"1;a=b\r\na\r\n", first=POST)),
    flood("chunks with extensions of 4,000 bytes", again(b"1;a=" + b"b" * 4000 + b"\r\na\r\n", first=POST)),
    flood("a chunk's size that never ends", again(b"0" * 1000, first=POST)),
    flood("an extension that never ends", again(b"a" * 1000, first=POST + b"1;")),
    flood("trailers that never end", again(b"a: b\r\n", first=POST + b"0\r\n")),
    flood("a body in bytes", again(b"a", first=GET + b"Content-Length: 1000000\r\n\r\n")),
    flood("bodies of nothing", again(POST + b"0\r\n\r\n")),
    flood("a ClientHello of TLS", again(b"\x16\x03\x01\x02\0\1\0\1\xfc\3\3" + bytes(500), count=1)),
]
"""What a client says."""

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

ENDPOINT_FLOODS = [
    flood("a head that never ends", again(b"a: b\r\n", first=OK)),
    flood("a line that never ends", again(b"a" * 1000, first=b"HTTP/1.1 200 ")),
    flood("a head whose Connection names 4,000 fields", again(OK + HOPS + b"\r\n", count=1)),
    flood("interim responses without end", again(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")),
    flood("chunks of a byte", again(b"1\r\na\r\n", first=CHUNKED)),
    flood("an extension that never ends", again(b"a" * 1000, first=CHUNKED + b"1;")),
    flood("trailers that never end", again(b"a: b\r\n", first=CHUNKED + b"0\r\n")),
    flood("responses that nobody asked for", again(OK + b"Content-Length: 0\r\n\r\n")),
]
"""What an endpoint answers a request."""
