"""Messages for the differential tests: much that is right, and all that has been read in two ways before."""

from __future__ import annotations

from random import Random
from typing import Final

from hypothesis import strategies as st

METHODS: Final = (
    b"GET",
    b"GET",
    b"POST",
    b"PUT",
    b"HEAD",
    b"OPTIONS",
    b"DELETE",
    b"CONNECT",
    b"PATCH",
    b"BREW",
)
TARGETS: Final = (
    b"/",
    b"/",
    b"/a/b?c=d",
    b"/%00?x=[1]|{2}",
    b"//a/b",
    b"/a;b=c",
    b"*",
    b"http://a/",
    b"http://a",
    b"http://a?x",
    b"HTTP://A/x",
    b"http://b/",
    b"/#x",
    b"/a\\b",
    b"/?a\\b",
    b"?x",
    b"a",
    b"http://u@a/",
    b"/\xff",
    b'/"<>^`',
)
VERSIONS: Final = (b"HTTP/1.1",) * 8 + (b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1")
PLAIN_FIELDS: Final = (
    b"Accept: */*",
    b"x:",
    b"X-Y: a, b ,c",
    b"x-z:\t\xe9\xff ",
    b'User-Agent: (a; b) "c"',
    b"Cookie: a=b",
    b"Expect: 100-continue",
    b"TE: trailers",
    b"TE: gzip",
    b"Trailer: x",
    b"Keep-Alive: timeout=5",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: x-y, TE",
    b"connection: Close ,keep-alive",
    b"Connection: host, content-length, transfer-encoding",
    b"Connection:",
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Proxy-Connection: close",
    b"X-Forwarded-For: 1.2.3.4",
    b"X-Forwarded-For:",
    b"x-forwarded-for: a, b",
)
FRAMING_FIELDS: Final = (
    b"Content-Length: 3",
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"content-length:3",
    b"Content-Length: 03",
    b"Content-Length: +3",
    b"Content-Length: 3, 3",
    b"Content-Length: 0x3",
    b"Content-Length: 3_0",
    b"Content-Length:",
    b"Content-Length: 99999999999999999999",
    b"Content-Length : 3",
    b"Content_Length: 3",
    b"Content-Length: 3\t",
    b"Content-Length: -1",
    b"Content-Length: 3;",
    b"Content-Length: \x0b3",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: CHUNKED",
    b"Transfer-Encoding:",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked;",
    b"Transfer-Encoding: chunked ",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: identity",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: ,chunked",
    b" Transfer-Encoding: chunked",
    b"Transfer_Encoding: chunked",
    b"Transfer-Encoding:\tchunked\t",
    b"Host: a",
    b"Host: b",
    b"Host:",
    b"host: a:80",
    b"Host: a b",
)
CHUNK_BODIES: Final = (
    b"0\r\n\r\n",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"003\r\nabc\r\n1;x=y\r\nd\r\n0;z\r\nt: u\r\n\r\n",
    b"A\r\n0123456789\r\n0\r\n\r\n",
    b'3;a="b;c"\r\nabc\r\n00\r\nx: y\r\nz:\r\n\r\n',
    b"3 \r\nabc\r\n0\r\n\r\n",
    b"3 ;a\r\nabc\r\n0\r\n\r\n",
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b"+3\r\nabc\r\n0\r\n\r\n",
    b"3\nabc\n0\n\n",
    b"3\r\nabc0\r\n\r\n",
    b"3\r\nabcd\r\n0\r\n\r\n",
    b"3_0\r\n",
    b"-1\r\n\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n",
    b"0\r\n x\r\n\r\n",
    b"0\r\n\n",
    b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    b"\r\n0\r\n\r\n",
    b"0\r\nX : y\r\n\r\n",
    b";x\r\n\r\n",
    b"0\r\nhost: b\r\n\r\n",
    b'3;a="\\""\r\nabc\r\n0\r\n\r\n',
    b"3;=\r\nabc\r\n0\r\n\r\n",
    b"3;a=\r\nabc\r\n0\r\n\r\n",
    b"3\r\r\nabc\r\n0\r\n\r\n",
)
BODIES: Final = (b"", b"", b"abc", b"abcde", b"abcGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", *CHUNK_BODIES)
ODD_BYTES: Final = (
    b"\r",
    b"\n",
    b"\r\n",
    b"\x00",
    b"\t",
    b" ",
    b"\x0b",
    b"\x0c",
    b":",
    b",",
    b";",
    b"0",
    b"\x7f",
    b"\x80",
    b"\x85",
    b"\xa0",
    b"\xff",
    b"_",
    b"-",
    b"+",
    b"#",
    b"\\",
    b"\r\n ",
    b"\r\n\r\n",
    b"\n\n",
    b"\x1f",
    b"%0d%0a",
    b"/",
    b"?",
    b'"',
)
STATUS_LINES: Final = (
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200",
    b"HTTP/1.1 200 ",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 204 No",
    b"HTTP/1.1 304 Not",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 103 Early",
    b"HTTP/1.1 101 Switch",
    b"HTTP/1.1 500 \xe9",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 99 X",
    b"HTTP/1.1 600 X",
    b"HTTP/2.0 200 OK",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1 205 Reset",
    b"ICY 200 OK",
    b"HTTP/1.1 20x OK",
    b"HTTP/1.1 404 a\tb",
)

MATCHING: Final = tuple(([b"Transfer-Encoding: chunked"], body) for body in CHUNK_BODIES) + tuple(
    ([b"Content-Length: %d" % len(body)], body) for body in (b"", b"abc", b"\r\n", b"GET / HTTP/1.1\r\n\r\n")
)


@st.composite
def mutated(draw: st.DrawFn, message: bytes) -> bytes:
    """The message with up to three things wrong."""
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 1, 1, 2, 3)))):
        at = draw(st.integers(0, len(message)))
        kind = draw(
            st.sampled_from(("insert", "insert", "flip", "delete", "duplicate", "remove", "move", "ending"))
        )
        if kind == "insert":
            message = message[:at] + draw(st.sampled_from(ODD_BYTES)) + message[at:]
        elif kind == "flip" and message[at:]:
            message = message[:at] + bytes([message[at] ^ (1 << draw(st.integers(0, 7)))]) + message[at + 1 :]
        elif kind == "delete":
            message = message[:at] + message[at + draw(st.integers(1, 4)) :]
        elif kind == "ending":
            ending = draw(st.sampled_from((b"\n", b"\r", b"\n\r", b"\r\r\n", b" \r\n", b"\x00\r\n")))
            before, _, after = message[at:].partition(b"\r\n")
            message = message[:at] + before + ending + after
        else:
            lines = message.split(b"\r\n")
            line = draw(st.integers(0, len(lines) - 1))
            other = draw(st.integers(0, len(lines) - 1))
            if kind == "duplicate":
                lines.insert(other, lines[line])
            elif kind == "remove":
                del lines[line]
            else:
                lines.insert(other, lines.pop(line))
            message = b"\r\n".join(lines)
    return message


def _mostly(usual: tuple[bytes, ...], odd: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    return st.integers(0, 11).flatmap(lambda n: st.sampled_from(usual if n else odd))


REQUEST_LINES: Final = st.tuples(
    _mostly(METHODS[:6], METHODS), _mostly(TARGETS[:6], TARGETS), _mostly((b"HTTP/1.1",), VERSIONS)
).map(b" ".join)


@st.composite
def one(draw: st.DrawFn, request: bool) -> bytes:
    """One message, mutated."""
    line = draw(REQUEST_LINES if request else _mostly(STATUS_LINES[:10], STATUS_LINES))
    fields = [b"Host: a"] if request and draw(st.integers(0, 15)) else []
    fields += draw(st.lists(st.sampled_from(PLAIN_FIELDS), max_size=3))
    if draw(st.integers(0, 4)):
        framing, body = draw(st.sampled_from(MATCHING))
        fields = fields + framing
    else:
        fields += draw(st.lists(st.sampled_from(FRAMING_FIELDS), max_size=2))
        body = draw(st.sampled_from(BODIES))
    order = draw(st.permutations(fields)) if len(fields) < 5 else fields
    message = b"".join((line, b"\r\n", *(field + b"\r\n" for field in order), b"\r\n", body))
    return draw(mutated(message))


CUTS: Final = st.lists(st.integers(0, 400), max_size=6)
REQUESTS: Final = st.lists(one(request=True), min_size=1, max_size=2).map(b"".join)
RESPONSES: Final = st.lists(one(request=False), min_size=1, max_size=2).map(b"".join)


# The same without hypothesis, which spends most of its time on drawing.


def _random_lines(random: Random, request: bool) -> tuple[bytes, list[bytes], bytes]:
    """Return (start line, fields, body)."""

    def mostly(usual: tuple[bytes, ...], odd: tuple[bytes, ...]) -> bytes:
        return random.choice(usual if random.random() < 0.92 else odd)

    if request:
        line = b" ".join(
            (mostly(METHODS[:6], METHODS), mostly(TARGETS[:6], TARGETS), mostly((b"HTTP/1.1",), VERSIONS))
        )
    else:
        line = mostly(STATUS_LINES[:10], STATUS_LINES)
    fields = [b"Host: a"] if request and random.random() < 0.94 else []
    fields += random.sample(PLAIN_FIELDS, random.randint(0, 4))
    if random.random() < 0.75:
        framing, body = random.choice(MATCHING)
        fields += framing
    else:
        fields += random.sample(FRAMING_FIELDS, random.randint(0, 2))
        body = random.choice(BODIES)
    random.shuffle(fields)
    return line, fields, body


def _random_mutation(random: Random, message: bytes) -> bytes:
    at = random.randint(0, len(message))
    before, after = message[:at], message[at:]
    kind = random.randrange(10)
    if kind < 4:
        return before + random.choice(ODD_BYTES) + after
    if kind < 6:
        return before + bytes([random.randrange(256)]) + after[1:]
    if kind < 7:
        return before + after[random.randint(1, 4) :]
    if kind < 8:
        line, _, rest = after.partition(b"\r\n")
        return before + line + random.choice((b"\n", b"\r", b"\n\r", b"\r\r\n", b" \r\n")) + rest
    lines = message.split(b"\r\n")
    line = random.choice(lines) if kind < 9 else lines.pop(random.randrange(len(lines)))
    lines.insert(random.randint(0, len(lines)), line)
    return b"\r\n".join(lines)


def random_wire(random: Random, request: bool) -> bytes:
    """One or two messages, mutated."""
    wire = b""
    for _ in range(random.choice((1, 1, 2))):
        line, fields, body = _random_lines(random, request)
        message = b"".join((line, b"\r\n", *(field + b"\r\n" for field in fields), b"\r\n", body))
        for _ in range(random.choice((0, 1, 1, 1, 2, 3, 5))):
            message = _random_mutation(random, message)
        wire += message
    return wire
