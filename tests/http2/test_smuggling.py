"""No HTTP/2 request becomes two of HTTP/1, or another than it was: what others have fallen for, by name.

Each is refused, or rendered as HTTP/1 it is one request that h11, llhttp and our own parser read alike.
"""

from __future__ import annotations

import pytest

from nodeagent.proxy.body import LAST_CHUNK, chunk
from nodeagent.proxy.http1.head import parse_request
from nodeagent.proxy.http2.headers import StreamFault
from nodeagent.proxy.message import UNTIL_CLOSE, RequestHead
from tests.http2.blocks import FieldList, decoder, encode, request_of
from tests.proxy.readers import h11_request, llhttp_request

SECOND = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"


def get(*fields: tuple[bytes, bytes]) -> FieldList:
    return request_of(b"GET", b"/", *fields)


def instead(name: bytes, value: bytes) -> FieldList:
    """Return a POST with another pseudo-header field."""
    return [(name, value) if field[0] == name else field for field in request_of(b"POST")]


def post(*fields: tuple[bytes, bytes]) -> FieldList:
    return request_of(b"POST", b"/", *fields)


REFUSED: dict[str, tuple[FieldList, bool]] = {
    "H2.TE: transfer-encoding": (post((b"transfer-encoding", b"chunked")), False),
    "H2.TE with a length": (post((b"content-length", b"3"), (b"transfer-encoding", b"chunked")), False),
    "H2.TE in capitals": (post((b"Transfer-Encoding", b"chunked")), False),
    "H2.TE with a space": (post((b"transfer-encoding ", b"chunked")), False),
    "H2.TE with a tab": (post((b"transfer-encoding\t", b"chunked")), False),
    "H2.TE with a vertical tab in front": (post((b"\x0btransfer-encoding", b"chunked")), False),
    "H2.TE with an underscore": (post((b"transfer_encoding", b"chunked")), False),
    "H2.TE in a name with a colon": (post((b"transfer-encoding: chunked\r\nx", b"y")), False),
    "H2.TE in a name, LF": (post((b"x: y\ntransfer-encoding", b"chunked")), False),
    "H2.TE in a value, CRLF": (post((b"x", b"y\r\ntransfer-encoding: chunked")), False),
    "H2.TE in a value, LF": (post((b"x", b"y\ntransfer-encoding: chunked")), False),
    "H2.TE in a value, CR": (post((b"x", b"y\rtransfer-encoding: chunked")), False),
    "H2.TE in a value of te": (post((b"te", b"trailers\r\ntransfer-encoding: chunked")), False),
    "H2.TE in a cookie": (post((b"cookie", b"a=b\r\ntransfer-encoding: chunked")), False),
    "H2.TE in x-forwarded-for": (post((b"x-forwarded-for", b"a\r\ntransfer-encoding: chunked")), False),
    "H2.TE in the method": (request_of(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nx: ", b"/"), False),
    "H2.TE in the path": (request_of(b"POST", b"/ HTTP/1.1\r\ntransfer-encoding: chunked\r\nx: y"), False),
    "H2.TE in the authority": (instead(b":authority", b"a\r\ntransfer-encoding: chunked"), False),
    "H2.TE in the scheme": (instead(b":scheme", b"http://a/\r\ntransfer-encoding: chunked"), False),
    "H2.CL: a length of a request that has ended": (post((b"content-length", b"%d" % len(SECOND))), True),
    "H2.CL: two lengths": (post((b"content-length", b"0"), (b"content-length", b"3")), False),
    "H2.CL: a list": (post((b"content-length", b"0, 3")), False),
    "H2.CL: a sign": (post((b"content-length", b"+0")), False),
    "H2.CL: hexadecimal": (post((b"content-length", b"0x10")), False),
    "H2.CL: underscore": (post((b"content_length", b"0")), False),
    "H2.CL: in a value": (post((b"x", b"y\r\ncontent-length: 0")), False),
    "H2.CL: in a name": (post((b"content-length: 0\r\nx", b"y")), False),
    "H2.CL: white space": (post((b"content-length", b" 3")), False),
    "splitting in a value": (get((b"x", b"y\r\n\r\n" + SECOND)), True),
    "splitting in a value, LF": (
        get((b"x", b"y\n\n" + SECOND.replace(b"\r", b""))),
        True,
    ),
    "splitting in a name": (get((b"x: y\r\n\r\n" + SECOND + b"z", b"")), True),
    "splitting in the path": (request_of(b"GET", b"/ HTTP/1.1\r\nHost: a\r\n\r\nGET /admin"), True),
    "splitting in the path, no version": (request_of(b"GET", b"/admin HTTP/1.1"), True),
    "splitting in the method": (request_of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", b"/admin"), True),
    "splitting in host": (get((b"host", b"a\r\n\r\n" + SECOND)), True),
    "an empty line by NUL": (get((b"x", b"\x00\r\n\r\n")), True),
    "another host behind :authority": (get((b"host", b"b")), True),
    "two hosts": (get((b"host", b"a"), (b"host", b"b")), True),
    "absolute form": (request_of(b"GET", b"http://b/"), True),
    "an authority with a path": (instead(b":authority", b"a/b"), True),
    "a scheme with an authority": (instead(b":scheme", b"http://b/?"), True),
    "two paths": (get((b":path", b"/admin")), True),
    "two methods": ([(b":method", b"GET"), *request_of(b"POST", b"/")], True),
    "connection names content-length": (
        post((b"connection", b"content-length"), (b"content-length", b"3")),
        False,
    ),
    "upgrade to h2c": (get((b"upgrade", b"h2c"), (b"http2-settings", b"AAA")), True),
    "CONNECT": ([(b":method", b"CONNECT"), (b":authority", b"a:80")], False),
    "lower-case head": (request_of(b"head", b"/"), True),
    "a field name with a colon": (get((b"x:", b"y")), True),
    "a pseudo-header field behind others": (
        get((b"x", b"y"), (b":authority", b"b")),
        True,
    ),
    "a fragment": (request_of(b"GET", b"/public#/../admin"), True),
    "a backslash": (request_of(b"GET", b"/public\\..\\admin"), True),
    "obs-fold": (get((b"x", b"y\r\n z")), True),
}
PASSED: dict[str, tuple[FieldList, bool, bytes]] = {
    "a second request as body": (post((b"content-length", b"%d" % len(SECOND))), False, SECOND),
    "a second request as body without a length": (post(), False, SECOND),
    "a last chunk as body": (post(), False, b"0\r\n\r\n" + SECOND),
    "a body of a GET": (get(), False, SECOND),
    "no body of a GET": (get(), True, b""),
    "no body of a POST": (post(), True, b""),
    "length 0": (post((b"content-length", b"0")), False, b""),
    "a length with zeros in front": (post((b"content-length", b"003")), False, b"abc"),
    "encoded line ends": (request_of(b"GET", b"/%0d%0aHost:%20b", (b"x", b"%0d%0ay: z")), True, b""),
    "a chunked coding of content": (post((b"content-encoding", b"chunked")), False, b"abc"),
    "te: trailers": (post((b"te", b"trailers"), (b"trailer", b"content-length")), False, b"abc"),
    "a colon in a value": (get((b"x", b": y:")), True, b""),
    "expect without a body": (post((b"expect", b"100-continue"), (b"content-length", b"0")), False, b""),
    "method override": (get((b"x-http-method-override", b"POST")), True, b""),
    "obs-text": (get((b"x", b"\x85\xa0\xff")), True, b""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    fields, end = REFUSED[name]
    headers = decoder()
    for _ in range(3):
        with pytest.raises(StreamFault):
            headers.request(encode(fields), end)


def rendered(head: RequestHead, body: bytes) -> bytes:
    """What goes to an endpoint of HTTP/1."""
    fields = head.fields + b"X-Forwarded-For: 10.0.0.7\r\n"
    if head.length == UNTIL_CLOSE:
        fields, body = fields + b"Transfer-Encoding: chunked\r\n", chunk(body) + LAST_CHUNK
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (head.method, head.target, fields, body)


@pytest.mark.parametrize("name", PASSED)
def test_one_request_for_everybody(name: str) -> None:
    fields, end, body = PASSED[name]
    head = decoder().request(encode(fields), end)
    data = rendered(head, body)
    ours = parse_request(data)
    assert ours is not None
    assert (ours.method, ours.target) == (head.method, head.target)
    for reader in (h11_request, llhttp_request):
        theirs = reader(data)
        assert theirs.start == (head.method, head.target)
        assert theirs.complete
        assert theirs.body == body
        assert not reader(data[:-1]).complete


@pytest.mark.parametrize(
    "fields",
    [
        [(b"x", b"y\r\n\r\n" + SECOND)],
        [(b"x: y\r\n\r\n" + SECOND + b"z", b"")],
        [(b"x", b"y\n\n" + SECOND)],
        [(b"transfer-encoding", b"chunked")],
        [(b"content-length", b"0")],
        [(b"host", b"b")],
        [(b":path", b"/admin")],
        [(b"X", b"y")],
    ],
)
def test_trailers_are_no_request(fields: FieldList) -> None:
    with pytest.raises(StreamFault):
        decoder().trailers(encode(fields))
