"""Lines of HTTP/1 as literals of HTTP/2 (RFC 7541 section 6.2), each rendered once.

Strings are not Huffman-coded: to code takes many times as long as to copy, and what repeats is sent as an
index. A line without white space behind its colon came as, and stays, a literal that nobody may index.
"""

from __future__ import annotations

from typing import Final

from nodeagent.proxy.http2.field import CONNECTION_FIELDS, SECRET
from nodeagent.proxy.http2.integers import integer
from nodeagent.proxy.http2.memory import Memory
from nodeagent.proxy.http2.static_table import ENTRIES

INDEXED: Final = 0x80
_INDEXING, _PLAIN, _NEVER = (0x3F, 0x40), (0x0F, 0x00), (0x0F, 0x10)
"""Forms of a literal: the mask of the name's index, and the flags."""

# Values that hardly ever come again, or not for long: they would push out those that do.
_CHANGING: Final = frozenset(
    (
        b"age",
        b"content-length",
        b"content-range",
        b"date",
        b"etag",
        b"expires",
        b"grpc-timeout",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"last-modified",
        b"location",
        b"range",
        b"set-cookie",
        b"traceparent",
        b"tracestate",
        b"x-request-id",
    )
)
_GUESSABLE: Final = 20
"""Bytes of a secret below which compression might give it away (RFC 7541 section 7.1.3)."""
_ROOM: Final = 256 * 1024

_STATIC: Final = {entry: index for index, entry in enumerate(ENTRIES, 1)}
_STATIC_NAMES: Final = {name: index for index, (name, _) in reversed(list(enumerate(ENTRIES, 1)))}


class Literal:
    """A line as HTTP/2 sends it. `indexing` also puts it into the peer's table; empty: that it may not be."""

    __slots__ = ("indexing", "plain", "secret", "size")

    def __init__(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        name = name.lower()
        spaced = value[:1] in (b" ", b"\t", b"")
        value = value.strip(b" \t")
        self.secret = name in SECRET or not spaced
        self.size = len(name) + len(value) + 32
        self.indexing = b""
        if name in CONNECTION_FIELDS:
            self.plain = b""
            return
        if name == b"host":
            name = b":authority"
            if not value:  # RFC 9113 section 8.3.1: not even an empty one
                self.plain = b""
                return
        if not spaced or (len(value) < _GUESSABLE and name in SECRET):
            self.plain = literal(name, value, _NEVER)
            return
        self.plain = compact(name, value)
        if name not in _CHANGING and len(self.plain) > 1:
            self.indexing = literal(name, value, _INDEXING)

    @property
    def cost(self) -> int:
        """Bytes that it takes: the line, both forms, and the objects."""
        return 3 * self.size + 300


def literal(name: bytes, value: bytes, form: tuple[int, int] = _PLAIN) -> bytes:
    """Return a field as a literal."""
    mask, flags = form
    index = _STATIC_NAMES.get(name, 0)
    named = integer(index, mask, flags)
    if not index:
        named += integer(len(name), 0x7F, 0) + name
    return named + integer(len(value), 0x7F, 0) + value


def compact(name: bytes, value: bytes) -> bytes:
    """Return a field as an index of the static table if it is there, else as a literal."""
    index = _STATIC.get((name, value))
    return integer(index, 0x7F, INDEXED) if index is not None else literal(name, value)


SHARED: Final[Memory[bytes, Literal]] = Memory(_ROOM)
"""Of all connections, without secrets."""
