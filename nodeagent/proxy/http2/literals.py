"""Lines of HTTP/1 as literals of HTTP/2 (RFC 7541 section 6.2), each rendered once.

Strings are not Huffman-coded: coding takes many times as long as copying, and what repeats is sent as an
index. A line without white space after its colon came as a literal that must not be indexed, and stays one.
"""

from __future__ import annotations

from typing import Final

from nodeagent.proxy.http2.field import CONNECTION_FIELDS, SECRET
from nodeagent.proxy.http2.integers import integer
from nodeagent.proxy.http2.static_table import ENTRIES
from nodeagent.proxy.memory import Memory
from nodeagent.proxy.message import UNIQUE

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
        b"tracestate",
        *UNIQUE,
    )
)
_GUESSABLE: Final = 20
"""Bytes of a secret below which compression might give it away (RFC 7541 section 7.1.3)."""
_ROOM: Final = 256 * 1024

_LENGTHS: Final = tuple(bytes((size,)) for size in range(0x7F))
_SPACES: Final = (b" ", b"\t", b"")
_STATIC: Final = {entry: index for index, entry in enumerate(ENTRIES, 1)}
_STATIC_NAMES: Final = {name: index for index, (name, _) in reversed(list(enumerate(ENTRIES, 1)))}


class _Name:
    """A field name as lines have it, and how literals with it begin."""

    __slots__ = ("changing", "dropped", "indexing", "name", "never", "plain", "secret", "unique")

    def __init__(self, spelled: bytes) -> None:
        name = spelled.lower()
        self.dropped = name in CONNECTION_FIELDS
        self.secret = name in SECRET
        self.changing = name in _CHANGING
        self.unique = name in UNIQUE
        if name == b"host":
            name = b":authority"
        self.name = name
        self.plain, self.never, self.indexing = (_named(name, form) for form in (_PLAIN, _NEVER, _INDEXING))


_names: Final[dict[bytes, _Name]] = {}
_MOST_NAMES: Final = 1024
_LONGEST_NAME: Final = 64


def _new_name(spelled: bytes) -> _Name:
    known = _Name(spelled)
    if len(spelled) <= _LONGEST_NAME:
        if len(_names) >= _MOST_NAMES:
            _names.clear()
        _names[spelled] = known
    return known


def unique(line: bytes) -> bytes | None:
    """Return the literal of a line whose value does not come again; None: it is no such line."""
    spelled, colon, value = line.partition(b": ")
    known = _names.get(spelled)
    if known is None or not known.unique or not colon:
        return None
    value = value.strip(b" \t")
    size = len(value)
    return known.plain + (_LENGTHS[size] if size < 0x7F else integer(size, 0x7F, 0)) + value


class Literal:
    """A line as HTTP/2 sends it: `plain`, or `indexing` where it is put into the peer's table as well."""

    __slots__ = ("_begin", "_end", "indexed", "plain", "secret", "size")

    def __init__(self, line: bytes) -> None:
        spelled, _, value = line.partition(b":")
        known = _names.get(spelled) or _new_name(spelled)
        spaced = value[:1] in _SPACES
        value = value.strip(b" \t")
        size = len(value)
        self.secret = known.secret or not spaced
        self.size = len(known.name) + size + 32
        self._begin = known.indexing
        self._end = end = (_LENGTHS[size] if size < 0x7F else integer(size, 0x7F, 0)) + value
        self.indexed = False
        """Whether it may be put into a table."""
        if known.dropped or (not value and known.name == b":authority"):  # RFC 9113 sections 8.2.2, 8.3.1
            self.plain = b""
        elif self.secret and (not spaced or size < _GUESSABLE):
            self.plain = known.never + end
        elif (known.name, value) in _STATIC:
            self.plain = compact(known.name, value)
        else:
            self.plain = known.plain + end
            self.indexed = not known.changing

    @property
    def indexing(self) -> bytes:
        """The form that the peer puts into its table."""
        return self._begin + self._end

    @property
    def cost(self) -> int:
        """Bytes that it takes: the line, the literal, and the objects."""
        return 3 * self.size + 300


def _named(name: bytes, form: tuple[int, int]) -> bytes:
    mask, flags = form
    index = _STATIC_NAMES.get(name, 0)
    named = integer(index, mask, flags)
    return named if index else named + integer(len(name), 0x7F, 0) + name


def literal(name: bytes, value: bytes) -> bytes:
    """Return a field as a literal."""
    return _named(name, _PLAIN) + integer(len(value), 0x7F, 0) + value


def never_indexed(name: bytes, value: bytes) -> bytes:
    """Return a field as a literal that nobody on the way may put into a table: it has a secret."""
    return _named(name, _NEVER) + integer(len(value), 0x7F, 0) + value


def compact(name: bytes, value: bytes) -> bytes:
    """Return a field as an index of the static table if it is there, else as a literal."""
    index = _STATIC.get((name, value))
    return integer(index, 0x7F, INDEXED) if index is not None else literal(name, value)


SHARED: Final[Memory[bytes, Literal]] = Memory(_ROOM)
"""Of all connections, without secrets."""
