"""Whatever we accept, h11 and llhttp must read as the same message.

The same method, target, fields, body, end and keep-alive decision, of the bytes that came and of those that
go on. A body that is not complete for us must not be complete for them, or what follows would be a request
that we have not seen.

`FUZZ_EXAMPLES=100000` runs so many examples of each test, others every time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Final, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nodeagent.compiled import is_compiled
from nodeagent.proxy.message import NO_BODY, RequestHead, ResponseHead
from tests.proxy.messages import CHUNK_BODIES, CUTS, REQUESTS, RESPONSES, mutated, random_wire
from tests.proxy.readers import (
    CLIENT,
    Driver,
    FieldList,
    Message,
    Reading,
    RequestDriver,
    ResponseDriver,
    Unreadable,
    drive,
    h11_request,
    h11_response,
    llhttp_request,
    llhttp_response,
    pieces,
)

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "400"))
MANY: Final = EXAMPLES * (9 if is_compiled() else 3)
"""Without hypothesis more can be tried, and compiled code has more ways to fail."""
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Exemption(NamedTuple):
    """Something valid that we accept and another parser reads otherwise."""

    parser: str
    about: Literal["refusal", "end", "keep_alive"]
    applies: Callable[[Message, str], bool]
    """Called with the message and with what the parser said of it."""
    reason: str


EXEMPTIONS: Final = (
    Exemption(
        "llhttp",
        "refusal",
        lambda message, complaint: complaint.startswith("HttpParserInvalidMethodError"),
        "RFC 9110 section 16.1.1 lets methods be extended; llhttp has a fixed list of them.",
    ),
    Exemption(
        "llhttp",
        "end",
        lambda message, _: message.head.length != NO_BODY and b"upgrade" in dict(message.original_fields),
        "A request with a body that asks for an upgrade (Java's HttpClient, curl --http2): llhttp ends it "
        "with its head. What goes on has no Upgrade, since we upgrade no request with a body.",
    ),
    Exemption(
        "h11",
        "keep_alive",
        lambda message, _: message.head.minor == b"0",
        "h11 closes after HTTP/1.0 whatever Connection says; what goes on is HTTP/1.1.",
    ),
    Exemption(
        "llhttp",
        "keep_alive",
        lambda message, _: message.head.minor == b"0" and not message.head.keep_alive,
        "HTTP/1.0 with both `close` and `keep-alive`: llhttp keeps it, we close (RFC 9112 section 9.3).",
    ),
    Exemption(
        "llhttp",
        "keep_alive",
        lambda message, _: b"proxy-connection" in dict(message.original_fields),
        "llhttp heeds Proxy-Connection, which is no field of HTTP (RFC 9112 appendix C.2.2); we remove it.",
    ),
)
"""All that we accept and they do not read the same. Anything else is a failure."""


# The comparison


def _exempt(parser: str, about: str, message: Message, complaint: str = "") -> bool:
    return any(
        exemption.parser == parser and exemption.about == about and exemption.applies(message, complaint)
        for exemption in EXEMPTIONS
    )


def _read(parser: str, reader: Callable[[bytes], Reading], data: bytes, message: Message) -> Reading | None:
    """Return what the parser makes of the data; None where it may refuse it."""
    try:
        return reader(data)
    except Unreadable as refusal:
        # Where we wait for more, they may know already that it will be refused.
        if message.complete and not _exempt(parser, "refusal", message, str(refusal)):
            raise AssertionError(f"{parser} refuses {data!r}: {refusal}") from refusal
        return None


def _compare_request(message: Message) -> None:
    for parser, reader in (("h11", h11_request), ("llhttp", llhttp_request)):
        _compare_original(parser, reader, message)
        _compare_forwarded(parser, reader, message)


def _compare_original(parser: str, reader: Callable[[bytes], Reading], message: Message) -> None:
    head = message.head
    assert isinstance(head, RequestHead)
    theirs = _read(parser, reader, message.original, message)
    if theirs is None:
        return
    context = (parser, message.original, theirs)
    assert theirs.start == (head.method, message.original.split(b" ", 2)[1]), context
    assert _comparable(theirs.fields) == _comparable(message.original_fields), context
    if theirs.keep_alive is not None and theirs.keep_alive != head.keep_alive:
        assert _exempt(parser, "keep_alive", message), context
    if not _exempt(parser, "end", message):
        _compare_body(parser, reader, message, message.original, theirs)


def _compare_forwarded(parser: str, reader: Callable[[bytes], Reading], message: Message) -> None:
    head = message.head
    assert isinstance(head, RequestHead)
    theirs = _read(parser, reader, message.forwarded, message)
    if theirs is None:
        return
    context = (parser, message.forwarded, theirs)
    assert theirs.start == (head.method, head.target), context
    assert _comparable(theirs.fields) == _comparable(_expected_fields(message)), context
    assert theirs.keep_alive is not False, context
    _compare_body(parser, reader, message, message.forwarded, theirs)


def _compare_body(
    parser: str, reader: Callable[[bytes], Reading], message: Message, data: bytes, theirs: Reading
) -> None:
    assert theirs.body == message.payload, (parser, data, theirs)
    assert theirs.complete == message.complete, (parser, data, theirs)
    if message.complete:
        early = reader(data[:-1])
        assert not early.complete, (parser, "ends earlier", data)


def _comparable(fields: FieldList) -> FieldList:
    """h11 returns the name of a transfer coding in lower case."""
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields]


def _end_to_end(fields: FieldList) -> FieldList:
    """The fields that should go on, found without the codec."""
    options = {o.strip().lower() for name, v in fields if name == b"connection" for o in v.split(b",")}
    options -= {b"host", b"content-length", b"transfer-encoding", b"cookie", b"te"}
    drop = options | {b"connection", b"keep-alive", b"proxy-connection", b"upgrade"}
    return [f for f in fields if f[0] not in drop and (f[0] != b"te" or f[1].lower() == b"trailers")]


def _expected_fields(message: Message) -> FieldList:
    """What an endpoint should see."""
    head = message.head
    assert isinstance(head, RequestHead)
    fields = message.original_fields
    dropped = {b"x-forwarded-for"} | ({b"expect"} if head.length == NO_BODY else set())
    kept = [field for field in _end_to_end(fields) if field[0] not in dropped]
    if b"host" not in dict(fields):
        authority = message.original.split(b" ")[1].partition(b"://")[2]
        kept.insert(0, (b"host", authority.replace(b"?", b"/").partition(b"/")[0]))
    forwarded = b", ".join(v for name, v in fields if name == b"x-forwarded-for" and v)
    kept.append((b"x-forwarded-for", forwarded + b", " + CLIENT if forwarded else CLIENT))
    if head.upgrade:
        upgrade = b", ".join(v for name, v in fields if name == b"upgrade")
        kept += [(b"connection", b"upgrade"), (b"upgrade", upgrade)]
    return kept


def _expected_response_fields(message: Message) -> FieldList:
    """What a client should see."""
    fields = _end_to_end(message.original_fields)
    if isinstance(message.head, ResponseHead) and (message.head.status < 200 or message.head.status == 204):
        return [field for field in fields if field[0] not in (b"content-length", b"transfer-encoding")]
    return fields


def _compare_response(message: Message, to_head: bool) -> None:
    head = message.head
    assert isinstance(head, ResponseHead)
    readers: dict[str, Callable[[bytes], Reading]] = {"h11": lambda data: h11_response(data, to_head)}
    if not to_head:
        readers["llhttp"] = llhttp_response
    for parser, reader in readers.items():
        original = _compare_bytes(parser, reader, message, message.original, message.original_fields)
        if original is not None and head.status >= 200 and original.keep_alive not in (None, head.keep_alive):
            assert _exempt(parser, "keep_alive", message), (parser, message.original)
        _compare_bytes(parser, reader, message, message.forwarded, _expected_response_fields(message))


def _compare_bytes(
    parser: str, reader: Callable[[bytes], Reading], message: Message, data: bytes, fields: FieldList
) -> Reading | None:
    head = message.head
    assert isinstance(head, ResponseHead)
    theirs = _read(parser, reader, data, message)
    if theirs is not None:
        assert theirs.start == (b"%d" % head.status,), (parser, data, theirs)
        assert _comparable(theirs.fields) == _comparable(fields), (parser, data, theirs)
        assert theirs.body == message.payload, (parser, data, theirs)
        assert theirs.complete == message.complete, (parser, data, theirs)
    return theirs


def _check(
    make: Callable[[], Driver], compare: Callable[[Message], None], wire: bytes, cuts: list[int]
) -> None:
    """Feed the bytes whole, cut and one by one; compare what was accepted with the others' reading."""
    if not wire.endswith(b"\n"):
        wire += b"\r\n"  # a line is judged when it ends, so the last one has to
    whole = drive(make(), [wire])
    cut = drive(make(), pieces(wire, cuts))
    single = drive(make(), pieces(wire, list(range(len(wire)))))
    assert cut.outcome == whole.outcome, (wire, cuts)
    assert single.outcome == whole.outcome, wire
    # Of a body that is refused, fed byte by byte, all that was right has gone on.
    for message in single.messages:
        compare(message)


@fuzz
@given(wire=REQUESTS, cuts=CUTS)
@example(wire=b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", cuts=[1])
@example(wire=b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc", cuts=[])
@example(wire=b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", cuts=[])
def test_requests_are_read_as_h11_and_llhttp_read_them(wire: bytes, cuts: list[int]) -> None:
    _check(RequestDriver, _compare_request, wire, cuts)


@fuzz
@given(wire=RESPONSES, cuts=CUTS, to_head=st.sampled_from((False, False, False, True)))
@example(wire=b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", cuts=[], to_head=False)
def test_responses_are_read_as_h11_and_llhttp_read_them(wire: bytes, cuts: list[int], to_head: bool) -> None:
    _check(partial(ResponseDriver, to_head), partial(_compare_response, to_head=to_head), wire, cuts)


@pytest.mark.parametrize("to_head", [None, False, True])
def test_many_more_messages(to_head: bool | None) -> None:
    """Without hypothesis ten times as many can be tried; `to_head` is None for requests."""
    random = Random(f"{to_head}{datetime.now(UTC) if 'FUZZ_EXAMPLES' in os.environ else ''}")
    for _ in range(MANY):
        wire = random_wire(random, request=to_head is None)
        cuts = random.sample(range(len(wire) + 1), random.randint(0, min(5, len(wire))))
        if to_head is None:
            _check(RequestDriver, _compare_request, wire, cuts)
        else:
            _check(partial(ResponseDriver, to_head), partial(_compare_response, to_head=to_head), wire, cuts)


@fuzz
@given(body=st.sampled_from(CHUNK_BODIES).flatmap(mutated), cuts=CUTS)
def test_chunked_bodies_end_where_h11_and_llhttp_end_them(body: bytes, cuts: list[int]) -> None:
    wire = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    _check(RequestDriver, _compare_request, wire, cuts)


@fuzz
@given(
    data=st.binary(max_size=60),
    before=st.sampled_from((b"", b"GET ", b"GET / HTTP/1.1\r\nHost: a\r\n", b"\x16\x03\x01")),
)
def test_random_bytes_are_refused_or_wait_for_more(data: bytes, before: bytes) -> None:
    _check(RequestDriver, _compare_request, before + data, [])


CHUNKED_UPGRADE: Final = b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("wire", "parser"),
    [
        (b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", llhttp_request),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + CHUNKED_UPGRADE, llhttp_request),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", h11_request),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", llhttp_request),
        (b"GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: close\r\n\r\n", llhttp_request),
    ],
)
def test_what_is_exempt_is_still_read_otherwise(wire: bytes, parser: Callable[[bytes], Reading]) -> None:
    """An exemption that the other parser no longer needs has to go."""
    (message,) = drive(RequestDriver(), [wire]).messages
    assert message.complete
    try:
        theirs = parser(wire)
        ended_early = parser(wire[:-1]).complete
    except Unreadable:
        return
    assert ended_early or theirs.keep_alive is not message.head.keep_alive


def test_most_generated_messages_reach_the_comparison() -> None:
    """The fuzzing is worth something only if a good part of it is accepted."""
    accepted = 0

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(wire=REQUESTS)
    def count(wire: bytes) -> None:
        nonlocal accepted
        accepted += bool(drive(RequestDriver(), [wire]).messages)

    count()
    assert accepted > 40
