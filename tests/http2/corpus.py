"""What others have fallen for when they made HTTP/1 of HTTP/2, by name: heads, bodies and trailers.

Each is refused, or it is one request for everybody. The tests of smuggling and splitting read and convert
them one by one; tests/interop sends them through a whole agent to real servers.
"""

from __future__ import annotations

from tests.http2.blocks import FieldList, request_of

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
    "a pseudo-header field after other fields": (
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
SECOND_TEXT = SECOND.decode()
PSEUDO = {":method": "GET", ":scheme": "http", ":path": "/", ":authority": "web"}


def pseudo(**changed: str | None) -> list[tuple[str, str]]:
    """The pseudo-header fields of a request, some of them changed or left out."""
    fields = PSEUDO | {f":{name}": value for name, value in changed.items()}
    return [(name, value) for name, value in fields.items() if value is not None]


HEADS = {
    "a line break in a value": [*pseudo(), ("x", f"y\r\n\r\n{SECOND_TEXT}")],
    "a line feed in a value": [*pseudo(), ("x", "y\nz: a")],
    "a carriage return in a value": [*pseudo(), ("x", "y\rz")],
    "NUL in a value": [*pseudo(), ("x", "y\0z")],
    "a line break in a name": [*pseudo(), ("x: y\r\nz", "a")],
    "a colon in a name": [*pseudo(), ("x: y", "a")],
    "white space in a name": [*pseudo(), ("x ", "a")],
    "no name": [*pseudo(), ("", "a")],
    "capitals": [*pseudo(), ("Content-Length", "5")],
    "white space around a value": [*pseudo(), ("x", " y")],
    "a second line in the method": pseudo(method=f"GET / HTTP/1.1\r\nHost: web\r\n\r\n{SECOND_TEXT}GET"),
    "white space in the method": pseudo(method="GET /admin HTTP/1.1\r\nx:"),
    "an empty method": pseudo(method=""),
    "a second line in the path": pseudo(path=f"/ HTTP/1.1\r\nHost: web\r\n\r\n{SECOND_TEXT}"),
    "white space in the path": pseudo(path="/ HTTP/1.1"),
    "an empty path": pseudo(path=""),
    "a path without slash": pseudo(path="admin"),
    "a fragment": pseudo(path="/#/admin"),
    "an authority as path": pseudo(path="http://other/"),
    "a second line in the authority": pseudo(authority="web\r\nx: y"),
    "user information": pseudo(authority="user@web"),
    "another Host": [*pseudo(), ("host", "other")],
    "two Hosts": [*pseudo(authority=None), ("host", "web"), ("host", "web")],
    "no method": pseudo(method=None),
    "no path": pseudo(path=None),
    "no scheme": pseudo(scheme=None),
    "two paths": [*pseudo(), (":path", "/admin")],
    "two methods": [*pseudo(), (":method", "POST")],
    "a pseudo-header behind a field": [*pseudo(path=None), ("x", "y"), (":path", "/")],
    "a pseudo-header of responses": [*pseudo(), (":status", "200")],
    "an unknown pseudo-header": [*pseudo(), (":protocol", "websocket")],
    "H2.TE": [*pseudo(method="POST"), ("transfer-encoding", "chunked")],
    "H2.TE, spelled otherwise": [*pseudo(method="POST"), ("transfer_encoding", "chunked")],
    "connection": [*pseudo(), ("connection", "keep-alive")],
    "upgrade": [*pseudo(), ("upgrade", "websocket")],
    "keep-alive": [*pseudo(), ("keep-alive", "1")],
    "proxy-connection": [*pseudo(), ("proxy-connection", "close")],
    "te": [*pseudo(), ("te", "chunked")],
    "two lengths": [*pseudo(method="POST"), ("content-length", "5"), ("content-length", "6")],
    "a list of lengths": [*pseudo(method="POST"), ("content-length", "5, 5")],
    "a signed length": [*pseudo(method="POST"), ("content-length", "+5")],
    "a length that is none": [*pseudo(method="POST"), ("content-length", "0x5")],
    "an empty length": [*pseudo(method="POST"), ("content-length", "")],
    "NUL in a name": [*pseudo(), ("x\0y", "a")],
    "a line feed in a name": [*pseudo(), ("x\ny", "a")],
    "NUL in the path": pseudo(path="/\0"),
    "NUL in the method": pseudo(method="GET\0"),
    "NUL in the authority": pseudo(authority="web\0"),
    "user information in Host": [*pseudo(authority=None), ("host", "user@web")],
    "white space in the authority": pseudo(authority="web other"),
    "a port that is no number": pseudo(authority="web:80 GET"),
    "two authorities": [*pseudo(), (":authority", "other")],
    "two schemes": [*pseudo(), (":scheme", "https")],
    "CONNECT": [(":method", "CONNECT"), (":authority", "web:80")],
    "CONNECT with a path": pseudo(method="CONNECT"),
}
TRAILERS = {
    "H2.TE": [("transfer-encoding", "chunked")],
    "H2.CL": [("content-length", "5")],
    "host": [("host", "other")],
    "splitting in a value": [("x", f"y\r\n\r\n{SECOND_TEXT}")],
    "splitting in a name": [(f"x: y\r\n\r\n{SECOND_TEXT}z", "")],
    "a line feed": [("x", "y\n\nz")],
    "a pseudo-header field": [(":path", "/admin")],
    "capitals": [("X", "y")],
}
"""Fields after a body that are never passed on."""
