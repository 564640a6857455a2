"""A header field of HTTP/2: checked once, rendered for HTTP/1 once, then only referred to.

Names and values are checked as strictly as HTTP/1's, and as RFC 9113 section 8.2 wants it besides: nothing
that a line of HTTP/1 could not hold gets into one. A field that is not right still is a field, for the table
follows it; its `fault` says what is wrong.
"""

from __future__ import annotations

import re
from typing import Final

from nodeagent.proxy.http2.grpc_timeout import parse_timeout
from nodeagent.proxy.message import AUTHORITY, METHOD, TARGET

(
    ORDINARY,
    FAULTY,
    METHOD_KIND,
    CONNECT,
    OPTIONS,
    SCHEME,
    PATH,
    ASTERISK,
    AUTHORITY_KIND,
    PROTOCOL,
    WEBSOCKET,
    STATUS,
    HOST,
    LENGTH,
    TE,
    FORWARDED_FOR,
    COOKIE,
    EXPECT,
    UNDERSCORED,
    CONTENT_TYPE,
    GRPC,
    TIMEOUT,
) = range(22)
"""What a field is to a message: the order of these in a head decides whether it is one."""

PSEUDO: Final = range(METHOD_KIND, STATUS + 1)

SECRET: Final = frozenset((b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"))
"""What is remembered for the connection that it came over, and nowhere else."""

CONNECTION_FIELDS: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
"""What HTTP/2 does not have (RFC 9113 section 8.2.2)."""

_KINDS: Final = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"te": TE,
    b"x-forwarded-for": FORWARDED_FOR,
    b"cookie": COOKIE,
    b"expect": EXPECT,
    b"content_length": UNDERSCORED,
    b"transfer_encoding": UNDERSCORED,
    b"content-type": CONTENT_TYPE,
    b"grpc-timeout": TIMEOUT,
}
_PSEUDO_KIND: Final = 255
"""Of a name only: which it is depends on the value as well."""
_JUDGED: Final = frozenset((HOST, LENGTH, TE, CONTENT_TYPE, TIMEOUT))
_METHODS: Final = {b"CONNECT": CONNECT, b"OPTIONS": OPTIONS}

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]++")
_VALUE: Final = re.compile(rb"(?![\t\x20])[\t\x20-\x7e\x80-\xff]*+(?<![\t\x20])")
_METHOD: Final = re.compile(METHOD + rb"++")
PATH_PATTERN: Final = re.compile(rb"(?=/)" + TARGET)
_AUTHORITY: Final = re.compile(rb"(?=[^:])(?:%b)" % AUTHORITY)
_STATUS: Final = re.compile(rb"[1-5][0-9][0-9]")
_GRPC: Final = re.compile(rb"application/grpc(?:[+;].*)?", re.IGNORECASE | re.DOTALL)
"""Not `application/grpc-web`."""
_LONGEST_LENGTH: Final = 18
"""Digits."""

Fault = tuple[str, str]
"""The word for metrics, and the text for people."""


class _Name:
    """A field name, checked once."""

    __slots__ = ("fault", "kind", "prefix", "secret")

    def __init__(self, name: bytes) -> None:
        self.secret = name in SECRET
        self.prefix = name + b": "
        self.fault: Fault | None = None
        self.kind = _KINDS.get(name, ORDINARY)
        if name[:1] == b":":
            self.kind = _PSEUDO_KIND
        elif _NAME.fullmatch(name) is None:
            self.kind, self.fault = FAULTY, _bad_name(name)
        elif name in CONNECTION_FIELDS:
            reason = "transfer_encoding" if name == b"transfer-encoding" else "connection_field"
            detail = f"{name.decode()} is not a field of HTTP/2 (RFC 9113 section 8.2.2)"
            self.kind, self.fault = FAULTY, (reason, detail)


_names: Final[dict[bytes, _Name]] = {}
_MOST_NAMES: Final = 1024
_LONGEST_NAME: Final = 64


def _new_name(name: bytes) -> _Name:
    known = _Name(name)
    if len(name) <= _LONGEST_NAME:
        if len(_names) >= _MOST_NAMES:
            _names.clear()
        _names[name] = known
    return known


class Field:
    """One field. `line` is what it is in HTTP/1; `size` counts as in RFC 7541 section 4.1."""

    __slots__ = ("fault", "kind", "line", "name", "secret", "size", "value")

    def __init__(self, name: bytes, value: bytes, never_indexed: bool = False) -> None:
        known = _names.get(name) or _new_name(name)
        self.name = name
        self.value = value
        self.size = len(name) + len(value) + 32
        self.secret = known.secret or never_indexed
        self.line = b""
        self.fault = known.fault
        self.kind = kind = known.kind
        if kind == _PSEUDO_KIND:
            self.kind = self._pseudo(name, value)
        elif _VALUE.fullmatch(value) is None:
            if kind != FAULTY:
                self.kind = self._faulty(*_bad_value(name, value))
        else:
            prefix = known.prefix
            self.line = (prefix[:-1] if never_indexed or not value else prefix) + value + b"\r\n"
            if kind in _JUDGED:
                self.kind = self._judged(kind, value)

    @property
    def cost(self) -> int:
        """Bytes that it takes: the strings, the line, the key that it is found by, and the objects."""
        return 3 * self.size + 400

    def _judged(self, kind: int, value: bytes) -> int:
        """Check a value that has to be more than well formed, or that says what the message is."""
        if kind == CONTENT_TYPE:
            return GRPC if _GRPC.fullmatch(value) is not None else ORDINARY
        if kind == LENGTH and not (value.isdigit() and len(value) <= _LONGEST_LENGTH):
            return self._faulty("content_length", "content-length is not a plain number of bytes")
        if kind == TE and value.lower() != b"trailers":
            return self._faulty("connection_field", "te may only say `trailers` (RFC 9113 section 8.2.2)")
        if kind == HOST and _AUTHORITY.fullmatch(value) is None:
            return self._faulty("host", "host is not a valid authority (RFC 9113 section 8.3.1)")
        if kind == TIMEOUT and not parse_timeout(value):
            return ORDINARY
        return kind

    def _pseudo(self, name: bytes, value: bytes) -> int:
        if name == b":path":
            if value == b"*":
                return ASTERISK
            if PATH_PATTERN.fullmatch(value) is not None:
                return PATH
            return self._faulty("target", ":path is not a path (RFC 9113 section 8.3.1)")
        if name == b":method":
            if _METHOD.fullmatch(value) is not None:
                return _METHODS.get(value, METHOD_KIND)
            return self._faulty("malformed_line", ":method is not a method in capitals")
        if name == b":authority":
            if _AUTHORITY.fullmatch(value) is not None:
                self.line = b"Host: %b\r\n" % value
                return AUTHORITY_KIND
            return self._faulty("host", ":authority is not a valid authority (RFC 9113 section 8.3.1)")
        if name == b":scheme":
            if value in (b"http", b"https"):
                return SCHEME
            return self._faulty("target", ":scheme is neither http nor https")
        if name == b":status":
            if _STATUS.fullmatch(value) is not None:
                return STATUS
            return self._faulty("malformed_line", ":status is not a status code")
        if name == b":protocol":
            return WEBSOCKET if value == b"websocket" else PROTOCOL
        return self._faulty("pseudo_field", "a pseudo-header field that HTTP/2 does not have")

    def _faulty(self, reason: str, detail: str) -> int:
        self.fault = (reason, detail)
        return FAULTY


def _bad_name(name: bytes) -> Fault:
    shown = ascii(name[:64].decode("latin-1"))
    if _NAME.fullmatch(name.lower()):
        return "malformed_field", f"capitals in the field name {shown} (RFC 9113 section 8.2.1)"
    return "malformed_field", f"{shown} is not a field name" if name else "a field without a name"


def _bad_value(name: bytes, value: bytes) -> Fault:
    shown = name[:64].decode()
    if b"\r" in value:
        return "bare_cr", f"CR in the value of {shown} (RFC 9113 section 8.2.1)"
    if b"\n" in value:
        return "bare_lf", f"LF in the value of {shown} (RFC 9113 section 8.2.1)"
    if _VALUE.fullmatch(value.strip(b" \t")):
        return "malformed_field", f"white space around the value of {shown} (RFC 9113 section 8.2.1)"
    return "control_byte", f"a control byte in the value of {shown}"
