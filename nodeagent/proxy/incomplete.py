"""What is wrong with a head that did not match: is it only not all here yet, or can it never be right?

The slow path of `nodeagent.proxy.head`: entered for heads that come in pieces and for malformed ones.
"""

from __future__ import annotations

import re
from typing import Final

from nodeagent.config import Limits
from nodeagent.proxy.head import TCHAR, HeadError

_BARE_LINE_FEED: Final = re.compile(rb"(?<!\r)\n")
_BARE_RETURN: Final = re.compile(rb"\r(?!\n|\Z)")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_REQUEST_LINE: Final = re.compile(TCHAR + rb"+ [\x21-\x7e]+ HTTP/1\.[01]")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9](?: [\t\x20-\x7e\x80-\xff]*)?")
_FIELD_LINE: Final = re.compile(TCHAR + rb"+:[\t\x20-\x7e\x80-\xff]*")


def check_size(data: bytes, end: int, fields: bytes, limits: Limits) -> None:
    """Refuse a complete head of `end` bytes that is larger than the limits allow.

    Raises:
        HeadError: with status 431 (RFC 6585 section 5).
    """
    if end > limits.head_bytes or fields.count(b"\n") > limits.head_fields:
        raise HeadError("head_too_large", _too_large(limits), 431)


def check_incomplete(data: bytes, limits: Limits, response: bool = False) -> None:
    """Return if `data` may still become a head when more bytes come.

    Raises:
        HeadError: it never will; says what is wrong with which line.
    """
    if _BARE_LINE_FEED.search(data):
        raise HeadError("bare_lf", "a line ends in LF alone (RFC 9112 section 2.2)")
    if _BARE_RETURN.search(data):
        raise HeadError("bare_cr", "CR without LF (RFC 9112 section 2.2)")
    if _CONTROL.search(data.partition(b"\r\n\r\n")[0]):
        raise HeadError("control_byte", "a control byte in the head")
    head, ended, _ = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    whole = lines if ended else lines[:-1]
    _check_lines(whole, response)
    if len(head) > limits.head_bytes or len(lines) - 1 > limits.head_fields:
        raise HeadError("head_too_large", _too_large(limits), 431)
    if ended:
        raise HeadError("malformed_head", "the head is malformed")
    _check_first_bytes(lines[0], response, bool(whole))


def _check_lines(lines: list[bytes], response: bool) -> None:
    if not lines:
        return
    if (_STATUS_LINE if response else _REQUEST_LINE).fullmatch(lines[0]) is None:
        if not response and re.search(rb" HTTP/[02-9]", lines[0]):
            raise HeadError("version", "only HTTP/1.0 and HTTP/1.1 are spoken here", 505)
        what = "status line" if response else "request line"
        raise HeadError("malformed_line", f"the {what} is malformed")
    for number, line in enumerate(lines[1:], 1):
        if _FIELD_LINE.fullmatch(line) is None:
            if line[:1] in (b" ", b"\t"):
                raise HeadError("obs_fold", f"header line {number} is folded (RFC 9112 section 5.2)")
            if re.match(TCHAR + rb"+[ \t]+:", line):
                raise HeadError("space_before_colon", f"white space before the colon in header line {number}")
            raise HeadError("malformed_field", f"header line {number} is malformed")


def _check_first_bytes(line: bytes, response: bool, complete: bool) -> None:
    """Refuse what cannot begin a message at once, TLS or binary junk say, before the head's time is up."""
    if complete or not line:
        return
    pattern = rb"H|HT|HTT|HTTP|HTTP/.*" if response else TCHAR + rb"+(?: .*)?"
    if re.fullmatch(pattern, line) is None:
        hint = " (TLS to a plain HTTP port?)" if line[:1] == b"\x16" else ""
        raise HeadError("malformed_line", f"this is not HTTP/1{hint}")


def _too_large(limits: Limits) -> str:
    return f"the head has more than {limits.head_bytes} bytes or {limits.head_fields} fields"


REASONS: Final = (
    "ambiguous_length",
    "bare_cr",
    "bare_lf",
    "chunk",
    "connect",
    "content_length",
    "control_byte",
    "head_timeout",
    "head_too_large",
    "host",
    "malformed_field",
    "malformed_head",
    "malformed_line",
    "no_route",
    "obs_fold",
    "space_before_colon",
    "target",
    "trailer",
    "transfer_encoding",
    "version",
)
"""Every word that a refusal is counted under."""
