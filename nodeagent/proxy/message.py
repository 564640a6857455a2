"""The messages that pass through the data plane, whatever protocol they came over.

A message is a normalised HTTP/1 head and body bytes as they came: with HTTP/1 on both sides nothing is
converted, and another protocol converts on its own side. Heads stay bytes; fields that nothing needs are
never read. A line without white space after its colon is one that HTTP/2 must not index.

`length` says what the body's bytes are: a number of bytes; CHUNKED, they bring their chunks along
(`nodeagent.proxy.chunks`); UNTIL_CLOSE, plain bytes whose end is reported. The reader of the framing reports
the end.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import ClassVar, Final

from middleware.contract import check_field

NO_BODY: Final = 0
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2
"""Values of `length` besides a number of bytes."""

TCHAR: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
FIELD: Final = TCHAR + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n"
"""Expressions for the bytes of a field name (RFC 9110 section 5.6.2), and for a whole line."""

METHOD: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Z]"
# No fragment, and no backslash before the query: the one is cut off and the other turned round by some.
TARGET: Final = rb"[!\"$-\x3e@-\x5b\x5d-~]*+(?:\?[!\"$-~]*+)?+"
AUTHORITY: Final = rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?"
"""Expressions for the bytes of a method, for a request target whatever its form, and for a Host."""

COUNTED_METHODS: Final = frozenset((b"OPTIONS", b"TRACE"))
"""Those whose Max-Forwards counts intermediaries (RFC 9110 section 7.6.2)."""

_MAX_FORWARDS: Final = re.compile(rb"\n([Mm](?i:ax-forwards):[ \t]*+)([^\r]*+)")
_MOST_FORWARDS_DIGITS: Final = 9
_DATE: Final = re.compile(rb"\n[Dd](?i:ate):")
UNIQUE: Final = frozenset(
    (
        b"b3",
        b"traceparent",
        b"uber-trace-id",
        b"x-amzn-trace-id",
        b"x-b3-parentspanid",
        b"x-b3-spanid",
        b"x-b3-traceid",
        b"x-cloud-trace-context",
        b"x-correlation-id",
        b"x-request-id",
    )
)
"""Fields that identify a request, in lower case: their values do not come again."""

_TARGET: Final = re.compile(r"(?:/[!\"$-\x3e@-\x5b\x5d-~]*+(?:\?[!\"$-~]*+)?+|\*)")


class HeadError(Exception):
    """A message that is refused. `reason` is the stable word of metrics; the text is for people."""

    def __init__(self, reason: str, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.status = status


def count_forward(fields: bytes) -> bytes:
    """Return the fields of a request of `COUNTED_METHODS` as they go on: one intermediary fewer may follow.

    Raises:
        HeadError: it may not go on: the mesh is its final recipient, and knows neither method.
    """
    found = _MAX_FORWARDS.findall(b"\n" + fields)
    if not found:
        return fields
    name, value = found[0]
    value = value.rstrip(b" \t")
    if len(found) > 1 or not value.isdigit() or len(value) > _MOST_FORWARDS_DIGITS:
        raise HeadError("max_forwards", "Max-Forwards is not one number (RFC 9110 section 7.6.2)")
    if not int(value):
        detail = "Max-Forwards ends here, and the mesh itself answers neither OPTIONS nor TRACE"
        raise HeadError("max_forwards", detail, 501)
    return _MAX_FORWARDS.sub(b"\n%b%d" % (name, int(value) - 1), b"\n" + fields)[1:]


def dated(fields: bytes, date: bytes) -> bytes:
    """Return the fields of a response with a Date: the line `date` if there was none (RFC 9110 6.6.1)."""
    # As nearly all servers write it; over HTTP/2 names are in lower case.
    if b"\nDate: " in fields or b"\ndate: " in fields or fields.startswith((b"Date: ", b"date: ")):
        return fields
    if _DATE.search(b"\n" + fields) is not None:
        return fields
    return fields + date


class RequestHead:
    """A request's head.

    `fields` are the end-to-end fields, each with its CRLF, `Host` among them, without `X-Forwarded-For`: its
    old value is in `forwarded_for`. `upgrade` names the protocol that the client would switch to, and
    `trailers` says that it takes trailers. `minor`, `keep_alive` and `end` (where the head ends in the bytes
    that were read) tell how it came over HTTP/1.
    """

    grpc: ClassVar[bool] = False
    """Whether it is a call of gRPC: a `GrpcRequestHead`, so that no other head has to say that it is not."""

    __slots__ = (
        "end",
        "fields",
        "forwarded_for",
        "keep_alive",
        "length",
        "method",
        "minor",
        "target",
        "trailers",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, minor: bytes, fields: bytes, end: int) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.fields = fields
        self.end = end
        self.length = NO_BODY
        self.keep_alive = minor == b"1"
        self.upgrade = b""
        self.forwarded_for = b""
        self.trailers = False

    def copy(self, end: int) -> RequestHead:
        """Return the same head, ending elsewhere in the bytes that were read."""
        head = RequestHead(self.method, self.target, self.minor, self.fields, end)
        head.length = self.length
        head.keep_alive = self.keep_alive
        head.upgrade = self.upgrade
        head.forwarded_for = self.forwarded_for
        head.trailers = self.trailers
        return head


class GrpcRequestHead(RequestHead):
    """The head of a call of gRPC, which is HTTP/2 with `content-type: application/grpc`; not gRPC-Web."""

    grpc = True

    __slots__ = ()


class TimedRequestHead(GrpcRequestHead):
    """The head of a call that says itself how long it may take: `timeout`, in nanoseconds."""

    __slots__ = ("timeout",)

    def __init__(
        self, timeout: int, method: bytes, target: bytes, minor: bytes, fields: bytes, end: int
    ) -> None:
        super().__init__(method, target, minor, fields, end)
        self.timeout = timeout


class ResponseHead:
    """A response's head: `fields` and `length` as in `RequestHead`; `status_line` is `200 OK`."""

    forwarded_for: ClassVar[bytes] = b""
    """Responses have none; so what reads the fields of either need not ask which it is."""

    __slots__ = ("end", "fields", "keep_alive", "length", "minor", "status", "status_line", "upgrade")

    def __init__(self, status: int, minor: bytes, status_line: bytes, fields: bytes, end: int) -> None:
        self.status = status
        self.minor = minor
        self.status_line = status_line
        self.fields = fields
        self.end = end
        self.length = UNTIL_CLOSE
        self.keep_alive = minor == b"1"
        self.upgrade = b""

    def copy(self, end: int) -> ResponseHead:
        """Return the same head, ending elsewhere in the bytes that were read."""
        head = ResponseHead(self.status, self.minor, self.status_line, self.fields, end)
        head.length = self.length
        head.keep_alive = self.keep_alive
        head.upgrade = self.upgrade
        return head


class Fields:
    """The fields of a head as layers see and change them. Implements `middleware.contract.Headers`."""

    __slots__ = ("_head",)

    def __init__(self, head: RequestHead | ResponseHead) -> None:
        self._head = head

    def get(self, name: str) -> str | None:
        """Return the first value of this name, or None."""
        return value_in(self._raw(), name)

    def get_all(self, name: str) -> list[str]:
        """Return all values of this name, in order."""
        found = _lines_of(name).findall(b"\n" + self._raw())
        return [value.strip(b" \t").decode("latin-1") for value in found]

    def set(self, name: str, value: str) -> None:
        """Replace all fields of this name by one."""
        forwarded_for, line = _line(name, value)
        self.remove(name)
        self._add(forwarded_for, value, line)

    def add(self, name: str, value: str) -> None:
        """Add one more field."""
        forwarded_for, line = _line(name, value)
        self._add(forwarded_for, value, line)

    def remove(self, name: str) -> None:
        """Remove all fields of this name."""
        head = self._head
        if name.lower() == "x-forwarded-for" and isinstance(head, RequestHead):
            head.forwarded_for = b""
        else:
            head.fields = _lines_of(name).sub(b"", b"\n" + head.fields)[1:]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for line in self._raw().decode("latin-1").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon:
                yield name, value.strip(" \t")

    def has_any(self, names: frozenset[str]) -> bool:
        """Return whether a field of one of these names, in lower case, is there."""
        return _lines_of_any(names).search(b"\n" + self._raw()) is not None

    def _raw(self) -> bytes:
        head = self._head
        if head.forwarded_for:
            return head.fields + b"X-Forwarded-For: " + head.forwarded_for + b"\r\n"
        return head.fields

    def _add(self, forwarded_for: bool, value: str, line: bytes) -> None:
        head = self._head
        if forwarded_for and isinstance(head, RequestHead):
            before = head.forwarded_for + b", " if head.forwarded_for else b""
            head.forwarded_for = before + value.encode("latin-1")
        else:
            head.fields += line


@functools.lru_cache(maxsize=1024)
def _line(name: str, value: str) -> tuple[bool, bytes]:
    """Return whether this is X-Forwarded-For, and the field's line; layers add the same few again and again.

    Raises:
        ValueError: there can be no such field.
    """
    check_field(name, value)
    return name.lower() == "x-forwarded-for", f"{name}: {value}\r\n".encode("latin-1")


@functools.lru_cache(maxsize=1024)
def _lines_of(name: str) -> re.Pattern[bytes]:
    """Return what matches the lines of this field, each with the line feed in front and without its own."""
    return re.compile(rb"\n(?i:%b):([^\n\r]*+)\r" % re.escape(name.encode("latin-1", "replace")))


@functools.lru_cache(maxsize=256)
def _lines_of_any(names: frozenset[str]) -> re.Pattern[bytes]:
    """Return what matches the beginning of a line of one of these fields."""
    return re.compile(
        rb"\n(?i:(?:%b)):" % b"|".join(sorted(re.escape(name.encode("latin-1")) for name in names))
    )


def value_in(lines: bytes, name: str) -> str | None:
    """Return the first value of this name in the lines of a head or of trailers, or None."""
    match = _lines_of(name).search(b"\n" + lines)
    return match[1].strip(b" \t").decode("latin-1") if match is not None else None


def check_target(target: str) -> bytes:
    """Return a request target in origin form as bytes.

    Raises:
        ValueError: it is none.
    """
    if not _TARGET.fullmatch(target):
        raise ValueError(f"{target[:64]!r} is not a request target in origin form (RFC 9112 section 3.2.1)")
    return target.encode("ascii")


def split_fields(raw: bytes) -> list[tuple[str, str]]:
    """Return all fields in order, names in lower case, values without surrounding white space."""
    lines = []
    for line in raw.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            lines.append((name.lower(), value.strip(" \t")))
    return lines
