"""The heads of HTTP/1.1 messages: one compiled expression reads a whole head (RFC 9112), strictly.

A head that two parsers could read differently is refused, never repaired: bare CR or LF, white space before
the colon, obs-fold, control bytes, signs or lists in lengths, both Content-Length and Transfer-Encoding,
lower-case methods (some servers read `head` as HEAD, which has no body), fragments and backslashes in paths.
Nothing here does I/O. Heads stay bytes; fields that nothing needs are never parsed.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from nodeagent.proxy.message import (
    AUTHORITY,
    CHUNKED,
    COUNTED_METHODS,
    FIELD,
    METHOD,
    NO_BODY,
    TARGET,
    HeadError,
    RequestHead,
    ResponseHead,
    count_forward,
    split_fields,
)

STATUS_LINE: Final = rb"HTTP/1\.[01] [1-5][0-9][0-9](?: [\t\x20-\x7e\x80-\xff]*+)?+\r\n"

_REQUEST: Final = re.compile(rb"(%b++) (?! )(%b) HTTP/1\.([01])\r\n((?:%b)*+)\r\n" % (METHOD, TARGET, FIELD))
_RESPONSE: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*+)?+\r\n((?:%b)*+)\r\n" % FIELD
)

# The fields that decide framing, connection and routing; all others pass untouched and unread. The line
# feed in front is a literal prefix, which lets `re` skip from line to line, and the sets of two letters let
# it skip alternatives. Framing fields spelled with an underscore are what CGI turns into the same variable.
_REQUEST_SPECIAL: Final = re.compile(
    rb"\n([Cc](?i:onnection|ontent[-_]length)|[Ee](?i:xpect)|[Hh](?i:ost)|[Kk](?i:eep-alive)"
    rb"|[Pp](?i:roxy-connection)|[Tt](?i:e|ransfer[-_]encoding)|[Uu](?i:pgrade)|[Xx](?i:-forwarded-for))"
    rb":[ \t]*+([^\r]*+)"
)
_RESPONSE_SPECIAL: Final = re.compile(
    rb"\n([Cc](?i:onnection|ontent-length)|[Kk](?i:eep-alive)|[Pp](?i:roxy-connection)"
    rb"|[Tt](?i:e|ransfer-encoding)|[Uu](?i:pgrade)):[ \t]*+([^\r]*+)"
)
_TRAILERS: Final = re.compile(rb"(?i:(?:^|,)[ \t]*trailers[ \t]*(?:,|;|$))")
_UNDERSCORED: Final = frozenset((b"content_length", b"transfer_encoding"))
_LONGEST_LENGTH: Final = 18
"""Digits."""
_MOST_OPTIONS: Final = 128
"""Of Connection. Thousands of them fit into a head, and each would be looked for in all of it."""
_ABSOLUTE: Final = re.compile(rb"https?://([^/?@]+)([/?][\x21-\x7e]*)?", re.IGNORECASE)
_AUTHORITY: Final = re.compile(AUTHORITY)


def parse_request(  # noqa: C901 one loop
    data: bytes, default_host: bytes = b"", position: int = 0
) -> RequestHead | None:
    """Read the request head at `position` of `data`; None if it does not match as a whole.

    None means incomplete or malformed: `nodeagent.proxy.http1.incomplete` tells which. `default_host` is the
    Host that goes to the endpoint when an HTTP/1.0 client has named none (RFC 9112 section 3.2).

    Raises:
        HeadError: the head is complete and well formed, but may not be forwarded.
    """
    match = _REQUEST.match(data, position)
    if match is None:
        return None
    method, target, minor, fields = match.groups()
    start, end = match.span(4)
    end += 2
    head = RequestHead(method, target, minor, fields, end)
    hop_by_hop = False
    expects = False
    hosts = 0
    length = b""
    coding: bytes | None = None
    options = b""
    upgrade = b""
    # Begins at the line feed that ends the request line.
    for name, value in _REQUEST_SPECIAL.findall(data, start - 1, end):
        name = name.lower()
        if name == b"host":
            hosts += 1
            if _AUTHORITY.fullmatch(value.rstrip()) is None:
                raise HeadError("host", "Host is not a valid authority (RFC 9112 section 3.2)")
        elif name == b"content-length":
            if length:
                raise HeadError("content_length", "Content-Length is repeated (RFC 9112 section 6.3)")
            length = _checked_length(value)
        elif name == b"transfer-encoding":
            if coding is not None:
                raise HeadError("transfer_encoding", "Transfer-Encoding is repeated")
            coding = value
        elif name == b"expect":
            expects = True
        elif name == b"x-forwarded-for":
            previous = value.rstrip()
            if previous:
                head.forwarded_for = head.forwarded_for + b", " + previous if head.forwarded_for else previous
            hop_by_hop = True
        elif name in _UNDERSCORED:
            raise HeadError("malformed_field", "a framing field is spelled with an underscore")
        else:
            hop_by_hop = True
            if name == b"connection":
                options += b"," + value if options else value
            elif name == b"upgrade":
                upgrade = upgrade + b", " + value.rstrip() if upgrade else value.rstrip()
            elif name == b"te":
                head.trailers = _TRAILERS.search(value) is not None
    if (minor == b"1" and hosts != 1) or hosts > 1:
        raise HeadError("host", "a request has exactly one Host (RFC 9112 section 3.2)")
    if coding is not None:
        head.length = _chunked(coding, length, minor, 501)
    elif length:
        head.length = int(length)
    tokens: frozenset[bytes] = frozenset()
    if options:
        tokens = _connection_options(options)
        head.keep_alive = b"close" not in tokens and (minor == b"1" or b"keep-alive" in tokens)
        if upgrade and b"upgrade" in tokens and minor == b"1" and head.length == NO_BODY:
            head.upgrade = b"" if b"h2c" in upgrade.lower() else upgrade
    if method == b"CONNECT":
        raise HeadError("connect", "the mesh is not a forward proxy: CONNECT is not implemented", 501)
    if target[:1] != b"/":
        target, authority = _origin_form(method, target, fields)
        head.target = target
        default_host = authority or default_host
    if hop_by_hop:
        head.fields = without_hop_by_hop(fields, tokens, forwarded_for=True)
    if method in COUNTED_METHODS:
        head.fields = count_forward(head.fields)
    if expects and (head.length == NO_BODY or minor == b"0"):
        # Nothing to wait with, or nobody who waits (RFC 9110 section 10.1.1): some endpoints do.
        head.fields = _EXPECT_LINES.sub(b"", b"\n" + head.fields)[1:]
    if not hosts:
        head.fields = b"Host: %b\r\n%b" % (default_host, head.fields)
    return head


def parse_response(data: bytes, to_head: bool) -> ResponseHead | None:  # noqa: C901 as above
    """Read the response head at the start of `data`; None if it does not match as a whole.

    `to_head` says that the request's method was HEAD. RFC 9112 section 6.3 decides the length.

    Raises:
        HeadError: the head is complete, but its framing cannot be trusted.
    """
    match = _RESPONSE.match(data)
    if match is None:
        return None
    minor, code, fields = match.groups()
    start, end = match.span(3)
    end += 2
    head = ResponseHead(int(code), minor, data[9 : start - 2], fields, end)
    if start == 14:  # "HTTP/1.1 200" and no space: RFC 9112 section 4 wants one, so the client gets one
        head.status_line += b" "
    length = b""
    coding: bytes | None = None
    options = b""
    upgrade = b""
    hop_by_hop = False
    for name, value in _RESPONSE_SPECIAL.findall(data, start - 1, end):
        name = name.lower()
        if name == b"content-length":
            if length:
                raise HeadError("content_length", "Content-Length is repeated")
            length = _checked_length(value)
        elif name == b"transfer-encoding":
            if coding is not None:
                raise HeadError("transfer_encoding", "Transfer-Encoding is repeated", 502)
            coding = value
        else:
            hop_by_hop = True
            if name == b"connection":
                options += b"," + value if options else value
            elif name == b"upgrade":
                upgrade = upgrade + b", " + value.rstrip() if upgrade else value.rstrip()
    if coding is not None:
        head.length = _chunked(coding, length, minor, 502)
    elif length:
        head.length = int(length)
    status = head.status
    if to_head or status < 200 or status in (204, 304):
        head.length = NO_BODY
    if (status < 200 or status == 204) and (coding is not None or length):
        # RFC 9112 section 6.1 and RFC 9110 section 8.6: these never have a body, nor the length of one.
        if status < 200 and (coding is not None or length.strip(b"0")):
            raise HeadError("ambiguous_length", "an interim response that announces a body", 502)
        # Servers do that; a client that relied on it would wait for ever.
        fields = head.fields = _FRAMING_LINES.sub(b"", b"\n" + fields)[1:]
    tokens: frozenset[bytes] = frozenset()
    if options:
        tokens = _connection_options(options)
        head.keep_alive = b"close" not in tokens and (minor == b"1" or b"keep-alive" in tokens)
    if hop_by_hop:
        head.fields = without_hop_by_hop(fields, tokens)
        if status == 101 or status == 426:
            head.upgrade = upgrade
    return head


def _checked_length(value: bytes) -> bytes:
    if not value.isdigit():  # of bytes, only those of ASCII are digits
        value = value.rstrip(b" \t")
    if not value.isdigit() or len(value) > _LONGEST_LENGTH:
        raise HeadError("content_length", "Content-Length is not a plain number of bytes")
    return value


def _split_options(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b","))


_known_options: Final = functools.lru_cache(maxsize=256)(_split_options)


def _connection_options(value: bytes) -> frozenset[bytes]:
    """Return the lower-case options of Connection; the same few values come again and again.

    Raises:
        HeadError: there are too many of them.
    """
    if len(value) <= 64:
        return _known_options(value)
    if value.count(b",") >= _MOST_OPTIONS:
        raise HeadError("head_too_large", f"Connection has more than {_MOST_OPTIONS} options", 431)
    return _split_options(value)


def _chunked(coding: bytes, length: bytes, minor: bytes, status: int) -> int:
    """Return the length of a message with a transfer coding; `status` is for a coding we do not know."""
    if length:
        raise HeadError("ambiguous_length", "both Content-Length and Transfer-Encoding (RFC 9112 6.3)")
    if minor == b"0":
        raise HeadError("transfer_encoding", "Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1)")
    _check_coding(coding, status)
    return CHUNKED


def _check_coding(coding: bytes, status: int) -> None:
    # A tab after it is white space to RFC 9110, but part of the coding's name to llhttp: refused.
    if coding.rstrip(b" ").lower() == b"chunked":
        return
    if status == 501 and coding.rpartition(b",")[2].strip().lower() != b"chunked":
        detail = "the last transfer coding is not `chunked` (RFC 9112 section 6.3)"
        raise HeadError("transfer_encoding", detail)
    raise HeadError("transfer_encoding", "the only transfer coding understood is one `chunked`", status)


def _origin_form(method: bytes, target: bytes, fields: bytes) -> tuple[bytes, bytes]:
    """Turn absolute form into origin form and authority (RFC 9112 section 3.2.2); `*` is only for OPTIONS."""
    if target == b"*" and method == b"OPTIONS":
        return target, b""
    match = _ABSOLUTE.fullmatch(target)
    if match is None or _AUTHORITY.fullmatch(match[1]) is None:
        raise HeadError("target", "the request target is neither /path nor http://host/path")
    authority = match[1]
    host = dict(split_fields(fields)).get("host")
    if host is not None and host.encode("latin-1").lower() != authority.lower():
        raise HeadError("host", "Host differs from the authority of the request target")
    path = match[2]
    if path is None:  # RFC 9112 section 3.2.4
        return (b"*" if method == b"OPTIONS" else b"/"), authority
    return (path if path[:1] == b"/" else b"/" + path), authority


# A field's line with the line feed in front of it but without its own. `TE: trailers` is kept.
_HOP_BY_HOP: Final = (
    rb"[Cc](?i:onnection)|[Kk](?i:eep-alive)|[Pp](?i:roxy-connection)|[Uu](?i:pgrade)"
    rb"|[Tt][Ee](?!:[ \t]*+(?i:trailers)[ \t]*+\r)"
)
_HOP_BY_HOP_LINES: Final = re.compile(rb"\n(?:%b):[^\n]*+" % _HOP_BY_HOP)
_HOP_BY_HOP_AND_FORWARDED_LINES: Final = re.compile(
    rb"\n(?:%b|[Xx](?i:-forwarded-for)):[^\n]*+" % _HOP_BY_HOP
)
_EXPECT_LINES: Final = re.compile(rb"\n[Ee](?i:xpect):[^\n]*+")
_FRAMING_LINES: Final = re.compile(rb"\n(?:[Cc](?i:ontent-length)|[Tt](?i:ransfer-encoding)):[^\n]*+")

# Options of Connection that name no further field to drop: those that are dropped anyhow, and those that are
# never hop-by-hop, whatever Connection says, because without them the message means something else.
_NOT_NAMED: Final = frozenset(
    (b"", b"close", b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade")
)
_NEVER_DROPPED: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"cookie"))
_KEPT: Final = _NOT_NAMED | _NEVER_DROPPED


def without_hop_by_hop(fields: bytes, connection: frozenset[bytes], forwarded_for: bool = False) -> bytes:
    """Remove the fields that end at this hop (RFC 9110 section 7.6.1), `TE: trailers` kept.

    `connection` are the lower-case options of the Connection field; `forwarded_for` removes
    X-Forwarded-For as well.
    """
    lines = _HOP_BY_HOP_AND_FORWARDED_LINES if forwarded_for else _HOP_BY_HOP_LINES
    fields = lines.sub(b"", b"\n" + fields)[1:]
    if connection <= _KEPT:
        return fields
    named = connection - _KEPT
    return b"\r\n".join(
        line for line in fields.split(b"\r\n") if line.partition(b":")[0].lower() not in named
    )
