"""Header blocks as heads: what is refused and for which reason, and what the others become."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hpack
import pytest

from nodeagent.proxy.http2.headers import CompressionFault, HeaderDecoder, Shared, StreamFault
from nodeagent.proxy.message import NO_BODY, UNTIL_CLOSE, ResponseHead
from nodeagent.proxy.websocket import WebSocketHead
from nodeagent.settings import Limits
from nodeagent.stats.columns import REFUSALS
from tests.http2.blocks import GET, FieldList, decoder, encode, never_indexed, plain, request_of, value_of

POST = request_of(b"POST")
LENGTH, LENGTH_LINE = (b"content-length", b"3"), b"content-length: 3\r\n"


def without(name: bytes, fields: FieldList = GET) -> FieldList:
    return [field for field in fields if field[0] != name]


def outcome(headers: HeaderDecoder, block: bytes, end: bool) -> tuple[Any, ...]:
    try:
        return value_of(headers.request(block, end))
    except StreamFault as fault:
        return (fault.reason, fault.status, fault.detail)


def in_every_way(fields: FieldList, end: bool) -> tuple[Any, ...]:
    """Read a head cold and remembered, indexed and not, coded and not; it is always the same."""
    wanted = outcome(decoder(), plain(fields), end)
    for block in (encode(fields), hpack.Encoder().encode(fields, huffman=False), plain(fields)):
        shared = Shared()
        for _ in range(4):
            headers = HeaderDecoder(Limits(), 4096, shared)
            assert outcome(headers, block, end) == wanted
            assert outcome(headers, plain(GET), True)[0] == b"GET"
    encoder, headers = hpack.Encoder(), decoder()
    for _ in range(4):
        assert outcome(headers, encode(fields, encoder), end) == wanted
    return wanted


WEBSOCKET = (b":protocol", b"websocket")
NAMES = (
    b"X",
    b"X-a",
    b"x a",
    b"x\ta",
    b"x:",
    b"",
    b"x\x00",
    b"x\r\ny",
    b"x\xe9",
    b'"x"',
    b"x\x7f",
    b"x(",
    b" x",
    b"x ",
)
VALUES = {
    b"a\x00b": "control_byte",
    b"a\x01b": "control_byte",
    b"a\x0bb": "control_byte",
    b"a\x7f": "control_byte",
    b"a\rb": "bare_cr",
    b"\r": "bare_cr",
    b"a\r\nb: c": "bare_cr",
    b"a\nb": "bare_lf",
    b"a\n": "bare_lf",
    b" a": "malformed_field",
    b"a ": "malformed_field",
    b"\ta": "malformed_field",
    b"a\t": "malformed_field",
    b" ": "malformed_field",
}
BAD_AUTHORITIES = (
    b"", b"a b", b"a/b", b"u@a", b"a:x", b"a\r\nx: y", b"a,b c", b"[::1", b":80", b"a?b", b"a#b", b"\xe9",
)  # fmt: skip
BAD_LENGTHS = (
    b"", b"+3", b"-3", b"3, 3", b"0x3", b"1_0", b"1 0", b"3.0", b"\xb2", b"\xa03", b"9" * 40,
)  # fmt: skip
REFUSED: dict[str, tuple[FieldList, str]] = {
    **{f"name {name!r}": ([*GET, (name, b"y")], "malformed_field") for name in NAMES},
    **{f"value {value!r}": ([*GET, (b"x", value)], reason) for value, reason in VALUES.items()},
    **{f"cookie {value!r}": ([*GET, (b"cookie", value)], reason) for value, reason in VALUES.items()},
    # connection
    **{
        f"{name}": ([*GET, (name.encode(), value)], "connection_field")
        for name, value in (
            ("connection", b"close"),
            ("connection", b""),
            ("proxy-connection", b"keep-alive"),
            ("keep-alive", b"timeout=5"),
            ("upgrade", b"websocket"),
            ("te", b"gzip"),
        )
    },
    "te with more": ([*GET, (b"te", b"trailers, gzip")], "connection_field"),
    "te with a weight": ([*GET, (b"te", b"trailers;q=1")], "connection_field"),
    "empty te": ([*GET, (b"te", b"")], "connection_field"),
    "transfer-encoding": ([*POST, (b"transfer-encoding", b"chunked")], "transfer_encoding"),
    "another transfer-encoding": ([*POST, (b"transfer-encoding", b"identity")], "transfer_encoding"),
    "no transfer-encoding": ([*POST, (b"transfer-encoding", b"")], "transfer_encoding"),
    "transfer_encoding": ([*POST, (b"transfer_encoding", b"chunked")], "malformed_field"),
    "content_length": ([*POST, (b"content_length", b"3")], "malformed_field"),
    # pseudo-header fields
    "nothing": ([], "pseudo_field"),
    "no method": (without(b":method"), "pseudo_field"),
    "no scheme": (without(b":scheme"), "pseudo_field"),
    "no path": (without(b":path"), "pseudo_field"),
    "method twice": ([(b":method", b"GET"), *GET], "pseudo_field"),
    "two methods": ([(b":method", b"OPTIONS"), *GET], "pseudo_field"),
    "path twice": ([(b":path", b"/"), *GET], "pseudo_field"),
    "path and asterisk": ([(b":path", b"*"), *GET], "pseudo_field"),
    "scheme twice": ([(b":scheme", b"http"), *GET], "pseudo_field"),
    "authority twice": ([(b":authority", b"a"), *GET], "pseudo_field"),
    "behind others": ([*without(b":path"), (b"x", b"y"), (b":path", b"/")], "pseudo_field"),
    "a response's": ([*GET, (b":status", b"200")], "pseudo_field"),
    "unknown": ([*GET, (b":x", b"y")], "pseudo_field"),
    "without a name": ([*GET, (b":", b"y")], "pseudo_field"),
    "in capitals": ([*without(b":path"), (b":Path", b"/")], "pseudo_field"),
    "protocol without CONNECT": ([*GET, WEBSOCKET], "connect"),
    "another protocol without CONNECT": ([*GET, (b":protocol", b"connect-udp")], "connect"),
    # method
    "lower-case method": (request_of(b"get"), "malformed_line"),
    "empty method": (request_of(b""), "malformed_line"),
    "method with a space": (request_of(b"GET /x HTTP/1.1\r\n"), "malformed_line"),
    "method with a line feed": (request_of(b"GET\n"), "malformed_line"),
    "CONNECT": ([(b":method", b"CONNECT"), (b":authority", b"a:80")], "connect"),
    "CONNECT with a path": (request_of(b"CONNECT"), "connect"),
    "another protocol": ([*request_of(b"CONNECT"), (b":protocol", b"connect-udp")], "connect"),
    "protocol in capitals": ([*request_of(b"CONNECT"), (b":protocol", b"WebSocket")], "connect"),
    "empty protocol": ([*request_of(b"CONNECT"), (b":protocol", b"")], "connect"),
    "CONNECT without a path": (
        [(b":method", b"CONNECT"), (b":scheme", b"http"), (b":authority", b"a"), WEBSOCKET],
        "connect",
    ),
    "CONNECT without a scheme": (
        [(b":method", b"CONNECT"), (b":path", b"/"), (b":authority", b"a"), WEBSOCKET],
        "connect",
    ),
    "CONNECT to *": ([*request_of(b"CONNECT", b"*"), WEBSOCKET], "connect"),
    "CONNECT without an authority": (
        [(b":method", b"CONNECT"), (b":scheme", b"http"), (b":path", b"/"), WEBSOCKET],
        "host",
    ),
    "protocol twice": ([*request_of(b"CONNECT"), WEBSOCKET, WEBSOCKET], "pseudo_field"),
    "protocol behind others": ([*request_of(b"CONNECT"), (b"x", b"y"), WEBSOCKET], "pseudo_field"),
    "CONNECT with a length": ([*request_of(b"CONNECT"), WEBSOCKET, LENGTH], "content_length"),
    "CONNECT with no length": (
        [*request_of(b"CONNECT"), WEBSOCKET, (b"content-length", b"0")],
        "content_length",
    ),
    # path
    **{
        f"path {path!r}": (request_of(b"GET", path), "target")
        for path in (
            b"",
            b"*",
            b"a",
            b"a/b",
            b"?a",
            b"http://a/",
            b"a:80",
            b"/a b",
            b"/ HTTP/1.1\r\nX: y",
            b"/\r\n",
            b"/\x00",
            b"/a#b",
            b"/a\\b",
            b"/\xff",
            b"/\t",
            b" /",
            b"/ ",
            b"**",
            b"*/",
        )
    },
    "* without OPTIONS": (request_of(b"POST", b"*"), "target"),
    "another scheme": ([(b":scheme", b"ftp"), *without(b":scheme")], "target"),
    "empty scheme": ([(b":scheme", b""), *without(b":scheme")], "target"),
    "scheme with a path": ([(b":scheme", b"http://a/"), *without(b":scheme")], "target"),
    # authority
    **{
        f"authority {value!r}": ([(b":authority", value), *without(b":authority")], "host")
        for value in BAD_AUTHORITIES
    },
    "no authority": (without(b":authority"), "host"),
    "host differs": ([*GET, (b"host", b"b")], "host"),
    "the port differs": ([*GET, (b"host", b"a:80")], "host"),
    "host twice": ([*without(b":authority"), (b"host", b"a"), (b"host", b"a")], "host"),
    "authority, and host twice": ([*GET, (b"host", b"a"), (b"host", b"a")], "host"),
    "empty host": ([*without(b":authority"), (b"host", b"")], "host"),
    "bad host": ([*without(b":authority"), (b"host", b"a/b")], "host"),
    "user in host": ([*without(b":authority"), (b"host", b"u@a")], "host"),
    # length
    **{f"length {value!r}": ([*POST, (b"content-length", value)], "content_length") for value in BAD_LENGTHS},
    "length twice": ([*POST, LENGTH, LENGTH], "content_length"),
    "two lengths": ([*POST, LENGTH, (b"content-length", b"5")], "content_length"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("end", [True, False])
def test_refused(name: str, end: bool) -> None:
    fields, reason = REFUSED[name]
    found = in_every_way(fields, end)
    assert found[0] == reason
    assert found[1] == (501 if reason == "connect" else 400)
    assert reason in REFUSALS


@pytest.mark.parametrize("length", [b"1", b"003"])
def test_a_length_where_the_stream_has_ended(length: bytes) -> None:
    fields = [*POST, (b"content-length", length)]
    assert in_every_way(fields, True)[0] == "content_length"
    assert in_every_way(fields, False)[4] == int(length)


HOST = b"Host: a\r\n"
ACCEPTED: dict[str, tuple[FieldList, bool, dict[str, Any]]] = {
    "least": (GET, True, {"method": b"GET", "target": b"/", "fields": HOST, "length": NO_BODY}),
    "other order": (GET[::-1], True, {"method": b"GET", "target": b"/", "fields": HOST}),
    "https": ([(b":scheme", b"https"), *without(b":scheme")], True, {"fields": HOST}),
    "an extension's method": (request_of(b"M-SEARCH"), True, {"method": b"M-SEARCH"}),
    "OPTIONS *": (request_of(b"OPTIONS", b"*"), True, {"target": b"*"}),
    "OPTIONS of a path": (request_of(b"OPTIONS", b"/x"), True, {"target": b"/x"}),
    "query": (request_of(b"GET", b"/?a=\\b?c"), True, {"target": b"/?a=\\b?c"}),
    "two slashes": (request_of(b"GET", b"//a"), True, {"target": b"//a"}),
    "IPv6": (
        [(b":authority", b"[::1]:80"), *without(b":authority")],
        True,
        {"fields": b"Host: [::1]:80\r\n"},
    ),
    "host only": (
        [*without(b":authority"), (b"x", b"y"), (b"host", b"a")],
        True,
        {"fields": b"host: a\r\nx: y\r\n"},
    ),
    "host as well": ([*GET, (b"x", b"y"), (b"host", b"A")], True, {"fields": HOST + b"x: y\r\n"}),
    "order is kept": (
        [*GET, (b"b", b"1"), (b"a", b"2"), (b"b", b"3")],
        True,
        {"fields": HOST + b"b: 1\r\na: 2\r\nb: 3\r\n"},
    ),
    "empty value": ([*GET, (b"x", b"")], True, {"fields": HOST + b"x:\r\n"}),
    "tab and obs-text": ([*GET, (b"x", b"a\tb\xff")], True, {"fields": HOST + b"x: a\tb\xff\r\n"}),
    "every token character": (
        [*GET, (b"!#$%&'*+-.^_`|~09az", b"y")],
        True,
        {"fields": HOST + b"!#$%&'*+-.^_`|~09az: y\r\n"},
    ),
    "trailers": (
        [*GET, (b"te", b"trailers")],
        True,
        {"fields": HOST + b"te: trailers\r\n", "trailers": True},
    ),
    "Trailers": ([*GET, (b"te", b"Trailers")], True, {"trailers": True}),
    "forwarded": (
        [
            *GET,
            (b"x-forwarded-for", b"1.2.3.4"),
            (b"x", b"y"),
            (b"x-forwarded-for", b""),
            (b"x-forwarded-for", b"b, c"),
        ],
        True,
        {"fields": HOST + b"x: y\r\n", "forwarded_for": b"1.2.3.4, b, c"},
    ),
    "cookie": (
        [*GET, (b"cookie", b"a=b"), (b"x", b"y")],
        True,
        {"fields": HOST + b"cookie: a=b\r\nx: y\r\n"},
    ),
    "crumbs": (
        [*GET, (b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c=d"), (b"cookie", b"e")],
        True,
        {"fields": HOST + b"x: y\r\ncookie: a=b; c=d; e\r\n"},
    ),
    "length": ([*POST, LENGTH], False, {"fields": HOST + LENGTH_LINE, "length": 3}),
    "length 0": (
        [*POST, (b"content-length", b"0")],
        False,
        {"fields": HOST + b"content-length: 0\r\n", "length": 0},
    ),
    "length 0 and the end": ([*GET, (b"content-length", b"0")], True, {"length": 0}),
    "no length": (POST, False, {"fields": HOST, "length": UNTIL_CLOSE}),
    "no length of a GET": (GET, False, {"fields": HOST, "length": UNTIL_CLOSE}),
    "no body of a POST": (POST, True, {"fields": HOST + b"content-length: 0\r\n", "length": NO_BODY}),
    "no body of a DELETE": (request_of(b"DELETE"), True, {"fields": HOST, "length": NO_BODY}),
    "expect": ([*POST, (b"expect", b"100-continue")], False, {"fields": HOST + b"expect: 100-continue\r\n"}),
    "expect with nothing to wait with": (
        [*GET, (b"expect", b"100-continue"), (b"x", b"y")],
        True,
        {"fields": HOST + b"x: y\r\n"},
    ),
    "expect of a length 0": (
        [*POST, (b"expect", b"100-continue"), (b"content-length", b"0")],
        False,
        {"fields": HOST + b"content-length: 0\r\n"},
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    fields, end, wanted = ACCEPTED[name]
    in_every_way(fields, end)
    head = decoder().request(encode(fields), end)
    for attribute, value in wanted.items():
        assert getattr(head, attribute) == value, attribute
    assert (head.minor, head.keep_alive, head.upgrade) == (b"1", True, b"")


def test_a_websocket_is_an_upgrade() -> None:
    """RFC 8441; a key means nothing there."""
    fields = [
        *request_of(b"CONNECT", b"/chat?a=b"),
        WEBSOCKET,
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"x"),
        (b"sec-websocket-accept", b"y"),
        (b"x-forwarded-for", b"10.0.0.1"),
        (b"cookie", b"a=1"),
        (b"expect", b"100-continue"),
        (b"cookie", b"b=2"),
    ]
    in_every_way(fields, False)
    head = decoder().request(encode(fields), False)
    assert (head.method, head.target, head.upgrade) == (b"GET", b"/chat?a=b", b"websocket")
    assert head.fields == b"Host: a\r\nsec-websocket-version: 13\r\ncookie: a=1; b=2\r\n"
    assert (head.length, head.forwarded_for, head.trailers) == (NO_BODY, b"10.0.0.1", False)
    assert isinstance(head, WebSocketHead)


def test_a_websocket_that_ends_with_its_head() -> None:
    found = in_every_way([*request_of(b"CONNECT"), WEBSOCKET], True)
    assert found[:2] == ("connect", 400)


def test_heads_are_not_shared() -> None:
    """Layers change them."""
    headers = decoder()
    block = plain(GET)
    for _ in range(4):
        head = headers.request(block, True)
        assert head.fields == HOST
        head.fields += b"x: y\r\n"


def test_what_must_never_be_indexed_is_told_by_its_line() -> None:
    fields = [*GET, never_indexed(b"x", b"y"), never_indexed(b"cookie", b"a"), (b"cookie", b"b")]
    for _ in range(4):
        assert decoder().request(encode(fields), True).fields == HOST + b"x:y\r\ncookie:a; b\r\n"


@pytest.mark.parametrize(
    "field", [(b"x" * 5000, b"a\rb"), (b"x" * 5000, b"\x00"), (b"X" * 5000, b""), (b"\xff" * 5000, b"")]
)
def test_what_is_said_of_a_field_is_short(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(StreamFault) as fault:
        decoder().request(encode([*GET, field]), True)
    assert len(fault.value.detail) < 400
    assert fault.value.detail.isprintable()


# Size


def test_too_many_fields() -> None:
    limits = Limits(head_fields=10)
    most = [*GET, *((b"x", b"y"),) * 10]
    assert decoder(limits).request(encode(most), True).fields.count(b"\n") == 11
    with pytest.raises(StreamFault) as fault:
        decoder(limits).request(encode([*most, (b"x", b"y")]), True)
    assert (fault.value.reason, fault.value.status) == ("head_too_large", 431)


def test_crumbs_of_a_cookie_are_one_field() -> None:
    limits = Limits(head_fields=3)
    crumbs = ((b"cookie", b"a=b"),) * 100
    assert decoder(limits).request(encode([*GET, *crumbs, (b"x", b"y"), (b"x", b"y")]), True).method == b"GET"
    with pytest.raises(StreamFault) as fault:
        decoder(limits).request(encode([*GET, *crumbs, *((b"x", b"y"),) * 3]), True)
    assert fault.value.reason == "head_too_large"


def test_a_list_is_measured_as_rfc_9113_does() -> None:
    fields = [*GET, (b"x", b"y" * 100)]
    size = sum(len(name) + len(value) + 32 for name, value in fields)
    for _ in range(2):
        assert decoder(Limits(head_bytes=size)).request(encode(fields), True).method == b"GET"
        with pytest.raises(StreamFault) as fault:
            decoder(Limits(head_bytes=size - 1)).request(encode(fields), True)
        assert fault.value.status == 431


def test_a_small_bomb_is_refused_and_the_connection_goes_on() -> None:
    encoder, headers = hpack.Encoder(), decoder()
    headers.skip(encode([(b"x", b"y" * 4000)], encoder))
    with pytest.raises(StreamFault) as fault:
        headers.request(encode(GET) + b"\xbf" * 30, True)
    assert fault.value.reason == "head_too_large"
    assert headers.request(plain(GET) + b"\xbf", True).fields == HOST + b"x: " + b"y" * 4000 + b"\r\n"


# The table, whatever becomes of the message


@pytest.mark.parametrize("name", ["in capitals", "CONNECT", "host differs", "connection", "value b'a\\rb'"])
def test_a_refused_head_still_changes_the_table(name: str) -> None:
    headers, encoder = decoder(), hpack.Encoder()
    with pytest.raises(StreamFault):
        headers.request(encode([*REFUSED[name][0], (b"x-new", b"1")], encoder), True)
    assert headers.request(encode([*GET, (b"x-new", b"1")], encoder), True).fields == HOST + b"x-new: 1\r\n"


def test_a_bad_field_in_the_table_is_refused_again() -> None:
    headers, encoder = decoder(), hpack.Encoder()
    for _ in range(4):
        with pytest.raises(StreamFault):
            headers.request(encode([*GET, (b"x-bad", b"a\nb")], encoder), True)


def test_what_is_skipped_still_changes_the_table() -> None:
    headers, encoder = decoder(), hpack.Encoder()
    headers.skip(encode([*GET, (b"x-new", b"1")], encoder))
    assert headers.request(encode([*GET, (b"x-new", b"1")], encoder), True).fields == HOST + b"x-new: 1\r\n"
    with pytest.raises(CompressionFault):
        headers.skip(b"\x80")


def test_a_remembered_block_still_changes_the_table() -> None:
    shared = Shared()
    for _ in range(4):
        headers, encoder = HeaderDecoder(Limits(), 4096, shared), hpack.Encoder()
        headers.request(encode([*GET, (b"x-new", b"1")], encoder), True)
        again = encode([*GET, (b"x-new", b"1")], encoder)
        assert headers.request(again, True).fields == HOST + b"x-new: 1\r\n"
    assert shared.blocks.young


def test_a_remembered_block_that_refers_to_the_table_is_forgotten_when_it_changes() -> None:
    headers = decoder()
    newest = plain(GET) + b"\xbe"
    for number in range(6):
        block = b"\x40\x01x\x01%d" % number
        headers.skip(block)
        for _ in range(4):
            assert headers.request(newest, True).fields == HOST + b"x: %d\r\n" % number


def test_and_when_a_remembered_block_changes_it() -> None:
    headers = decoder()
    newest, adding = plain(GET) + b"\xbe", [plain(GET) + b"\x40\x01x\x01%d" % number for number in range(2)]
    for turn in range(8):
        headers.request(adding[turn % 2], True)
        for _ in range(3):
            assert headers.request(newest, True).fields == HOST + b"x: %d\r\n" % (turn % 2)


def test_a_block_that_refers_to_what_it_moves_is_read_every_time() -> None:
    headers = decoder()
    headers.skip(b"\x40\x01p\x01p\x40\x01q\x01q")
    block = plain(GET) + b"\xbf\x40\x01x\x01x"
    found = [headers.request(block, True).fields for _ in range(5)]
    assert found == [HOST + line + b"x: x\r\n" for line in (b"p: p\r\n", b"q: q\r\n", *[b"x: x\r\n"] * 3)]


def test_a_name_from_the_table_is_its_own_connections() -> None:
    shared = Shared()
    block = plain(GET) + b"\x0f\x2f\x01v"
    for name in (b"p", b"q"):
        headers = HeaderDecoder(Limits(), 4096, shared)
        headers.skip(b"\x40\x01" + name + b"\x01x")
        for _ in range(4):
            assert headers.request(block, True).fields == HOST + name + b": v\r\n"


def test_and_when_the_table_is_resized() -> None:
    headers = decoder()
    headers.skip(b"\x40\x01x\x01y")
    newest = plain(GET) + b"\xbe"
    for _ in range(4):
        assert headers.request(newest, True).fields == HOST + b"x: y\r\n"
    for _ in range(4):
        headers.request(b"\x20" + plain(GET), True)
        with pytest.raises(CompressionFault):
            headers.request(newest, True)


class TestAnotherPath:
    """A request's block that is like one before it, except its path."""

    BEFORE, AFTER = b"\x82\x86\x41\x01a", plain([(b"x", b"y")])
    INDEXED = b"\x82\x86\xbe"

    def block(self, path: bytes, before: bytes = INDEXED, after: bytes = AFTER) -> bytes:
        return before + b"\x04" + bytes([len(path)]) + path + after

    @pytest.fixture
    def headers(self) -> HeaderDecoder:
        """A decoder with an authority in its table, that has seen such requests."""
        headers = decoder()
        headers.request(self.block(b"/", before=self.BEFORE), True)
        for number in range(4):
            head = headers.request(self.block(b"/%d" % number), True)
            assert (head.target, head.fields) == (b"/%d" % number, HOST + b"x: y\r\n")
        assert len(headers._own_pathless.young) == 1
        return headers

    @pytest.mark.parametrize("path", [b"", b"*", b"a", b"/a b", b"/\r\n", b"/#", b"http://a/"])
    def test_a_bad_one_is_refused(self, headers: HeaderDecoder, path: bytes) -> None:
        for end in (True, False):
            with pytest.raises(StreamFault) as fault:
                headers.request(self.block(path), end)
            assert fault.value.reason == "target"

    def test_one_that_ends_and_one_that_does_not_are_two(self, headers: HeaderDecoder) -> None:
        for number in range(4):
            assert headers.request(self.block(b"/a%d" % number), True).length == NO_BODY
            assert headers.request(self.block(b"/b%d" % number), False).length == UNTIL_CLOSE

    def test_coded(self, headers: HeaderDecoder) -> None:
        coded = self.INDEXED + bytes.fromhex("04896103a6ba0ac5634cff") + self.AFTER
        assert headers.request(coded, True).target == b"/sample/path"
        with pytest.raises(CompressionFault):
            headers.request(coded.replace(b"\xff", b"\xfe"), True)

    def test_cut_short(self, headers: HeaderDecoder) -> None:
        with pytest.raises(CompressionFault):
            headers.request(self.block(b"/abc")[:7], True)
        for number in range(4):
            headers.request(self.block(b"/%d" % number, after=b""), True)
        with pytest.raises(CompressionFault):
            headers.request(self.block(b"/abc", after=b"")[:7], True)

    def test_too_long(self) -> None:
        headers = decoder(Limits(head_bytes=280))
        for number in range(4):
            headers.request(self.block(b"/%d" % number, before=b"\x82\x86", after=b"\x01\x01a"), True)
        with pytest.raises(StreamFault) as fault:
            headers.request(self.block(b"/" + b"x" * 125, before=b"\x82\x86", after=b"\x01\x01a"), True)
        assert fault.value.reason == "head_too_large"

    def test_behind_other_fields_it_is_still_refused(self, headers: HeaderDecoder) -> None:
        for number in range(4):
            with pytest.raises(StreamFault) as fault:
                headers.request(self.block(b"/%d" % number, before=self.INDEXED + b"\x90"), True)
            assert fault.value.reason in ("pseudo_field", "malformed_field")

    def test_the_table_changes(self, headers: HeaderDecoder) -> None:
        headers.skip(b"\x40\x01x\x01y")
        with pytest.raises(StreamFault):
            headers.request(self.block(b"/"), True)
        assert headers.request(self.block(b"/", before=b"\x82\x86\xbf"), True).fields == HOST + b"x: y\r\n"

    def test_what_it_adds_is_added_again(self) -> None:
        adding = b"\x01\x01a\x40\x01x\x01%d"
        headers = decoder()
        headers.skip(b"\x40\x01x\x01y")
        newest = b"\x01\x01a\xbe"
        for number in range(4):
            block = self.block(b"/%d" % number, before=b"\x82\x86", after=newest)
            assert headers.request(block, True).fields == HOST + b"x: y\r\n"
        for number in range(20):
            block = self.block(b"/%d" % number, before=b"\x82\x86", after=adding % (number % 2))
            assert headers.request(block, True).fields == HOST + b"x: %d\r\n" % (number % 2)
            assert headers.trailers(b"\xbe") == b"x: %d\r\n" % (number % 2)
            for path in (b"/a", b"/b", b"/c"):
                block = self.block(path, before=b"\x82\x86", after=newest)
                assert headers.request(block, True).fields == HOST + b"x: %d\r\n" % (number % 2)


def test_a_block_means_something_else_in_another_place() -> None:
    headers = decoder()
    block = plain([(b"x", b"y")])
    request = plain(POST)
    for _ in range(4):
        assert headers.trailers(block) == b"x: y\r\n"
        with pytest.raises(StreamFault):
            headers.request(block, True)
        assert headers.request(request, True).length == NO_BODY
        assert headers.request(request, False).length == UNTIL_CLOSE
        with pytest.raises(StreamFault):
            headers.trailers(request)


@pytest.mark.parametrize(
    "secret", [(b"authorization", b"Bearer x"), (b"cookie", b"a=b"), never_indexed(b"x", b"y")]
)
def test_a_block_with_a_secret_is_remembered_for_its_own_connection_only(secret: tuple[bytes, bytes]) -> None:
    shared = Shared()
    block = (
        encode([*GET, secret]) if isinstance(secret, hpack.NeverIndexedHeaderTuple) else plain([*GET, secret])
    )
    headers = HeaderDecoder(Limits(), 4096, shared)
    for _ in range(6):
        headers.request(block, True)
    assert block not in shared.blocks.young
    assert all(secret[1] not in field.line for field in shared.fields.young.values())


# Responses

OK = [(b":status", b"200")]
RESPONSES_REFUSED: dict[str, tuple[FieldList, bool, str]] = {
    "nothing": ([], False, "pseudo_field"),
    "no status": ([(b"x", b"y")], False, "pseudo_field"),
    "status twice": ([*OK, *OK], False, "pseudo_field"),
    "status behind others": ([(b"x", b"y"), *OK], False, "pseudo_field"),
    "a request's": ([*OK, (b":path", b"/")], False, "pseudo_field"),
    "a request's first": ([(b":method", b"GET"), *OK], False, "pseudo_field"),
    **{
        f"status {value!r}": ([(b":status", value)], False, "malformed_line")
        for value in (b"", b"20", b"2000", b"099", b"600", b"20x", b"+20", b"200 OK", b"200\r\n", b" 200")
    },
    "101": ([(b":status", b"101")], False, "malformed_line"),
    "an interim response that ends": ([(b":status", b"103")], True, "ambiguous_length"),
    "an interim response with a body": ([(b":status", b"100"), LENGTH], False, "ambiguous_length"),
    "capitals": ([*OK, (b"X", b"y")], False, "malformed_field"),
    "CR": ([*OK, (b"x", b"y\r")], False, "bare_cr"),
    "connection": ([*OK, (b"connection", b"close")], False, "connection_field"),
    "transfer-encoding": ([*OK, (b"transfer-encoding", b"chunked")], False, "transfer_encoding"),
    "length twice": ([*OK, LENGTH, LENGTH], False, "content_length"),
    "bad length": ([*OK, (b"content-length", b"3x")], False, "content_length"),
    "length where it ends": ([*OK, LENGTH], True, "content_length"),
}


@pytest.mark.parametrize("name", RESPONSES_REFUSED)
def test_refused_responses(name: str) -> None:
    fields, end, reason = RESPONSES_REFUSED[name]
    headers, encoder = decoder(), hpack.Encoder()
    for block in (plain(fields), plain(fields), *(encode(fields, encoder) for _ in range(4))):
        with pytest.raises(StreamFault) as fault:
            headers.response(block, end)
        assert fault.value.reason == reason


RESPONSES_ACCEPTED: dict[str, tuple[FieldList, bool, bool, tuple[int, bytes, bytes, int]]] = {
    "least": (OK, False, False, (200, b"200 OK", b"", UNTIL_CLOSE)),
    "unheard-of status": ([(b":status", b"299")], False, False, (299, b"299 ", b"", UNTIL_CLOSE)),
    "ends": (OK, True, False, (200, b"200 OK", b"content-length: 0\r\n", NO_BODY)),
    "length": ([*OK, LENGTH], False, False, (200, b"200 OK", LENGTH_LINE, 3)),
    "length 0": (
        [*OK, (b"content-length", b"0")],
        True,
        False,
        (200, b"200 OK", b"content-length: 0\r\n", 0),
    ),
    "to HEAD": (OK, True, True, (200, b"200 OK", b"", NO_BODY)),
    "to HEAD, length": ([*OK, LENGTH], True, True, (200, b"200 OK", LENGTH_LINE, 0)),
    "to HEAD, not ended": ([*OK, LENGTH], False, True, (200, b"200 OK", LENGTH_LINE, 0)),
    "204": ([(b":status", b"204")], True, False, (204, b"204 No Content", b"", NO_BODY)),
    "204 with a length": (
        [(b":status", b"204"), (b"x", b"y"), LENGTH],
        True,
        False,
        (204, b"204 No Content", b"x: y\r\n", 0),
    ),
    "304 with a length": (
        [(b":status", b"304"), LENGTH],
        True,
        False,
        (304, b"304 Not Modified", LENGTH_LINE, 0),
    ),
    "304": ([(b":status", b"304")], False, False, (304, b"304 Not Modified", b"", NO_BODY)),
    "103": (
        [(b":status", b"103"), (b"link", b"</a>")],
        False,
        False,
        (103, b"103 Early Hints", b"link: </a>\r\n", NO_BODY),
    ),
    "100": (
        [(b":status", b"100"), (b"content-length", b"0")],
        False,
        False,
        (100, b"100 Continue", b"", NO_BODY),
    ),
    "a request's fields": (
        [*OK, (b"host", b"a"), (b"cookie", b"a"), (b"cookie", b"b"), (b"x-forwarded-for", b"c")],
        False,
        False,
        (200, b"200 OK", b"host: a\r\ncookie: a\r\ncookie: b\r\nx-forwarded-for: c\r\n", UNTIL_CLOSE),
    ),
}


@pytest.mark.parametrize("name", RESPONSES_ACCEPTED)
def test_accepted_responses(name: str) -> None:
    fields, end, to_head, wanted = RESPONSES_ACCEPTED[name]
    headers, encoder = decoder(), hpack.Encoder()

    def blocks() -> Iterator[bytes]:
        for _ in range(4):
            yield plain(fields)
            yield encode(fields, encoder)

    for block in blocks():
        head = headers.response(block, end, to_head)
        assert isinstance(head, ResponseHead)
        assert (head.status, head.status_line, head.fields, head.length) == wanted


def test_a_response_is_read_by_what_it_answers() -> None:
    headers = decoder()
    block = plain([*OK, LENGTH])
    for _ in range(4):
        assert headers.response(block, False).length == 3
        assert headers.response(block, False, True).length == NO_BODY
        assert headers.response(block, True, True).length == NO_BODY
        with pytest.raises(StreamFault):
            headers.response(block, True)


# Trailers


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([(b":status", b"200")], "trailer"),
        ([(b":path", b"/")], "trailer"),
        ([LENGTH], "trailer"),
        ([(b"host", b"a")], "trailer"),
        ([(b"authorization", b"a")], "trailer"),
        ([(b"x", b"y"), (b"trailer", b"z")], "trailer"),
        ([(b"x-forwarded-for", b"z")], "trailer"),
        ([(b"te", b"trailers")], "trailer"),
        ([(b"transfer-encoding", b"chunked")], "transfer_encoding"),
        ([(b"connection", b"x")], "connection_field"),
        ([(b"X", b"y")], "malformed_field"),
        ([(b"x", b"y\n")], "bare_lf"),
        ([(b"x", b"y\r\n\r\nGET / HTTP/1.1")], "bare_cr"),
        ([(b"x", b"y")] * 200, "head_too_large"),
    ],
)
def test_refused_trailers(fields: FieldList, reason: str) -> None:
    headers = decoder()
    for never in (False, False, False, True):
        with pytest.raises(StreamFault) as fault:
            headers.trailers(plain(fields, never=never))
        assert fault.value.reason == reason


def test_trailers() -> None:
    headers, encoder = decoder(), hpack.Encoder()
    fields = [(b"grpc-status", b"0"), (b"grpc-message", b""), (b"x", b"y")]
    for _ in range(4):
        assert headers.trailers(encode(fields, encoder)) == b"grpc-status: 0\r\ngrpc-message:\r\nx: y\r\n"
    assert headers.trailers(b"") == b""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (b"application/grpc", True),
        (b"Application/GRPC+proto", True),
        (b"application/grpc; charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/grpcx", False),
        (b"application/json", False),
        (b"", False),
    ],
)
@pytest.mark.parametrize("indexed", [True, False])
def test_who_speaks_grpc(kind: bytes, expected: bool, indexed: bool) -> None:
    """Read, remembered, and remembered except the path: it is the same."""
    headers, encoder = decoder(), hpack.Encoder()
    for path in (b"/a.B/C", b"/a.B/C", b"/a.B/C", b"/a.B/C", b"/a.B/D", b"/a.B/E"):
        fields = request_of(b"POST", path, (b"content-type", kind))
        block = encode(fields, encoder) if indexed else plain(fields)
        got = headers.request(block, False)
        assert (got.grpc, got.target) == (expected, path)
    assert not headers.request(encode(request_of(b"POST", b"/a.B/C"), encoder), False).grpc
