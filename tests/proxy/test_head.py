"""Heads: what is refused and with which status, and that it does not matter how the bytes were cut."""

from __future__ import annotations

import pytest

from nodeagent.proxy.http1.head import parse_request, parse_response, without_hop_by_hop
from nodeagent.proxy.message import CHUNKED, NO_BODY, UNTIL_CLOSE, HeadError
from nodeagent.settings import Limits
from nodeagent.stats.columns import REFUSALS
from tests.proxy.readers import Driver, RequestDriver, ResponseDriver, drive, fields_of

HOST = b"Host: a\r\n"
LENGTH = b"Content-Length: 3\r\n"
CODING = b"Transfer-Encoding: chunked\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST


def get(fields: bytes) -> bytes:
    return GET + fields + b"\r\n"


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


def in_every_way(make: type[Driver], wire: bytes) -> Driver:
    """Feed whole, in two pieces at every point, and byte by byte; return the one that was fed whole."""
    whole = drive(make(), [wire])
    for cut in range(1, len(wire)):
        assert drive(make(), [wire[:cut], wire[cut:]]).outcome == whole.outcome, cut
    assert drive(make(), [wire[i : i + 1] for i in range(len(wire))]).outcome == whole.outcome
    return whole


REFUSED = {
    # line endings and white space
    "bare LF after the request line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "bare_lf"),
    "bare LF after a field": (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400, "bare_lf"),
    "bare LF at the end": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "bare_lf"),
    "bare LF only": (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bare_lf"),
    "bare CR in the request line": (b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bare_cr"),
    "bare CR in a value": (get(b"X: a\rb\r\n"), 400, "bare_cr"),
    "bare CR before CRLF": (get(b"X: a\r\r\n"), 400, "bare_cr"),
    "bare CR before the request": (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bare_cr"),
    "LF CR": (b"GET / HTTP/1.1\n\rHost: a\r\n\r\n", 400, "bare_lf"),
    "space before the colon": (get(b"X : y\r\n"), 400, "space_before_colon"),
    "tab before the colon": (get(b"Content-Length\t: 3\r\n"), 400, "space_before_colon"),
    "folded line": (get(b"X: y\r\n z\r\n"), 400, "obs_fold"),
    "folded with tab": (get(b"X: y\r\n\tz\r\n"), 400, "obs_fold"),
    "first field indented": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "obs_fold"),
    "no colon": (get(b"X\r\n"), 400, "malformed_field"),
    "no name": (get(b": x\r\n"), 400, "malformed_field"),
    "space in a name": (get(b"X Y: z\r\n"), 400, "malformed_field"),
    "quote in a name": (get(b'"X": z\r\n'), 400, "malformed_field"),
    "obs-text in a name": (get(b"\xe9: z\r\n"), 400, "malformed_field"),
    # control bytes
    "NUL in a value": (get(b"X: a\x00b\r\n"), 400, "control_byte"),
    "NUL in a name": (get(b"X\x00: ab\r\n"), 400, "control_byte"),
    "vertical tab": (get(b"X: a\x0bb\r\n"), 400, "control_byte"),
    "form feed": (get(b"X: a\x0c\r\n"), 400, "control_byte"),
    "DEL": (get(b"X: a\x7f\r\n"), 400, "control_byte"),
    "NUL in the target": (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "control_byte"),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "control_byte"),
    # request line
    "two spaces before the target": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "two spaces after the target": (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "tab in the request line": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "space after the version": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "space before the method": (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "space in the target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "no target": (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "empty target": (b"GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "no version": (b"GET /\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "lower-case method": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "lower-case head": (b"head / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "method with a colon": (b"G:T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "obs-text in the target": (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "fragment": (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "fragment in a query": (b"GET /?a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "backslash in the path": (b"GET /a\\..\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "lower-case version": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "version without minor": (b"GET / HTTP/1\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "version with two digits": (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400, "malformed_line"),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "version"),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\n\r\n", 505, "version"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version"),
    "a response": (b"HTTP/1.1 200 OK\r\n\r\n", 400, "malformed_line"),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", 400, "malformed_line"),
    # target
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501, "connect"),
    "CONNECT to a path": (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "connect"),
    "asterisk without OPTIONS": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
    "authority form": (b"GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400, "target"),
    "relative": (b"GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
    "query only": (b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
    "another scheme": (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
    "user information": (b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
    "no authority": (b"GET http:///x HTTP/1.1\r\nHost:\r\n\r\n", 400, "target"),
    "bad authority": (b"GET http://a[b/ HTTP/1.0\r\n\r\n", 400, "target"),
    "authority is not Host": (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "host"),
    "port is not Host's": (b"GET http://a:81/ HTTP/1.1\r\nHost: a:80\r\n\r\n", 400, "host"),
    # Host
    "no Host": (b"GET / HTTP/1.1\r\nX: y\r\n\r\n", 400, "host"),
    "Host twice": (get(b"Host: a\r\n"), 400, "host"),
    "host in two spellings": (get(b"hOST: b\r\n"), 400, "host"),
    "Host twice in HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, "host"),
    "space in Host": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "host"),
    "path in Host": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "host"),
    "user in Host": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "host"),
    "bad port in Host": (b"GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", 400, "host"),
    # lengths
    "both": (post(LENGTH + CODING, b"abc"), 400, "ambiguous_length"),
    "both, the other way": (post(CODING + LENGTH), 400, "ambiguous_length"),
    "empty coding and a length": (post(b"Transfer-Encoding:\r\n" + LENGTH), 400, "ambiguous_length"),
    "length twice": (post(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"), 400, "content_length"),
    "two lengths": (post(b"Content-Length: 3\r\ncontent-length: 5\r\n"), 400, "content_length"),
    "zero, then a length": (post(b"Content-Length: 0\r\nContent-Length: 5\r\n"), 400, "content_length"),
    "list": (post(b"Content-Length: 3, 3\r\n"), 400, "content_length"),
    "plus": (post(b"Content-Length: +3\r\n"), 400, "content_length"),
    "minus": (post(b"Content-Length: -3\r\n"), 400, "content_length"),
    "underscore in a length": (post(b"Content-Length: 1_0\r\n"), 400, "content_length"),
    "hexadecimal": (post(b"Content-Length: 0x3\r\n"), 400, "content_length"),
    "empty length": (post(b"Content-Length:\r\n"), 400, "content_length"),
    "blank length": (post(b"Content-Length: \t \r\n"), 400, "content_length"),
    "inner space": (post(b"Content-Length: 1 0\r\n"), 400, "content_length"),
    "fraction": (post(b"Content-Length: 3.0\r\n"), 400, "content_length"),
    "obs-text digit": (post(b"Content-Length: \xb2\r\n"), 400, "content_length"),
    "no-break space": (post(b"Content-Length: \xa03\r\n"), 400, "content_length"),
    "endless length": (post(b"Content-Length: " + b"9" * 40 + b"\r\n"), 400, "content_length"),
    "length with underscore": (post(b"Content_Length: 3\r\n"), 400, "malformed_field"),
    "coding with underscore": (post(b"Transfer_Encoding: chunked\r\n"), 400, "malformed_field"),
    # transfer codings
    "gzip": (post(b"Transfer-Encoding: gzip\r\n"), 400, "transfer_encoding"),
    "gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n"), 501, "transfer_encoding"),
    "chunked, chunked": (post(b"Transfer-Encoding: chunked, chunked\r\n"), 501, "transfer_encoding"),
    "chunked twice": (post(b"Transfer-Encoding: chunked\r\n" * 2), 400, "transfer_encoding"),
    "empty, then chunked": (post(b"Transfer-Encoding:\r\n" + CODING), 400, "transfer_encoding"),
    "tab behind chunked": (post(b"Transfer-Encoding: chunked\t\r\n"), 501, "transfer_encoding"),
    "xchunked": (post(b"Transfer-Encoding: xchunked\r\n"), 400, "transfer_encoding"),
    "chunked;": (post(b"Transfer-Encoding: chunked;\r\n"), 400, "transfer_encoding"),
    "chunked;a=b": (post(b"Transfer-Encoding: chunked;a=b\r\n"), 400, "transfer_encoding"),
    "comma chunked": (post(b"Transfer-Encoding: ,chunked\r\n"), 501, "transfer_encoding"),
    "quoted": (post(b'Transfer-Encoding: "chunked"\r\n'), 400, "transfer_encoding"),
    "identity": (post(b"Transfer-Encoding: identity\r\n"), 400, "transfer_encoding"),
    "empty coding": (post(b"Transfer-Encoding:\r\n"), 400, "transfer_encoding"),
    "vertical tab before chunked": (post(b"Transfer-Encoding: \x0bchunked\r\n"), 400, "control_byte"),
    "next line before chunked": (post(b"Transfer-Encoding: \x85chunked\r\n"), 400, "transfer_encoding"),
    "chunked in HTTP/1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "transfer_encoding",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    wire, status, reason = REFUSED[name]
    driver = in_every_way(RequestDriver, wire)
    assert driver.refused is not None
    assert (driver.refused.status, driver.refused.reason) == (status, reason)
    assert not driver.messages


@pytest.mark.parametrize("name", REFUSED)
def test_refused_after_a_good_request_and_whatever_follows(name: str) -> None:
    wire, status, _ = REFUSED[name]
    if name == "bare CR before the request":
        return  # behind another request it is the same
    driver = drive(RequestDriver(), [get(b""), wire + b"\r\n\r\n" + get(b"")])
    assert driver.refused is not None
    assert driver.refused.status == status
    assert len(driver.messages) == 1


ABOUT_LINES = (
    "bare_lf",
    "bare_cr",
    "control_byte",
    "malformed_line",
    "version",
    "obs_fold",
    "space_before_colon",
)


@pytest.mark.parametrize("name", [name for name, case in REFUSED.items() if case[2] in ABOUT_LINES])
def test_a_bad_line_is_refused_when_it_ends(name: str) -> None:
    """A client that sends it and then waits is answered: the head need not end."""
    wire = REFUSED[name][0]
    if wire.endswith(b"\r\n\r\n"):
        wire = wire[:-2]
    assert in_every_way(RequestDriver, wire).refused is not None


ACCEPTED = {
    "least": (get(b""), NO_BODY),
    "empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", NO_BODY),
    "IPv6 Host": (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", NO_BODY),
    "white space around a value": (get(b"X:\t  y z \t\r\n"), NO_BODY),
    "empty value": (get(b"X:\r\nY: \r\n"), NO_BODY),
    "obs-text in a value": (get(b"X: \x80\xe9\xff\r\n"), NO_BODY),
    "every token character": (get(b"!#$%&'*+-.^_`|~09azAZ: y\r\n"), NO_BODY),
    "extension method": (b"M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", NO_BODY),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", NO_BODY),
    "backslash in a query": (b"GET /?a\\b HTTP/1.1\r\nHost: a\r\n\r\n", NO_BODY),
    "what browsers leave as it is": (b"GET /[a]|{b}^`'\"<> HTTP/1.1\r\nHost: a\r\n\r\n", NO_BODY),
    "length": (post(b"Content-Length: 3\r\n", b"abc"), 3),
    "length zero": (post(b"Content-Length: 0\r\n"), NO_BODY),
    "length with leading zeros": (post(b"Content-Length: 003\r\n", b"a\r\n"), 3),
    "length with white space": (post(b"Content-Length:\t 3 \t\r\n", b"abc"), 3),
    "chunked": (post(b"Transfer-Encoding: chunked\r\n", b"3;a=b\r\nabc\r\n0\r\nX-T: y\r\n\r\n"), CHUNKED),
    "Chunked": (post(b"TRANSFER-ENCODING:ChunKed \r\n", b"0\r\n\r\n"), CHUNKED),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", NO_BODY),
    "absolute form": (b"GET http://a/x?y HTTP/1.1\r\nHost: A\r\n\r\n", NO_BODY),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_with_a_request_behind_it_and_an_empty_line_before(name: str) -> None:
    wire, length = ACCEPTED[name]
    driver = in_every_way(RequestDriver, b"\r\n" + wire + get(b"X: next\r\n"))
    assert driver.refused is None
    assert [m.head.length for m in driver.messages] == [length, NO_BODY][: len(driver.messages)]
    assert len(driver.messages) == (1 if b"HTTP/1.0" in wire else 2)
    assert driver.messages[0].original == wire
    for end in range(1, len(wire)):
        assert drive(RequestDriver(), [wire[:end]]).refused is None, (
            "a prefix of what is right is never refused"
        )


def parsed(wire: bytes) -> bytes:
    head = parse_request(wire)
    assert head is not None
    return b"%b %b HTTP/1.1\r\n%b" % (head.method, head.target, head.fields)


def test_absolute_form_becomes_origin_form() -> None:
    assert parsed(b"GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n").startswith(
        b"GET /x?y HTTP/1.1\r\nHost: a\r\n"
    )
    assert parsed(b"GET http://a?y HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"GET /?y ")
    assert parsed(b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"GET / ")
    assert parsed(b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"OPTIONS * ")
    assert parsed(b"OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"OPTIONS / ")


def test_a_request_without_host_gets_one() -> None:
    """It goes on as HTTP/1.1, where Host is required."""
    wire = b"GET / HTTP/1.0\r\nX: y\r\n\r\n"
    assert parsed(wire) == b"GET / HTTP/1.1\r\nHost: \r\nX: y\r\n"
    head = parse_request(wire, b"whoami.default.svc.mesh")
    assert head is not None
    assert head.fields == b"Host: whoami.default.svc.mesh\r\nX: y\r\n"
    assert parsed(b"GET http://b:80/x HTTP/1.0\r\n\r\n") == b"GET /x HTTP/1.1\r\nHost: b:80\r\n"
    assert parsed(b"GET / HTTP/1.0\r\nHost: c\r\n\r\n") == b"GET / HTTP/1.1\r\nHost: c\r\n"


@pytest.mark.parametrize(
    ("version", "fields", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"connection:CLOSE\t\r\n", False),
        (b"1.1", b"Connection: keep-alive, Close\r\n", False),
        (b"1.1", b"Connection: x\r\nConnection: close\r\n", False),
        (b"1.1", b"Connection:\r\nConnection: close\r\n", False),
        (b"1.1", b"Connection: ,,close,\r\n", False),
        (b"1.1", b"Connection: closed\r\n", True),
        (b"1.1", b"Connection: not close\r\n", True),
        (b"1.1", b"X-Connection: close\r\n", True),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"Connection: keep-alive, close\r\n", False),
        (b"1.0", b"Keep-Alive: timeout=5\r\n", False),
        (b"1.0", b"Proxy-Connection: keep-alive\r\n", False),
    ],
)
def test_keep_alive(version: bytes, fields: bytes, kept: bool) -> None:
    request = parse_request(b"GET / HTTP/%b\r\nHost: a\r\n%b\r\n" % (version, fields))
    response = parse_response(b"HTTP/%b 200 OK\r\n%b\r\n" % (version, fields), to_head=False)
    assert request is not None
    assert response is not None
    assert request.keep_alive is kept
    assert response.keep_alive is kept


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        (b"Connection: close\r\nX: y\r\n", b"X: y\r\n"),
        (b"X: y\r\nConnection: x\r\n", b""),
        (b"Connection: X-Hop\r\nx-hop: 1\r\nX-HOP: 2\r\nX-Hop2: 3\r\n", b"X-Hop2: 3\r\n"),
        (b"Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nA: b\r\n", b"A: b\r\n"),
        (b"TE: trailers\r\nConnection: TE\r\n", b"TE: trailers\r\n"),
        (b"te:\tTrailers \r\nConnection: close\r\n", b"te:\tTrailers \r\n"),
        (b"TE: trailers, deflate\r\n", b""),
        (b"TE: gzip\r\nTest: a\r\nUpgrades: b\r\n", b"Test: a\r\nUpgrades: b\r\n"),
        (b"Upgrade: websocket\r\n", b""),
        (b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", b"HTTP2-Settings: x\r\n"),
        (b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: x\r\n", b""),
        (b"Connection: host, cookie\r\nCookie: a\r\n", b"Cookie: a\r\n"),
        (b"connection\r\n", None),
    ],
)
def test_fields_of_this_hop_end_here(fields: bytes, kept: bytes | None) -> None:
    if kept is None:
        assert parse_request(get(fields)) is None
    else:
        assert parsed(get(fields)) == GET + kept


@pytest.mark.parametrize(
    "name", [b"host", b"Content-Length", b"content-length , host", b"x,CONTENT-LENGTH,transfer-encoding"]
)
def test_connection_cannot_drop_what_frames_the_message(name: bytes) -> None:
    assert parsed(post(b"Connection: " + name + b"\r\nContent-Length: 3\r\n")) == (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
    )
    assert parsed(post(b"Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding," + name + b"\r\n")) == (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    )


def test_an_upgrade_passes_where_it_is_asked_for_properly() -> None:
    websocket = b"Upgrade: websocket\r\n"
    for connection in (b"Upgrade", b"keep-alive, Upgrade", b"upgrade,keep-alive", b"\tUPGRADE "):
        head = parse_request(get(b"Connection: " + connection + b"\r\n" + websocket + b"X: y\r\n"))
        assert head is not None
        assert head.upgrade == b"websocket"
        assert head.fields == HOST + b"X: y\r\n"
    for wire in (
        get(websocket),
        get(b"Connection: upgrade\r\n"),
        get(b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
        get(b"Connection: upgrade\r\nUpgrade: websocket, H2C\r\n"),
        post(b"Content-Length: 3\r\nConnection: upgrade\r\n" + websocket),
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\n" + websocket + b"\r\n",
    ):
        head = parse_request(wire)
        assert head is not None
        assert head.upgrade == b""
        assert b"pgrade" not in head.fields


@pytest.mark.parametrize(
    ("fields", "before"),
    [
        (b"", b""),
        (b"X-Forwarded-For: 1.2.3.4\r\n", b"1.2.3.4"),
        (b"x-forwarded-for:1.2.3.4, 5.6.7.8 \r\nX-FORWARDED-FOR: 9.9.9.9\r\n", b"1.2.3.4, 5.6.7.8, 9.9.9.9"),
        (b"X-Forwarded-For:\r\nX-Forwarded-For: 1.2.3.4\r\n", b"1.2.3.4"),
        (b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: \r\n", b"1.2.3.4"),
        (b"Connection: x-forwarded-for\r\nX-Forwarded-For: 1.2.3.4\r\n", b"1.2.3.4"),
    ],
)
def test_forwarded_for_is_taken_out_whole(fields: bytes, before: bytes) -> None:
    head = parse_request(get(fields + b"X-Forwarded-Host: b\r\n"))
    assert head is not None
    assert head.forwarded_for == before
    assert head.fields == HOST + b"X-Forwarded-Host: b\r\n"


def test_without_hop_by_hop_keeps_forwarded_for_of_responses() -> None:
    fields = b"A: b\r\nX-Forwarded-For: c\r\nKeep-Alive: d\r\n"
    assert without_hop_by_hop(fields, frozenset()) == b"A: b\r\nX-Forwarded-For: c\r\n"
    assert without_hop_by_hop(fields, frozenset((b"a",)), forwarded_for=True) == b""
    assert without_hop_by_hop(b"", frozenset()) == b""


def test_an_expectation_without_a_body_goes_no_further() -> None:
    assert parsed(get(b"X: y\r\nExpect: 100-continue\r\n")) == GET + b"X: y\r\n"
    assert b"xpect" not in parsed(post(b"Content-Length: 0\r\nEXPECT: 100-continue\r\nConnection: close\r\n"))
    assert parsed(post(b"Transfer-Encoding: chunked\r\nExpect: x\r\n")).endswith(b"Expect: x\r\n")


def test_an_expectation_passes() -> None:
    assert parsed(post(b"Content-Length: 3\r\nExpect: 100-continue\r\n")).endswith(
        b"Expect: 100-continue\r\n"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"trailers", True),
        (b"TRAILERS ", True),
        (b"gzip, trailers", True),
        (b"trailers;q=1", True),
        (b"gzip", False),
        (b"x-trailers", False),
    ],
)
def test_who_takes_trailers(value: bytes, expected: bool) -> None:
    head = parse_request(get(b"TE: " + value + b"\r\n"))
    assert head is not None
    assert head.trailers is expected


REFUSED_RESPONSES = {
    "bare LF": b"HTTP/1.1 200 OK\nX: y\r\n\r\n",
    "bare CR": b"HTTP/1.1 200 OK\r\nX: y\rz\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 \x00\r\n\r\n",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 600": b"HTTP/1.1 600 X\r\n\r\n",
    "status 000": b"HTTP/1.1 000 X\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\n\r\n",
    "leading line": b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    "shout": b"ICY 200 OK\r\n\r\n",
    "junk": b"HTTX",
    "tab behind chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\t\r\n\r\n",
    "both lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "length and empty coding": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding:\r\n\r\n",
    "length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
    "coding twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "interim with chunks": b"HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\n",
    "interim with a length": b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED_RESPONSES)
def test_refused_response(name: str) -> None:
    driver = in_every_way(ResponseDriver, REFUSED_RESPONSES[name])
    assert driver.refused is not None
    assert driver.refused.reason in REFUSALS
    assert not driver.messages


@pytest.mark.parametrize(
    ("wire", "to_head", "length"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", False, UNTIL_CLOSE),
        (b"HTTP/1.1 200 OK\r\n\r\n", True, NO_BODY),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", True, NO_BODY),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", True, NO_BODY),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", False, NO_BODY),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, NO_BODY),
        (b"HTTP/1.1 404 \xe9\t!\r\nContent-Length: 7\r\n\r\n", False, 7),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n", False, 7),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", False, CHUNKED),
        (b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", False, NO_BODY),
    ],
)
def test_length_of_a_response(wire: bytes, to_head: bool, length: int) -> None:
    head = parse_response(wire, to_head)
    assert head is not None
    assert head.length == length
    for end in range(1, len(wire)):
        assert drive(ResponseDriver(), [wire[:end]]).refused is None


def test_no_content_promises_none() -> None:
    for framing in (b"Transfer-Encoding: chunked\r\n", b"content-length: 5\r\n"):
        head = parse_response(b"HTTP/1.1 204 No\r\nA: b\r\n" + framing + b"C: d\r\n\r\n", to_head=False)
        assert head is not None
        assert head.length == NO_BODY
        assert head.fields == b"A: b\r\nC: d\r\n"
    for status in (b"100", b"103", b"204"):
        head = parse_response(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 0\r\n\r\n", to_head=False)
        assert head is not None
        assert head.fields == b"", "RFC 9110 section 8.6: not even that there is none"


def test_a_status_line_without_reason_keeps_its_space() -> None:
    for line in (b"HTTP/1.1 200", b"HTTP/1.1 200 "):
        head = parse_response(line + b"\r\n\r\n", to_head=False)
        assert head is not None
        assert head.status_line == b"200 "


def test_an_upgraded_response_names_the_protocol() -> None:
    wire = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-X: y\r\n\r\n"
    head = parse_response(wire, to_head=False)
    assert head is not None
    assert head.upgrade == b"websocket"
    assert head.fields == b"Sec-X: y\r\n"


SMALL = Limits(head_bytes=200, head_fields=4)


@pytest.mark.parametrize(
    ("wire", "refused"),
    [
        (GET + b"a: b\r\n" * 3 + b"\r\n", 0),
        (GET + b"a: b\r\n" * 4 + b"\r\n", 431),
        (GET + b"a: " + b"b" * (200 - len(GET) - 7) + b"\r\n\r\n", 0),
        (GET + b"a: " + b"b" * (201 - len(GET) - 7) + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"G" * 300, 414),
        (GET + b"a" * 300, 431),
        (GET + b"a: b\r\n" * 300, 431),
    ],
)
def test_limits_do_not_depend_on_the_cut(wire: bytes, refused: int) -> None:
    for parts in ([wire], *([wire[:i], wire[i:]] for i in range(len(wire))), [bytes([b]) for b in wire]):
        driver = drive(RequestDriver(SMALL), parts)
        assert (driver.refused.status if driver.refused is not None else 0) == refused


def test_a_prefix_of_a_head_at_the_limits_is_not_refused() -> None:
    wire = GET + b"a: b\r\n" * 3 + b"\r\n"
    for end in range(1, len(wire)):
        assert drive(RequestDriver(SMALL), [wire[:end]]).refused is None


def test_empty_lines_before_a_request_may_come_in_pieces() -> None:
    driver = drive(RequestDriver(), [b"\r", b"\n", b"GET / HTTP", b"/1.1\r\nHost: a\r\n\r", b"\n\r", b"\n"])
    assert driver.refused is None
    assert len(driver.messages) == 1


def test_nothing_of_the_body_is_taken_for_a_field() -> None:
    body = b"\nContent-Length: 5\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\n"
    driver = in_every_way(RequestDriver, post(b"Content-Length: %d\r\n" % len(body), body))
    assert driver.refused is None
    assert driver.messages[0].payload == body


def test_fields_are_read_as_they_were_sent() -> None:
    raw = b"A: b\r\na:\t c:d \r\nE:\r\n"
    assert fields_of(raw) == [(b"a", b"b"), (b"a", b"c:d"), (b"e", b"")]


def test_every_reason_is_listed() -> None:
    for wire, _, reason in REFUSED.values():
        assert reason in REFUSALS, wire
    assert HeadError("chunk", "x").status == 400
