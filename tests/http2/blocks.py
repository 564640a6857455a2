"""Header blocks for tests, encoded by the `hpack` library, and what has been read of them as plain values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import hpack
from hpack.struct import HeaderTuple, NeverIndexedHeaderTuple

from nodeagent.proxy.http2.headers import HeaderDecoder, Shared
from nodeagent.proxy.message import RequestHead, ResponseHead, TimedRequestHead
from nodeagent.proxy.streams import Source
from nodeagent.settings import Limits

FieldList = list[tuple[bytes, bytes]]

SOURCE: Final = Source("10.0.0.7")
GET: Final[FieldList] = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"a"),
    (b":path", b"/"),
]


def encode(fields: Iterable[tuple[bytes, bytes]], encoder: hpack.Encoder | None = None) -> bytes:
    """Return a block of its own, or the next one of an encoder."""
    return (encoder or hpack.Encoder()).encode(list(fields))


def plain(fields: Iterable[tuple[bytes, bytes]], never: bool = False) -> bytes:
    """Return a block of literals that does not touch the table, and has no Huffman codes."""

    def string(value: bytes) -> bytes:
        return bytes(hpack.hpack.encode_integer(len(value), 7)) + value

    first = b"\x10" if never else b"\x00"
    return b"".join(first + string(name) + string(value) for name, value in fields)


def never_indexed(name: bytes, value: bytes) -> HeaderTuple:
    """Return a field that nobody may index."""
    return NeverIndexedHeaderTuple(name, value)


def request_of(method: bytes = b"GET", path: bytes = b"/", *fields: tuple[bytes, bytes]) -> FieldList:
    """Return the fields of a request to the authority `a`."""
    return [(b":method", method), (b":scheme", b"http"), (b":authority", b"a"), (b":path", path), *fields]


def decoder(limits: Limits | None = None, table_size: int = 4096) -> HeaderDecoder:
    """Return one that shares nothing with others."""
    return HeaderDecoder(limits or Limits(), table_size, Shared())


def value_of(head: RequestHead | ResponseHead) -> tuple[object, ...]:
    """Return everything that a head says, except its size."""
    if isinstance(head, RequestHead):
        return (
            head.method,
            head.target,
            head.minor,
            head.fields,
            head.length,
            head.keep_alive,
            head.upgrade,
            head.forwarded_for,
            head.trailers,
            head.timeout if isinstance(head, TimedRequestHead) else 0,
        )
    return (
        head.status,
        head.status_line,
        head.minor,
        head.fields,
        head.length,
        head.keep_alive,
        head.upgrade,
    )
