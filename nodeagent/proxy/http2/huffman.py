"""Huffman decoding of header strings (RFC 7541 section 5.2 and appendix B).

By ls-qpack: QPACK has the code of HPACK (RFC 9204 section 4.1.2), and a field line with a literal value
(section 4.5.4) is a string with three bytes in front. A decoder in Python, a byte of code at a time, took
2 µs for a trace's 55 characters, but 10 where others had used the cache; and 700 for 8 KiB, which is 13 here.
"""

from __future__ import annotations

from typing import Final

import pylsqpack

from nodeagent.proxy.http2.integers import integer

_LINE: Final = b"\0\0\x50"
"""A section that refers to no dynamic table, and a line with the first name of the static one."""
_BEGINNINGS: Final = tuple(_LINE + bytes((0x80 | size,)) for size in range(0x7F))
"""What stands in front of a string of each of the usual sizes."""
_ANY: Final = 0
"""A stream number. No stream is ever blocked, because there is no table to wait for."""

_read: Final = pylsqpack.Decoder(max_table_capacity=0, blocked_streams=0).feed_header


class HuffmanError(Exception):
    """The string is not well formed, or has 64 KiB or more."""


def decode(data: bytes) -> bytes:
    """Return the string.

    Raises:
        HuffmanError: it has the end's symbol within, or is padded with something else than up to seven ones;
            or it is longer than any field may be.
    """
    size = len(data)
    beginning = _BEGINNINGS[size] if size < 0x7F else _LINE + integer(size, 0x7F, 0x80)
    try:
        _, ((_, value),) = _read(_ANY, beginning + data)
    except pylsqpack.DecompressionFailed:
        raise HuffmanError(
            "a Huffman string is badly padded, contains the end-of-string symbol, or is far too long"
        ) from None
    return value
