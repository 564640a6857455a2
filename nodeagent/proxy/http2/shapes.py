"""What the order of a head's fields makes of it: a request or a response, and where its parts are.

Whether a head is well formed depends, once each of its fields is, on nothing but their kinds in their order,
and senders have few such orders: each is looked into once.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from nodeagent.proxy.http2 import field
from nodeagent.proxy.http2.field import Fault
from nodeagent.proxy.memory import Memory

_ROOM: Final = 64 * 1024
_TWICE: Final = ("pseudo_field", "a repeated pseudo-header field")
_LATE: Final = ("pseudo_field", "a pseudo-header field after other fields (RFC 9113 section 8.3)")
_WRONG: Final = ("pseudo_field", "a pseudo-header field that does not belong in this head")


class Shape:
    """What requests and responses have in common. `kept` are the places of the fields that go on."""

    __slots__ = ("fault", "kept", "length")

    def __init__(self, kinds: bytes) -> None:
        self.fault: Fault | None = None
        self.kept: tuple[int, ...] = ()
        self.length = kinds.find(field.LENGTH)
        """The place of Content-Length, or -1."""
        if kinds.count(field.LENGTH) > 1:
            self.fault = ("content_length", "content-length is repeated")

    @property
    def cost(self) -> int:
        """Bytes that it takes."""
        return 600 + 10 * len(self.kept)


class RequestShape(Shape):
    """Where the parts of a request are."""

    __slots__ = (
        "cookies",
        "forwarded",
        "grpc",
        "host",
        "method",
        "same",
        "target",
        "timeout",
        "trailers",
        "unexpecting",
        "websocket",
    )

    def __init__(self, kinds: bytes) -> None:
        super().__init__(kinds)
        self.method = self._one(kinds, field.METHOD_KIND, field.CONNECT, field.OPTIONS)
        self.target = self._one(kinds, field.PATH, field.ASTERISK)
        authority, host = kinds.find(field.AUTHORITY_KIND), kinds.find(field.HOST)
        self.host = authority if authority >= 0 else host
        """The place of the field whose line is Host."""
        self.same = host if authority >= 0 else -1
        """The place of one that must say the same."""
        self.trailers = field.TE in kinds
        self.grpc = field.GRPC in kinds
        timed = self.grpc and kinds.count(field.TIMEOUT) == 1
        self.timeout = kinds.find(field.TIMEOUT) if timed else -1
        """The place of the time that a caller of gRPC gives, or -1."""
        self.forwarded = _places(kinds, field.FORWARDED_FOR)
        self.cookies = _places(kinds, field.COOKIE)
        if len(self.cookies) < 2:
            self.cookies = ()
        dropped = {field.HOST, field.FORWARDED_FOR, *field.PSEUDO}
        if self.cookies:
            dropped.add(field.COOKIE)
        self.kept = tuple(place for place, kind in enumerate(kinds) if kind not in dropped)
        self.unexpecting = tuple(place for place in self.kept if kinds[place] != field.EXPECT)
        """`kept` without Expect."""
        self.websocket = field.WEBSOCKET in kinds
        """An extended CONNECT (RFC 8441)."""
        self.fault = self._judge(kinds) or self.fault

    def _judge(self, kinds: bytes) -> Fault | None:
        if field.CONNECT in kinds or field.PROTOCOL in kinds or field.WEBSOCKET in kinds:
            fault = _judge_connect(kinds)
            if fault is not None:
                return fault
        fault = _misplaced(kinds, {*field.PSEUDO} - {field.STATUS})
        if fault is not None:
            return fault
        if self.method < 0 or self.target < 0 or field.SCHEME not in kinds:
            return "pseudo_field", "a request has :method, :scheme and :path (RFC 9113 section 8.3.1)"
        if field.ASTERISK in kinds and field.OPTIONS not in kinds:
            return "target", "the path * is only for OPTIONS"
        if self.host < 0 or kinds.count(field.HOST) > 1:
            return "host", "a request has exactly one authority (RFC 9113 section 8.3.1)"
        if field.UNDERSCORED in kinds:
            return "malformed_field", "a framing field is spelled with an underscore"
        return None

    @staticmethod
    def _one(kinds: bytes, *wanted: int) -> int:
        return max(kinds.find(kind) for kind in wanted)


class ResponseShape(Shape):
    """Where the parts of a response are; the first is its status."""

    __slots__ = ()

    def __init__(self, kinds: bytes) -> None:
        super().__init__(kinds)
        self.kept = tuple(range(1, len(kinds)))
        fault = _misplaced(kinds, {field.STATUS})
        if fault is None and kinds[:1] != bytes((field.STATUS,)):
            fault = ("pseudo_field", "a response has :status (RFC 9113 section 8.3.2)")
        self.fault = fault or self.fault


def _judge_connect(kinds: bytes) -> Fault | None:
    """Of all that can be asked for with CONNECT or :protocol, WebSockets are what the mesh passes on."""
    if field.PROTOCOL in kinds:
        return "connect", "websocket is the only :protocol that is implemented (RFC 8441)"
    if field.WEBSOCKET not in kinds:
        return "connect", "the mesh is not a forward proxy: CONNECT is not implemented"
    if field.CONNECT not in kinds:
        return "connect", ":protocol goes with the method CONNECT only (RFC 8441 section 4)"
    if field.SCHEME not in kinds or field.PATH not in kinds:
        return "connect", "a CONNECT with :protocol has :scheme and :path (RFC 8441 section 4)"
    if field.LENGTH in kinds:
        return "content_length", "a CONNECT has no content, so it has no length (RFC 9110 section 9.3.6)"
    return None


def _misplaced(kinds: bytes, allowed: set[int]) -> Fault | None:
    """Check that the pseudo-header fields are allowed, come first, and once each."""
    groups = {field.CONNECT: field.METHOD_KIND, field.OPTIONS: field.METHOD_KIND, field.ASTERISK: field.PATH}
    seen = set()
    others = False
    for kind in kinds:
        if kind not in field.PSEUDO:
            others = True
            continue
        if kind not in allowed:
            return _WRONG
        if others:
            return _LATE
        kind = groups.get(kind, kind)
        if kind in seen:
            return _TWICE
        seen.add(kind)
    return None


def _places(kinds: bytes, wanted: int) -> tuple[int, ...]:
    return tuple(place for place, kind in enumerate(kinds) if kind == wanted)


S = TypeVar("S", bound=Shape)


class Shapes(Generic[S]):
    """Those that have come, by the kinds of their fields."""

    __slots__ = ("_make", "_memory")

    def __init__(self, make: type[S]) -> None:
        self._make = make
        self._memory: Memory[bytes, S] = Memory(_ROOM)

    def of(self, kinds: bytes) -> S:
        """Return the shape of a head with fields of these kinds."""
        memory = self._memory
        shape = memory.young.get(kinds)
        if shape is None:
            shape = memory.older(kinds)
            if shape is None:
                shape = self._make(kinds)
                if memory.again(kinds):
                    memory.keep(kinds, shape)
        return shape
