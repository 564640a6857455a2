"""Attempts at smuggling as bytes of HTTP/2: the corpus of tests/http2, and what only frames can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from tests.http2.blocks import FieldList, plain, request_of
from tests.http2.corpus import HEADS, PASSED, REFUSED, SECOND, TRAILERS
from tests.interop.raw import data, headers

Write = Callable[[bytes], bytes]
Outcome = Literal["never", "cut", "once"]
"""What an endpoint may see of it: nothing; a request that it is told is not whole; one request."""


class Attempt(msgspec.Struct, frozen=True):
    """Frames of stream 1, whose head has the field `x-marker` with the value that `write` is given."""

    name: str
    write: Write
    outcome: Outcome
    asks: str = ""
    """Method and target, where a request may come of it."""
    answered: bool = True
    """Whether the client leaves the stream open, so that it is answered."""


def all_attempts() -> list[Attempt]:
    """Return every one of them."""
    return [*_heads(), *_bodies(), *_trailers(), *_passed()]


def _marked(fields: FieldList, marker: bytes) -> FieldList:
    return [*fields, (b"x-marker", marker)]


def _heads() -> list[Attempt]:
    """Heads that are not a request; those with a body are followed by a second request."""
    refused = dict(REFUSED)
    for name, texts in HEADS.items():
        fields = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in texts]
        refused[f"{name} (text)"] = (fields, False)

    def writer(fields: FieldList, end: bool) -> Write:
        def write(marker: bytes) -> bytes:
            body = b"" if end else data(1, b"0\r\n\r\n" + SECOND, end=True)
            return headers(1, _marked(fields, marker), end) + body

        return write

    return [Attempt(name, writer(fields, end), "never") for name, (fields, end) in refused.items()]


def _bodies() -> list[Attempt]:
    """H2.CL and its kin: bodies that are not what their head says, and frames where none may be."""

    def writer(length: int | None, *frames: bytes) -> Write:
        said = [(b"content-length", b"%d" % length)] if length is not None else []

        def write(marker: bytes) -> bytes:
            return headers(1, _marked(request_of(b"POST", b"/post", *said), marker), False) + b"".join(frames)

        return write

    second = plain(request_of())
    cases = {
        "H2.CL: 0, and a second request": writer(0, data(1, SECOND, end=True)),
        "H2.CL: 0, and a second request in a later frame": writer(0, data(1, b""), data(1, SECOND, end=True)),
        "H2.CL: too short": writer(3, data(1, b"abc" + SECOND, end=True)),
        "H2.CL: too short, in pieces": writer(3, data(1, b"abc"), data(1, SECOND), data(1, b"", end=True)),
        "H2.CL: too short, the end is not said": writer(3, data(1, b"abc"), data(1, SECOND)),
        "H2.CL: too long": writer(9, data(1, b"abc", end=True)),
        "H2.CL: too long, with trailers": writer(9, data(1, b"abc"), headers(1, [(b"x", b"y")], True)),
        "H2.CL: too long, and the next request fills it": writer(
            len(SECOND) + 3, data(1, b"abc", end=True), data(1, SECOND, end=True)
        ),
        "a head within a body": writer(None, data(1, b"abc"), headers(1, request_of(), False)),
        "a second request on the same stream": writer(None, data(1, b"abc"), headers(1, request_of(), True)),
        "padding longer than its frame": writer(None, b"\0\0\4\0\x08\0\0\0\1\xffabc"),
        "DATA between HEADERS and CONTINUATION": writer(
            None,
            b"\0\0%c\1\0\0\0\0\3" % len(second) + second,
            data(1, b"x", end=True),
            b"\0\0\0\x09\4\0\0\0\3",
        ),
    }
    broken_off = writer(99, data(1, SECOND), b"\0\0\4\3\0\0\0\0\1\0\0\0\x08")
    return [
        *(Attempt(name, write, "cut", "POST /post") for name, write in cases.items()),
        Attempt("a reset in the middle", broken_off, "cut", "POST /post", answered=False),
    ]


def _trailers() -> list[Attempt]:
    """Trailers that would be a head, of an endpoint that is sent trailers."""

    def writer(fields: FieldList, end: bool) -> Write:
        def write(marker: bytes) -> bytes:
            asked = _marked(request_of(b"POST", b"/post", (b"te", b"trailers")), marker)
            return headers(1, asked, False) + data(1, b"abc") + headers(1, fields, end)

        return write

    cases = {
        name: [(key.encode(), value.encode()) for key, value in texts] for name, texts in TRAILERS.items()
    }
    found = [Attempt(f"trailers: {n}", writer(f, True), "cut", "POST /post") for n, f in cases.items()]
    fine = [(b"x-sum", b"1"), (b"x-time", b"2")]
    found.append(Attempt("trailers that do not end", writer(fine, False), "cut", "POST /post"))
    found.append(Attempt("good trailers", writer(fine, True), "once", "POST /post"))
    return found


def _passed() -> list[Attempt]:
    """What is one request, however much it looks like two; each also cut into CONTINUATION frames."""

    def writer(fields: FieldList, end: bool, body: bytes, pieces: bool) -> Write:
        def write(marker: bytes) -> bytes:
            marked = _marked(fields, marker)
            size = len(plain(marked))
            cuts = range(1, size, size // 20) if pieces else ()
            half = len(body) // 2
            rest = b"" if end else data(1, body[:half], padding=SECOND) + data(1, body[half:], end=True)
            return headers(1, marked, end, cuts) + rest

        return write

    found = []
    for name, (fields, end, body) in PASSED.items():
        pseudo = dict(fields)
        asks = f"{pseudo[b':method'].decode()} {pseudo[b':path'].decode()}"
        for pieces in (False, True):
            title = f"{name}, in pieces" if pieces else name
            found.append(Attempt(title, writer(fields, end, body, pieces), "once", asks))
    return found
