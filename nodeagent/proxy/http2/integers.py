"""The integers of header compression (RFC 7541 section 5.1)."""

from __future__ import annotations

from typing import Final

_LONGEST: Final = 4
"""Bytes behind the first: 28 bits, more than any length that is allowed here."""


class IntegerError(Exception):
    """The integer is larger, or longer, than any that is needed."""


def read_integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """Return the integer that begins in the low bits, `mask`, of the byte at `position`, and where it ends.

    Raises:
        IntegerError: it is too large.
        IndexError: the block ends within.
    """
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    for shift in range(0, 7 * _LONGEST, 7):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise IntegerError(f"an integer of more than {_LONGEST + 1} bytes")


def integer(value: int, mask: int, flags: int) -> bytes:
    """Return an integer that begins in the low bits, `mask`, of a byte; `flags` are its other bits."""
    if value < mask:
        return bytes((flags | value,))
    out = bytearray((flags | mask,))
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
