"""Header blocks of requests that differ, prepared before the load, as common clients encode them.

A block depends on all that went before it on its connection, so each connection has a list of its own. They
are not in step: each asks for the paths in another order, and what is unique comes once in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final, Literal

import hpack
import msgspec
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

Kind = Literal["paths", "unique", "literal"]
PATHS: Final = 5000
"""Different paths of `paths`."""
_PSEUDO: Final = (
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "whoami.default.svc.mesh"),
)
_REGULAR: Final = (
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
    ("accept", "*/*"),
    ("accept-encoding", "gzip, deflate"),
)
_NOT_INDEXED: Final = b"\x00"
"""RFC 7541, 6.2.2 with a name that follows: gRPC's C core, and Python on it, does so with all metadata that
it does not know."""
_PATH_NOT_INDEXED: Final = b"\x04"
"""The same with the static name `:path`: nghttp2, which is in curl and h2load, puts no path into
its table."""
_HUFFMAN: Final = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def prepare(kind: Kind, connections: int, count: int, seed: int) -> list[list[bytes]]:
    """Return `count` blocks for each connection."""
    make = _MAKERS[kind]
    return [make(Random(f"{seed} {number}"), count) for number in range(connections)]


def write_blocks(path: Path, blocks: Sequence[Sequence[bytes]]) -> None:
    """Write blocks for `read_blocks`."""
    path.write_bytes(msgspec.msgpack.encode(blocks))


def read_blocks(path: Path) -> list[list[bytes]]:
    """Return the blocks of a file."""
    return msgspec.msgpack.decode(path.read_bytes(), type=list[list[bytes]])


def _coded(text: str) -> bytes:
    coded = _HUFFMAN.encode(text.encode())
    assert len(coded) < 127, "one byte for the length"
    return bytes((0x80 | len(coded),)) + coded


def _path(path: str) -> bytes:
    return _PATH_NOT_INDEXED + _coded(path)


def _paths(random: Random, count: int) -> list[bytes]:
    """`/?item=N` with N from 0 to PATHS - 1 in an order of its own, again and again; all else repeats."""
    encoder = hpack.Encoder()
    order = list(range(PATHS))
    random.shuffle(order)
    literals = [_path(f"/?item={number:08}") for number in order]
    return [
        encoder.encode(_PSEUDO) + literals[number % PATHS] + encoder.encode(_REGULAR)
        for number in range(count)
    ]


def _unique(random: Random, count: int) -> list[bytes]:
    """The same path; `traceparent` and `x-request-id` that no other request has, put into the table."""
    encoder = hpack.Encoder()
    usual = (*_PSEUDO, (":path", "/"), *_REGULAR)
    return [encoder.encode((*usual, *_identifiers(random))) for _ in range(count)]


def _literal(random: Random, count: int) -> list[bytes]:
    """The same two fields, put into no table: all else is an index."""
    encoder = hpack.Encoder()
    usual = (*_PSEUDO, (":path", "/"), *_REGULAR)
    return [
        encoder.encode(usual)
        + b"".join(_NOT_INDEXED + _coded(name) + _coded(value) for name, value in _identifiers(random))
        for _ in range(count)
    ]


def _identifiers(random: Random) -> tuple[tuple[str, str], tuple[str, str]]:
    trace = f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-01"
    digits = f"{random.getrandbits(128):032x}"
    request = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return ("traceparent", trace), ("x-request-id", request)


_MAKERS: Final[dict[Kind, Callable[[Random, int], list[bytes]]]] = {
    "paths": _paths,
    "unique": _unique,
    "literal": _literal,
}
