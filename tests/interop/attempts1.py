"""Attempts at smuggling as bytes of HTTP/1: lengths, chunks and line ends that may be read in two ways.

The names say who is to believe what: CL.TE is a front that goes by Content-Length before a server that goes
by Transfer-Encoding, 0.CL a front that sees no body before a server that sees one.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Outcome = Literal["never", "cut", "once"]
"""What an endpoint may see of it: nothing; a request that it is told is not whole; one request."""
SECOND: Final = b"GET /smuggled HTTP/1.1\r\nHost: web\r\nX-Marker: smuggled\r\n\r\n"
CHUNKED: Final = b"Transfer-Encoding: chunked"


class Attempt(msgspec.Struct, frozen=True):
    """Bytes that a client sends; `@` in `head` becomes a line with its marker."""

    name: str
    head: bytes
    body: bytes = b""
    outcome: Outcome = "never"
    waits: bool = False
    """The mesh waits for more of it: the client has to end."""

    @property
    def asks(self) -> str:
        """Method and target, where a request may come of it."""
        method, target, _ = self.head.decode("latin-1").split(" ", 2)
        return f"{method} {target.removeprefix('http://web')}"

    def write(self, marker: str) -> bytes:
        """Write it with this marker."""
        return self.head.replace(b"@", b"X-Marker: %b\r\n" % marker.encode()) + self.body


def _post(*lines: bytes, ending: bytes = b"\r\n\r\n") -> bytes:
    return b"POST /post HTTP/1.1\r\nHost: web\r\n@" + b"\r\n".join(lines) + ending


def _length(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


def all_attempts() -> list[Attempt]:
    """Return every one of them."""
    return [*_two_lengths(), *_obscured(), *_lengths(), *_bodies(), *_chunks(), *_lines(), *_request_lines()]


def _two_lengths() -> list[Attempt]:
    late = b"0\r\n\r\n" + SECOND
    early = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SECOND), SECOND)
    return [
        Attempt("CL.TE", _post(_length(late), CHUNKED), late),
        Attempt("CL.TE, Transfer-Encoding first", _post(CHUNKED, _length(late)), late),
        Attempt("TE.CL", _post(b"Content-Length: 4", CHUNKED), early),
        Attempt("TE.CL, Transfer-Encoding first", _post(CHUNKED, b"Content-Length: 4"), early),
        Attempt("TE.CL, length 0", _post(b"Content-Length: 0", CHUNKED), early),
        Attempt(
            "TE.CL in HTTP/1.0",
            b"POST /post HTTP/1.0\r\nHost: web\r\n@Connection: keep-alive\r\n" + CHUNKED + b"\r\n\r\n",
            early,
        ),
        Attempt(
            "CL.TE, Connection names one",
            _post(b"Connection: Transfer-Encoding", CHUNKED, _length(late)),
            late,
        ),
    ]


OBSCURED: Final = {
    "a space before the colon": b"Transfer-Encoding : chunked",
    "a tab before the colon": b"Transfer-Encoding\t: chunked",
    "a space in front": b" Transfer-Encoding: chunked",
    "folded": b"Transfer-Encoding:\r\n chunked",
    "behind a folded line": b"X: y\r\n Transfer-Encoding: chunked",
    "behind a line feed": b"X: y\nTransfer-Encoding: chunked",
    "behind a CR": b"X: y\rTransfer-Encoding: chunked",
    "its colon on the next line": b"Transfer-Encoding\n: chunked",
    "another word": b"Transfer-Encoding: xchunked",
    "a shorter word": b"Transfer-Encoding: chunk",
    "a vertical tab": b"Transfer-Encoding: \x0bchunked",
    "a form feed": b"Transfer-Encoding:\x0cchunked",
    "a tab behind": b"Transfer-Encoding: chunked\t",
    "a NUL behind": b"Transfer-Encoding: chunked\x00",
    "a byte 0xff": b"Transfer-Encoding: \xffchunked",
    "a next line": b"Transfer-Encoding: \x85chunked",
    "in quotes": b'Transfer-Encoding: "chunked"',
    "in single quotes": b"Transfer-Encoding: 'chunked'",
    "with a parameter": b"Transfer-Encoding: chunked;q=1",
    "with a comma": b"Transfer-Encoding: ,chunked",
    "then identity": b"Transfer-Encoding: chunked, identity",
    "identity first": b"Transfer-Encoding: identity, chunked",
    "only identity": b"Transfer-Encoding: identity",
    "gzip first": b"Transfer-Encoding: gzip, chunked",
    "twice": b"Transfer-Encoding: chunked, chunked",
    "two fields": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    "two fields, the other way round": b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    "two equal fields": b"Transfer-Encoding: chunked\r\nTransfer-encoding: chunked",
    "empty and full": b"Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    "an underscore": b"Transfer_Encoding: chunked",
    "a NUL in the name": b"Transfer\x00-Encoding: chunked",
    "a byte in the name": b"Transfer-Encoding\xff: chunked",
    "no colon": b"Transfer-Encoding chunked",
}


def _obscured() -> list[Attempt]:
    """TE.TE: one side reads the coding, the other passes over it; with a length for that one, and without."""
    late = b"0\r\n\r\n" + SECOND
    found = []
    for name, line in OBSCURED.items():
        found.append(Attempt(f"TE.TE: {name}", _post(_length(late), line), late))
        found.append(Attempt(f"TE.0: {name}", _post(line), late))
    return found


LENGTHS: Final = {
    "a space before the colon": b"Content-Length : %d",
    "a space in front": b" Content-Length: %d",
    "folded": b"Content-Length:\r\n %d",
    "a sign": b"Content-Length: +%d",
    "negative": b"Content-Length: -%d",
    "hexadecimal": b"Content-Length: 0x%x",
    "an underscore in it": b"Content-Length: 0_%d",
    "a list": b"Content-Length: %d, %d",
    "a list of two": b"Content-Length: 0, %d",
    "twice the same": b"Content-Length: %d\r\nContent-Length: %d",
    "0 first": b"Content-Length: 0\r\nContent-Length: %d",
    "0 last": b"Content-Length: %d\r\nContent-Length: 0",
    "a vertical tab": b"Content-Length: \x0b%d",
    "a NUL": b"Content-Length: %d\x00",
    "a dot": b"Content-Length: %d.0",
    "an exponent": b"Content-Length: %de0",
    "empty and full": b"Content-Length:\r\nContent-Length: %d",
    "an underscore in its name": b"Content_Length: %d",
    "behind a line feed": b"X: y\nContent-Length: %d",
    "behind a CR": b"X: y\rContent-Length: %d",
    "more than 64 bits": b"Content-Length: 18446744073709551616%d",
}


def _lengths() -> list[Attempt]:
    """0.CL and CL.0: a length that one side reads and the other does not."""
    size = len(SECOND)
    found = []
    for name, line in LENGTHS.items():
        count = line.count(b"%")
        found.append(Attempt(f"0.CL: {name}", _post(line % ((size,) * count)), SECOND))
    return found


def _bodies() -> list[Attempt]:
    """CL.0: one request, whose body is another one, by methods and fields that make some forget the body."""
    length = _length(SECOND)
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SECOND), SECOND)
    cases = {
        "POST": _post(length),
        "POST, leading zeros": _post(b"Content-Length: 000%d" % len(SECOND)),
        "POST, no space": _post(b"Content-Length:%d" % len(SECOND)),
        "POST, white space behind": _post(length + b" \t"),
        "GET": b"GET /get HTTP/1.1\r\nHost: web\r\n@" + length + b"\r\n\r\n",
        "OPTIONS": b"OPTIONS /options HTTP/1.1\r\nHost: web\r\n@" + length + b"\r\n\r\n",
        "DELETE": b"DELETE /delete HTTP/1.1\r\nHost: web\r\n@" + length + b"\r\n\r\n",
        "absolute form": b"POST http://web/post HTTP/1.1\r\nHost: web\r\n@" + length + b"\r\n\r\n",
        "HTTP/1.0": b"POST /post HTTP/1.0\r\nHost: web\r\n@Connection: keep-alive\r\n" + length + b"\r\n\r\n",
        "Connection names the length": _post(b"Connection: content-length", length),
        "Connection names Host": _post(b"Connection: host, keep-alive", length),
        "Upgrade to a WebSocket": _post(b"Connection: Upgrade", b"Upgrade: websocket", length),
        "Upgrade to h2c": _post(
            b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAA", length
        ),
        "Expect of something else": _post(b"Expect: y 100-continue", length),
        "Content-Type of a form": _post(b"Content-Type: application/x-www-form-urlencoded", length),
    }
    found = [Attempt(f"CL.0: {name}", head, SECOND, "once") for name, head in cases.items()]
    codings = {
        "as it is": CHUNKED,
        "no space": b"Transfer-Encoding:chunked",
        "a tab in front": b"Transfer-Encoding:\tchunked",
        "a space behind": CHUNKED + b" ",
        "capitals": b"TRANSFER-ENCODING: CHUNKED",
        "Connection names it": b"Connection: transfer-encoding\r\n" + CHUNKED,
        "with Expect": b"Expect: y 100-continue\r\n" + CHUNKED,
    }
    found += [Attempt(f"TE: {name}", _post(line), chunks, "once") for name, line in codings.items()]
    return found


CHUNKS: Final = {
    "an extension ends in LF": b"5;a\nhello\r\n0\r\n\r\n",
    "a line feed in an extension": b"3;a\nhello\r\n0\r\n\r\n",
    "a CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "CRLF in a quoted extension": b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n',
    "LF in a quoted extension": b'5;a="\n"\r\nhello\r\n0\r\n\r\n',
    "a NUL in an extension": b"5;a\x00\r\nhello\r\n0\r\n\r\n",
    "a bare semicolon, then LF": b"5;\nhello\r\n0\r\n\r\n",
    "a size ends in LF": b"5\nhello\r\n0\r\n\r\n",
    "a size ends in CR": b"5\rhello\r\n0\r\n\r\n",
    "a size ends in CR CR LF": b"5\r\r\nhello\r\n0\r\n\r\n",
    "a size ends in CR and a letter": b"5\rX\nhello\r\n0\r\n\r\n",
    "a space behind a size": b"5 \r\nhello\r\n0\r\n\r\n",
    "a space in front of a size": b" 5\r\nhello\r\n0\r\n\r\n",
    "a tab behind a size": b"5\t\r\nhello\r\n0\r\n\r\n",
    "a space before an extension": b"5 ;a\r\nhello\r\n0\r\n\r\n",
    "hexadecimal with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a signed size": b"+5\r\nhello\r\n0\r\n\r\n",
    "a negative size": b"-1\r\nhello\r\n0\r\n\r\n",
    "an underscore in a size": b"0_5\r\nhello\r\n0\r\n\r\n",
    "a size of more than 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a size of more than 32 bits": b"100000005\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "a size that is no number": b"G\r\nhello\r\n0\r\n\r\n",
    "data ends in LF": b"5\r\nhello\n0\r\n\r\n",
    "data ends in CR": b"5\r\nhello\r0\r\n\r\n",
    "data ends in two letters": b"5\r\nhelloXX0\r\n\r\n",
    "data ends in nothing": b"5\r\nhello0\r\n\r\n",
    "the end in LF": b"0\n\n",
    "the end in LF and CRLF": b"0\n\r\n",
    "the end in CRLF and LF": b"0\r\n\n",
    "the last line is no empty one": b"0\r\nX\r\n\r\n",
    "a folded trailer": b"0\r\nX: y\r\n z\r\n\r\n",
    "a trailer behind LF": b"0\r\nX: y\nZ: a\r\n\r\n",
    "a space before the colon of a trailer": b"0\r\nX : y\r\n\r\n",
    "a trailer that is a length": b"0\r\nContent-Length: 50\r\n\r\n",
    "a trailer that is a coding": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a trailer that is a host": b"0\r\nHost: other\r\n\r\n",
}
GOOD_CHUNKS: Final = {
    "extensions": b'5;a;b=c;d="e;f"\r\nhello\r\n0;g\r\n\r\n',
    "leading zeros": b"0005\r\nhello\r\n000\r\n\r\n",
    "capitals": b"%X\r\n%b\r\n0\r\n\r\n" % (len(SECOND), SECOND),
    "a trailer that looks like a request": b"0\r\nGET-smuggled: HTTP/1.1\r\nX-Marker: smuggled\r\n\r\n",
}


def _chunks() -> list[Attempt]:
    found = [
        Attempt(f"chunks: {name}", _post(CHUNKED), body + SECOND, "cut") for name, body in CHUNKS.items()
    ]
    found += [Attempt(f"chunks: {name}", _post(CHUNKED), body, "once") for name, body in GOOD_CHUNKS.items()]
    found.append(Attempt("chunks: they do not end", _post(CHUNKED), b"5\r\nhello\r\n", "cut", waits=True))
    found.append(
        Attempt("a body that does not end", _post(b"Content-Length: 500"), SECOND, "cut", waits=True)
    )
    return found


def _lines() -> list[Attempt]:
    """Heads whose end, or the end of whose lines, is a matter of opinion."""
    length = _length(SECOND)
    endings = {
        "LF LF": b"\n\n",
        "LF CRLF": b"\n\r\n",
        "CRLF LF": b"\r\n\n",
        "CR CR": b"\r\r",
        "CR CR LF": b"\r\r\n",
        "CRLF CR": b"\r\n\rX: y\r\n\r\n",
        "CRLF NUL CRLF": b"\r\n\0\r\n\r\n",
        "CRLF and a space": b"\r\n \r\n\r\n",
    }
    found = [Attempt(f"end of head: {n}", _post(length, ending=e), SECOND) for n, e in endings.items()]
    for name, line in {
        "a NUL in a value": b"X: a\0b",
        "a DEL in a name": b"X\x7f: a",
        "a CR in a value": b"X: a\r\rb",
        "a line feed in a name": b"X\nY: a",
        "an empty name": b": a",
        "a second head in a value, behind LF": b"X: a\n\nGET /smuggled HTTP/1.1\nHost: web",
    }.items():
        found.append(Attempt(f"line: {name}", _post(line, length), SECOND))
    return found


def _request_lines() -> list[Attempt]:
    rest = b"Host: web\r\n@" + _length(SECOND) + b"\r\n\r\n"
    cases = {
        "no version": b"POST /post\r\n",
        "two versions": b"POST /post HTTP/1.1 HTTP/1.1\r\n",
        "two spaces": b"POST  /post HTTP/1.1\r\n",
        "a tab": b"POST\t/post HTTP/1.1\r\n",
        "a space in the target": b"POST /post /smuggled HTTP/1.1\r\n",
        "a line feed in the target": b"POST /post\n HTTP/1.1\r\n",
        "a CR in the target": b"POST /post\r HTTP/1.1\r\n",
        "a NUL in the target": b"POST /post\0 HTTP/1.1\r\n",
        "LF": b"POST /post HTTP/1.1\n",
        "CR": b"POST /post HTTP/1.1\r",
        "a space behind": b"POST /post HTTP/1.1 \r\n",
        "HTTP/0.9": b"POST /post HTTP/0.9\r\n",
        "HTTP/1.10": b"POST /post HTTP/1.10\r\n",
        "HTTP/2.0": b"POST /post HTTP/2.0\r\n",
        "http/1.1": b"POST /post http/1.1\r\n",
        "a lower-case method": b"post /post HTTP/1.1\r\n",
        "a fragment": b"POST /post#/../admin HTTP/1.1\r\n",
        "a backslash": b"POST /public\\..\\admin HTTP/1.1\r\n",
        "no slash": b"POST post HTTP/1.1\r\n",
        "an authority": b"POST web:80 HTTP/1.1\r\n",
        "CONNECT": b"CONNECT web:80 HTTP/1.1\r\n",
        "another host": b"POST http://other/post HTTP/1.1\r\n",
        "user and host": b"POST http://web@other/post HTTP/1.1\r\n",
        "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n",
    }
    found = [Attempt(f"request line: {name}", line + rest, SECOND) for name, line in cases.items()]
    hosts = {
        "two": b"Host: web\r\nHost: other\r\n",
        "none": b"",
        "a path in it": b"Host: web/admin\r\n",
        "a space in it": b"Host: web other\r\n",
        "folded": b"Host: web\r\n other\r\n",
    }
    rest = b"@" + _length(SECOND) + b"\r\n\r\n"
    found += [Attempt(f"host: {n}", b"POST /post HTTP/1.1\r\n" + h + rest, SECOND) for n, h in hosts.items()]
    return found
