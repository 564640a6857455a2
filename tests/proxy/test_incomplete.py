"""Heads that did not match: waiting for more, or refused with what is wrong with which line."""

from __future__ import annotations

import pytest

from nodeagent.proxy.http1.head import parse_request, parse_response
from nodeagent.proxy.http1.incomplete import UNMEASURED, check_incomplete, check_size
from nodeagent.proxy.message import HeadError
from nodeagent.settings import Limits
from nodeagent.stats.columns import REFUSALS

LIMITS = Limits()


def refusal(data: bytes, limits: Limits = LIMITS, response: bool = False) -> HeadError:
    with pytest.raises(HeadError) as raised:
        check_incomplete(data, limits, response)
    return raised.value


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x16\x03\x01", "TLS"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n", "line 2"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n", "line 2 is folded"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n", "before the colon in header line 1"),
        (b"GET / HTTP/1.1\n", "LF alone"),
        (b"GET / HTTP/1.1\rX", "CR without LF"),
        (b"GET / HTTP/3.0\r\n", "HTTP/1.0 and HTTP/1.1"),
        (b"GET /\r\n", "request line"),
    ],
)
def test_the_refusal_says_what_is_wrong_where(data: bytes, says: str) -> None:
    error = refusal(data)
    assert says in error.detail
    assert error.reason in REFUSALS


def test_the_first_bad_line_decides() -> None:
    lines = [b"GET / HTTP/1.1\r\n", b"A : b\r\n", b" c\r\n", b"\x00\r\n", b"d\n"]
    for end in range(2, len(lines) + 1):
        assert refusal(b"".join(lines[:end])).reason == "space_before_colon"
    assert refusal(b"GET / HTTP/9.9\r\nA: \x00\r\n").status == 505


@pytest.mark.parametrize(
    ("data", "waits"),
    [
        (b"H", True),
        (b"HTTP/1.1 200", True),
        (b"HTTP/1.1 200 OK\r", True),
        (b"HTTP/1.1 200 OK\r\nX: ", True),
        (b"h", False),
        (b"HTTX", False),
        (b"\r", False),
        (b"\r\n", False),
        (b"\x00", False),
        (b"HTTP/1.1 200 OK\n", False),
    ],
)
def test_responses_that_wait(data: bytes, waits: bool) -> None:
    if waits:
        check_incomplete(data, LIMITS, response=True)
    else:
        assert refusal(data, response=True).reason in REFUSALS


def test_a_line_that_never_ends_is_too_large() -> None:
    limits = Limits(head_bytes=100)
    starts = {b"G": 414, b"GET /": 414, b"GET / HTTP/1.1\r\nX": 431, b"GET / HTTP/1.1\r\nX: ": 431}
    for start, status in starts.items():
        check_incomplete(start + b"A" * (100 - len(start)), limits)
        assert refusal(start + b"A" * (101 - len(start)), limits).status == status


def test_fields_without_end_are_too_many() -> None:
    limits = Limits(head_fields=3)
    head = b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 3
    check_incomplete(head, limits)
    check_incomplete(head + b"\r", limits)
    assert refusal(head + b"a:\r\n", limits).status == 431


def test_the_size_of_a_whole_head() -> None:
    head = b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 3 + b"\r\n"
    data, size = b"before" + head + b"behind\n", len(head)
    check_size(data, 6, 6 + size, Limits(head_bytes=size, head_fields=3))
    for limits in (Limits(head_bytes=size - 1), Limits(head_fields=2)):
        with pytest.raises(HeadError) as raised:
            check_size(data, 6, 6 + size, limits)
        assert raised.value.status == 431


def test_a_head_that_is_not_measured_is_within_the_limits() -> None:
    smallest_line = b"a:\r\n"
    assert UNMEASURED // len(smallest_line) <= LIMITS.head_fields
    assert LIMITS.head_bytes >= UNMEASURED


def hostile_heads(size: int) -> list[bytes]:
    """Shapes that make careless expressions slow."""
    start = b"GET / HTTP/1.1\r\n"
    shapes = [
        (b"", b"A"),
        (b"", b"A "),
        (b"", b" HTTP/1."),
        (b"", b"\r\n"),
        (b"", b"HTTP/1.1 200 "),
        (b"GET ", b"/"),
        (b"GET ", b"http://"),
        (b"GET /", b" HTTP/1.1"),
        (b"GET /?", b"?"),
        (start, b"A"),
        (start, b"A:"),
        (start, b"A\t "),
        (start, b"A:\r\n"),
        (start, b"A: b\r\n"),
        (start, b"\r"),
        (start + b"A:", b" \t"),
        (start + b"A:", b" a"),
        (start + b"Host: a\r\n", b"Connection: a,b, ,\r\n"),
        (start + b"Host: a\r\n", b"X-Forwarded-For: a\r\n"),
        (start + b"Host: a\r\n", b"TE: trailers trailers\r\n"),
        (start + b"Host: a\r\nConnection: ", b"a,"),
        (start + b"Host: a\r\nConnection: ", b" "),
        (start + b"Host: ", b"a:"),
        (start + b"Content-Length: ", b"1"),
        (start + b"Content-Length: ", b" "),
        (start + b"Transfer-Encoding: ", b"chunked,"),
        (b"HTTP/1.1 200 ", b" OK"),
        (b"HTTP/1.1 200 OK\r\n", b"Connection: a, b\r\n"),
    ]
    return [begin + again * ((size - len(begin)) // len(again)) for begin, again in shapes]


def outcome(data: bytes, response: bool) -> str:
    try:
        matched = parse_response(data, to_head=False) if response else parse_request(data)
        if matched is None:
            check_incomplete(data, LIMITS, response)
    except HeadError as error:
        return error.reason
    return "accepted" if matched else "waits"


@pytest.mark.parametrize("tail", [b"", b"\r\n\r\n", b"\x00", b"\n"])
@pytest.mark.parametrize("response", [False, True])
def test_hostile_heads_have_an_end(tail: bytes, response: bool) -> None:
    """An expression that backtracks would not come back from 64 KiB within the time of a test."""
    for head in hostile_heads(64 * 1024):
        assert outcome(head + tail, response) in {*REFUSALS, "accepted", "waits"}
