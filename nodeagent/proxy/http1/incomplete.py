"""What is wrong with a head that did not match: is it only incomplete, or can it never be valid?

The slow path of `nodeagent.proxy.http1.head`: entered for heads that come in pieces and for malformed ones.
The result is about the first line that is wrong, so it does not depend on how the bytes were cut.
"""

from __future__ import annotations

import re
from typing import Final

from nodeagent.proxy.http1.head import STATUS_LINE
from nodeagent.proxy.message import FIELD, METHOD, TARGET, TCHAR, HeadError
from nodeagent.settings import Limits

UNMEASURED: Final = 512
"""A complete head of at most this many bytes is within all default limits, whatever is in it."""

# As much of a head as is whole and well formed; never fails, may be nothing.
_REQUEST_LINES: Final = re.compile(rb"(?:%b++ (?! )%b HTTP/1\.[01]\r\n(?:%b)*+)?+" % (METHOD, TARGET, FIELD))
_RESPONSE_LINES: Final = re.compile(rb"(?:%b(?:%b)*+)?+" % (STATUS_LINE, FIELD))

_BAD_BYTE: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)|(?<!\r)\n")
_OTHER_VERSION: Final = re.compile(METHOD + rb"++ [\x21-\x7e]++ HTTP/[0-9]\.[0-9]\r\n")
_REQUEST_START: Final = re.compile(METHOD + rb"++(?: .*)?|\r", re.DOTALL)
_RESPONSE_START: Final = re.compile(rb"H|HT|HTT|HTTP|HTTP/.*", re.DOTALL)
_SPACE_BEFORE_COLON: Final = re.compile(TCHAR + rb"++[ \t]++:")


def check_size(data: bytes, start: int, end: int, limits: Limits) -> None:
    """Refuse a complete head, from `start` to `end`, that is larger than the limits allow.

    Raises:
        HeadError: with status 431 (RFC 6585 section 5), or 414 if the request line alone is too large.
    """
    if end - start > limits.head_bytes or data.count(b"\n", start, end) - 2 > limits.head_fields:
        raise _too_large(limits, data.find(b"\n", start, start + limits.head_bytes) < 0)


def check_incomplete(data: bytes, limits: Limits, response: bool = False) -> None:
    """Return if `data`, which is not empty, may still become a head when more bytes come.

    Raises:
        HeadError: it never will; says what is wrong with which line.
    """
    match = (_RESPONSE_LINES if response else _REQUEST_LINES).match(data)
    assert match is not None
    good = match.end()
    number = data.count(b"\n", 0, good)
    if number > limits.head_fields + 1 or good > limits.head_bytes:
        raise _too_large(limits, data.find(b"\n", 0, limits.head_bytes) < 0)
    end = data.find(b"\n", good, limits.head_bytes)
    line = data[good : end + 1 if end >= 0 else limits.head_bytes]
    _check_bytes(line)
    if end >= 0:
        raise _field_error(line, number) if number else _first_line_error(line, response)
    if len(data) > limits.head_bytes:
        raise _too_large(limits, not number)
    if not number and (_RESPONSE_START if response else _REQUEST_START).fullmatch(line) is None:
        # Refused before its line has ended: binary junk may never send a line feed.
        raise _first_line_error(line, response)


def _check_bytes(line: bytes) -> None:
    match = _BAD_BYTE.search(line)
    if match is None:
        return
    if match[0] == b"\n":
        raise HeadError("bare_lf", "a line ends in LF alone (RFC 9112 section 2.2)")
    if match[0] == b"\r":
        raise HeadError("bare_cr", "CR without LF (RFC 9112 section 2.2)")
    hint = " (TLS to a plain HTTP port?)" if line[:1] == b"\x16" else ""
    raise HeadError("control_byte", f"a control byte in the head{hint}")


def _first_line_error(line: bytes, response: bool) -> HeadError:
    if response:
        return HeadError("malformed_line", "the status line is malformed")
    if _OTHER_VERSION.fullmatch(line) and line[-10:-2] not in (b"HTTP/1.0", b"HTTP/1.1"):
        return HeadError("version", "only HTTP/1.0 and HTTP/1.1 are spoken here", 505)
    return HeadError("malformed_line", "the request line is malformed")


def _field_error(line: bytes, number: int) -> HeadError:
    if line[:1] in (b" ", b"\t"):
        return HeadError("obs_fold", f"header line {number} is folded (RFC 9112 section 5.2)")
    if _SPACE_BEFORE_COLON.match(line):
        return HeadError("space_before_colon", f"white space before the colon in header line {number}")
    return HeadError("malformed_field", f"header line {number} is malformed")


def _too_large(limits: Limits, first_line: bool) -> HeadError:
    """`first_line`: it is too large alone. Of a response the status is not sent to anybody."""
    if first_line:  # RFC 9112 section 3
        return HeadError("head_too_large", f"the request line has more than {limits.head_bytes} bytes", 414)
    detail = f"the head has more than {limits.head_bytes} bytes or {limits.head_fields} fields"
    return HeadError("head_too_large", detail, 431)
