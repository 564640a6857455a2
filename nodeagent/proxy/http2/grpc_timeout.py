"""The field `grpc-timeout`: how long a caller of gRPC waits for its complete answer. Pure.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: a positive number of at most eight digits, and
a unit. A value that is not valid sets no deadline here, as in Envoy: it is passed on unchanged, and the
server decides. Times are in nanoseconds, which is what the finest unit counts.
"""

from __future__ import annotations

import re
from typing import Final

SECOND: Final = 1_000_000_000
LEAST: Final = SECOND // 1000
"""The least time that an endpoint is given when the deadline has passed: it may find that out by itself. As
in Envoy."""
_UNITS: Final = {
    b"H": 3600 * SECOND,
    b"M": 60 * SECOND,
    b"S": SECOND,
    b"m": SECOND // 1000,
    b"u": 1000,
    b"n": 1,
}
_VALUE: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_LINE: Final = re.compile(rb"^((?i:grpc-timeout):[ \t]*)[^\r]*", re.MULTILINE)
_MOST: Final = 99_999_999
_PRECISION: Final = 3
"""Significant digits. Values that hardly differ become the same value, so that remembered header blocks can
be used again."""


def parse_timeout(value: bytes) -> int:
    """Return the time that a value of `grpc-timeout` gives; 0: it gives none."""
    match = _VALUE.fullmatch(value)
    return int(match[1]) * _UNITS[match[2]] if match is not None else 0


def render_timeout(nanoseconds: int) -> bytes:
    """Return a time as the field says it, rounded up to what `parse_timeout` reads back."""
    for unit, size in _UNITS.items():
        count, rest = divmod(nanoseconds, size)
        if not rest and count <= _MOST:
            return b"%d%b" % (count, unit)
    return b"%dH" % min(-(-nanoseconds // _UNITS[b"H"]), _MOST)


def rounded(nanoseconds: int) -> int:
    """Return a time rounded up to three digits."""
    scale = 10 ** max(len(str(nanoseconds)) - _PRECISION, 0)
    return int(-(-nanoseconds // scale) * scale)


def with_time_left(fields: bytes, given: int, left: int) -> bytes:
    """Return a head's fields with what is `left` of the time that they give; if that is less, rounded."""
    left = rounded(max(left, LEAST))
    if left >= given:
        return fields
    return _LINE.sub(rb"\g<1>" + render_timeout(left), fields)
