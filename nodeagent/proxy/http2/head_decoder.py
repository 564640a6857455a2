"""Makes the mesh's heads of header blocks of HTTP/2; see `nodeagent.proxy.http2.headers`."""

from __future__ import annotations

import functools
import operator
from http import HTTPStatus
from typing import Final

from nodeagent.proxy.chunks import FORBIDDEN_TRAILER
from nodeagent.proxy.http2 import field as kinds_of
from nodeagent.proxy.http2.decoding import BlockReader, CompressionFault, cut_path
from nodeagent.proxy.http2.field import PATH_PATTERN, Fault, Field
from nodeagent.proxy.http2.grpc_timeout import parse_timeout
from nodeagent.proxy.http2.huffman import HuffmanError, decode
from nodeagent.proxy.http2.shapes import RequestShape, ResponseShape, Shapes
from nodeagent.proxy.memory import PATIENCE, SELDOM, Memory
from nodeagent.proxy.message import (
    COUNTED_METHODS,
    NO_BODY,
    UNTIL_CLOSE,
    GrpcRequestHead,
    HeadError,
    RequestHead,
    ResponseHead,
    TimedRequestHead,
    count_forward,
)
from nodeagent.proxy.websocket import WebSocketHead
from nodeagent.settings import Limits

_BLOCKS_ROOM: Final = 256 * 1024
_FIELDS_ROOM: Final = 256 * 1024
_OWN_ROOM: Final = 16 * 1024
_MOST_PSEUDO: Final = 4
_EXPECT_CONTENT: Final = frozenset((b"PATCH", b"POST", b"PUT"))
"""Methods that some servers refuse without a length (RFC 9110 section 8.6)."""
_NO_CONTENT: Final = b"content-length: 0\r\n"
_STATUS_LINES: Final = {b"%d" % status: f"{status.value} {status.phrase}".encode() for status in HTTPStatus}
_is_secret: Final = operator.attrgetter("secret")
_PSEUDO: Final = frozenset(kinds_of.PSEUDO)

# What a block is: the same bytes mean something else in another place.
_REQUEST, _WHOLE_REQUEST, _RESPONSE, _WHOLE_RESPONSE, _TO_HEAD, _WHOLE_TO_HEAD, _TRAILERS = range(7)


class StreamFault(HeadError):
    """A malformed message: its stream is broken off with PROTOCOL_ERROR or refused; the others go on."""


class _Known:
    """A header block that has been read before, and the parts of the head that it becomes."""

    __slots__ = (
        "added",
        "cost",
        "fields",
        "forwarded_for",
        "kind",
        "length",
        "make",
        "method",
        "size",
        "status",
        "target",
        "timeout",
        "trailers",
    )

    def __init__(self, kind: int, fields: bytes) -> None:
        self.kind = kind
        self.fields = fields
        self.length = NO_BODY
        self.make: type[RequestHead] = RequestHead
        self.method = b""
        self.target = b""
        """Of a response, its status line."""
        self.status = 0
        self.forwarded_for = b""
        self.timeout = 0
        """What a `TimedRequestHead` has; 0: it is a plain one."""
        self.trailers = False
        self.added: list[Field] = []
        """What it adds to the table."""
        self.cost = 0
        self.size = 0
        """Of a request without its path, as SETTINGS_MAX_HEADER_LIST_SIZE counts."""


class Shared:
    """What the connections of a worker know in common, of equal limits."""

    def __init__(self) -> None:
        self.blocks: Memory[bytes, _Known] = Memory(_BLOCKS_ROOM)
        self.pathless: Memory[bytes, _Known] = Memory(_BLOCKS_ROOM)
        self.fields: Memory[bytes, Field] = Memory(_FIELDS_ROOM)
        self.requests = Shapes(RequestShape)
        self.responses = Shapes(ResponseShape)


@functools.lru_cache(maxsize=8)
def _shared_by(_limits: Limits) -> Shared:
    return Shared()


class HeaderDecoder:
    """Reads the header blocks of one direction of a connection. `table_size` is what we announce."""

    __slots__ = ("_limits", "_news", "_own", "_own_pathless", "_reader", "_shared")

    def __init__(self, limits: Limits, table_size: int = 4096, shared: Shared | None = None) -> None:
        self._limits = limits
        self._shared = shared = shared or _shared_by(limits)
        self._news = 0
        """Requests in a row that were not remembered."""
        self._own: Memory[bytes, _Known] = Memory(_OWN_ROOM)
        self._own_pathless: Memory[bytes, _Known] = Memory(_OWN_ROOM)
        self._reader = BlockReader(shared.fields, limits.head_bytes, table_size)

    def request(self, block: bytes, end_stream: bool) -> RequestHead:
        """Return a request's head.

        Raises:
            StreamFault: it may not be forwarded.
            CompressionFault: the block cannot be followed.
        """
        kind = _WHOLE_REQUEST if end_stream else _REQUEST
        news = self._news
        if news > PATIENCE and news & SELDOM:
            self._news = news + 1
            return self._read_request(block, kind, None)
        known = self._own.young.get(block) or self._shared.blocks.young.get(block)
        if known is None or known.kind != kind:
            known = self._older(block, kind)
            if known is None:
                return self._request_by_path(block, kind)
        elif known.added:
            self._add(known.added)
        self._news = 0
        if known.timeout:
            head = _timed(known, known.target, len(block))
        else:
            head = known.make(known.method, known.target, b"1", known.fields, len(block))
        head.length = known.length
        head.forwarded_for = known.forwarded_for
        head.trailers = known.trailers
        return head

    def response(self, block: bytes, end_stream: bool, to_head: bool = False) -> ResponseHead:
        """Return a response's head, or that of an interim one; `to_head`: the request's method was HEAD.

        Raises:
            StreamFault: it may not be passed on.
            CompressionFault: the block cannot be followed.
        """
        kind = _RESPONSE + end_stream + 2 * to_head
        known = self._own.young.get(block) or self._shared.blocks.young.get(block)
        if known is None or known.kind != kind:
            known = self._older(block, kind)
            if known is None:
                return self._read_response(block, kind, end_stream, to_head)
        elif known.added:
            self._add(known.added)
        head = ResponseHead(known.status, b"1", known.target, known.fields, len(block))
        head.length = known.length
        return head

    def trailers(self, block: bytes) -> bytes:
        """Return the lines of trailers.

        Raises:
            StreamFault: they may not be passed on.
            CompressionFault: the block cannot be followed.
        """
        known = self._own.young.get(block) or self._shared.blocks.young.get(block)
        if known is None or known.kind != _TRAILERS:
            known = self._older(block, _TRAILERS)
            if known is None:
                return self._read_trailers(block)
        elif known.added:
            self._add(known.added)
        return known.fields

    @property
    def held(self) -> int:
        """Bytes that are kept for this connection, about."""
        return self._own.held + self._own_pathless.held + self._reader.table.held

    def skip(self, block: bytes) -> None:
        """Update the table by a block whose stream does not exist any more.

        Raises:
            CompressionFault: the block cannot be followed.
        """
        self._read(block)

    # What is not in the younger generations

    def _older(self, block: bytes, kind: int) -> _Known | None:
        known = self._own.older(block) or self._shared.blocks.older(block)
        if known is None or known.kind != kind:
            return None
        if known.added:
            self._add(known.added)
        return known

    def _add(self, fields: list[Field]) -> None:
        """Add to the table what a block adds that is not read again."""
        add = self._reader.table.add
        for field in fields:
            add(field)
        self._own.clear()
        self._own_pathless.clear()

    def _read(self, block: bytes) -> list[Field]:
        reader = self._reader
        fields = reader.read(block)
        if reader.added or reader.resized:
            self._own.clear()
            self._own_pathless.clear()
        return fields

    def _request_by_path(self, block: bytes, kind: int) -> RequestHead:
        """Return the head of a request that may be like one before it, but for its path."""
        cut = cut_path(block)
        if cut is None:
            self._news += 1
            return self._read_request(block, kind, b"")
        rest, path, coded = cut
        shared, own = self._shared.pathless, self._own_pathless
        known = own.young.get(rest) or shared.young.get(rest) or own.older(rest) or shared.older(rest)
        if known is None or known.kind != kind:
            self._news += 1
            return self._read_request(block, kind, rest)
        self._news = 0
        if coded:
            try:
                path = decode(path)
            except HuffmanError as error:
                raise CompressionFault(str(error)) from None
        if PATH_PATTERN.fullmatch(path) is None or known.size + len(path) > self._limits.head_bytes:
            return self._read_request(block, kind, b"")  # it says what is wrong
        if known.added:
            self._add(known.added)
        if known.timeout:
            head = _timed(known, path, len(block))
        else:
            head = known.make(known.method, path, b"1", known.fields, len(block))
        head.length = known.length
        head.forwarded_for = known.forwarded_for
        head.trailers = known.trailers
        return head

    def _read_request(self, block: bytes, kind: int, rest: bytes | None) -> RequestHead:
        """Take a request's block apart; `rest`: what may be remembered without its path; None: nothing."""
        fields = self._read(block)
        shape = self._shared.requests.of(self._kinds(fields))
        _check(shape.fault)
        method, host = fields[shape.method].value, fields[shape.host]
        if shape.same >= 0 and fields[shape.same].value.lower() != host.value.lower():
            raise StreamFault("host", "host differs from :authority (RFC 9113 section 8.3.1)")
        if shape.websocket:
            return _websocket(fields, shape, kind, len(block))
        length = int(fields[shape.length].value) if shape.length >= 0 else UNTIL_CLOSE
        added = b""
        if kind == _WHOLE_REQUEST:
            if length > 0:
                raise StreamFault("content_length", "a request that ends with its head, and has a length")
            if length < 0 and method in _EXPECT_CONTENT:
                added = _NO_CONTENT
            length = NO_BODY
        kept = shape.kept if length else shape.unexpecting
        lines = host.line + b"".join([fields[place].line for place in kept]) + added
        if shape.cookies:
            lines += _joined_cookie([fields[place] for place in shape.cookies])
        target = fields[shape.target].value
        if shape.timeout < 0:
            make = GrpcRequestHead if shape.grpc else RequestHead
            head = make(method, target, b"1", lines, len(block))
        else:
            timeout = parse_timeout(fields[shape.timeout].value)
            head = TimedRequestHead(timeout, method, target, b"1", lines, len(block))
        head.length = length
        head.trailers = shape.trailers
        if method in COUNTED_METHODS:
            head.fields = _counted(lines)
        if shape.forwarded:
            head.forwarded_for = _forwarded_for(fields, shape)
        if rest is None:
            return head
        memory = self._memory(block, fields)
        if memory is not None:
            self._keep(memory, block, self._known(head, kind))
        if rest:
            memory = self._memory(rest, fields, pathless=True)
            if memory is not None:
                self._keep(memory, rest, self._known(head, kind))
        return head

    def _known(self, head: RequestHead, kind: int) -> _Known:
        known = _Known(kind, head.fields)
        known.make, known.method, known.target = type(head), head.method, head.target
        if isinstance(head, TimedRequestHead):
            known.timeout = head.timeout
        known.length, known.trailers = head.length, head.trailers
        known.forwarded_for = head.forwarded_for
        known.size = self._reader.size - len(head.target)
        return known

    def _read_response(self, block: bytes, kind: int, whole: bool, to_head: bool) -> ResponseHead:
        fields = self._read(block)
        shape = self._shared.responses.of(self._kinds(fields))
        _check(shape.fault)
        code = fields[0].value
        status = int(code)
        length = int(fields[shape.length].value) if shape.length >= 0 else UNTIL_CLOSE
        if status < 200:
            _check_interim(status, whole, length)
        kept = shape.kept
        added = b""
        if status < 200 or status == 204:  # RFC 9110 section 8.6: these have no length either
            kept = tuple(place for place in kept if place != shape.length)
            length = NO_BODY
        elif to_head or status == 304:
            length = NO_BODY
        elif whole:
            if length > 0:
                raise StreamFault("content_length", "a response that ends with its head, and has a length")
            if length < 0:
                added = _NO_CONTENT
            length = NO_BODY
        lines = b"".join([fields[place].line for place in kept]) + added
        line = _STATUS_LINES.get(code) or code + b" "
        head = ResponseHead(status, b"1", line, lines, len(block))
        head.length = length
        memory = self._memory(block, fields)
        if memory is not None:
            known = _Known(kind, lines)
            known.status, known.target, known.length = status, line, length
            self._keep(memory, block, known)
        return head

    def _read_trailers(self, block: bytes) -> bytes:
        fields = self._read(block)
        kinds = self._kinds(fields)
        if not _PSEUDO.isdisjoint(kinds):
            raise StreamFault("trailer", "a pseudo-header field in trailers (RFC 9113 section 8.1)")
        lines = b"".join([field.line for field in fields])
        if FORBIDDEN_TRAILER.search(b"\n" + lines):
            raise StreamFault("trailer", "a trailer field that may not be one (RFC 9110 section 6.5.1)")
        memory = self._memory(block, fields)
        if memory is not None:
            self._keep(memory, block, _Known(_TRAILERS, lines))
        return lines

    def _kinds(self, fields: list[Field]) -> bytes:
        """Check that the fields are all right, each for itself, and return their kinds."""
        limits = self._limits
        kinds = bytes([field.kind for field in fields])
        excess = len(kinds) - _MOST_PSEUDO - limits.head_fields
        # Crumbs of a cookie are one field, sent in pieces so that it compresses better.
        if self._reader.size > limits.head_bytes or (excess > 0 and excess >= kinds.count(kinds_of.COOKIE)):
            detail = f"the head has more than {limits.head_bytes} bytes or {limits.head_fields} fields"
            raise StreamFault("head_too_large", detail, 431)
        if kinds_of.FAULTY in kinds:
            _check(fields[kinds.index(kinds_of.FAULTY)].fault)
        return kinds

    def _memory(
        self, block: bytes, fields: list[Field], pathless: bool = False
    ) -> Memory[bytes, _Known] | None:
        """Return where the block that was read last is worth remembering, if it is."""
        shared, reader = self._shared, self._reader
        memory = shared.pathless if pathless else shared.blocks
        if reader.resized or (reader.added and not reader.lasting):
            return None  # it means something else the next time
        if not memory.again(block):
            return None
        if reader.lasting and not any(map(_is_secret, fields)):
            return memory
        if reader.added:
            return None
        return self._own_pathless if pathless else self._own

    def _keep(self, memory: Memory[bytes, _Known], block: bytes, known: _Known) -> None:
        known.added = self._reader.added
        added = sum([field.cost for field in known.added])
        known.cost = 2 * len(block) + len(known.fields) + len(known.target) + added + 500
        memory.keep(block, known)


def _counted(lines: bytes) -> bytes:
    try:
        return count_forward(lines)
    except HeadError as error:
        raise StreamFault(error.reason, error.detail, error.status) from None


def _timed(known: _Known, target: bytes, size: int) -> RequestHead:
    return TimedRequestHead(known.timeout, known.method, target, b"1", known.fields, size)


def _check(fault: Fault | None) -> None:
    if fault is not None:
        reason, detail = fault
        raise StreamFault(reason, detail, 501 if reason == "connect" else 400)


def _websocket(fields: list[Field], shape: RequestShape, kind: int, size: int) -> RequestHead:
    """Return the head of an extended CONNECT. Those are few, and no block of theirs is remembered."""
    if kind == _WHOLE_REQUEST:
        raise StreamFault("connect", "a WebSocket that ends before it begins", 400)
    lines = fields[shape.host].line + b"".join([fields[place].line for place in shape.unexpecting])
    if shape.cookies:
        lines += _joined_cookie([fields[place] for place in shape.cookies])
    head = WebSocketHead(fields[shape.target].value, lines, size)
    head.forwarded_for = _forwarded_for(fields, shape)
    return head


def _forwarded_for(fields: list[Field], shape: RequestShape) -> bytes:
    values = [fields[place].value for place in shape.forwarded]
    return b", ".join([value for value in values if value])


def _check_interim(status: int, whole: bool, length: int) -> None:
    if status == 101:
        raise StreamFault("malformed_line", "101 is not a status of HTTP/2 (RFC 9113 section 8.6)")
    if whole or length > 0:
        raise StreamFault("ambiguous_length", "an interim response that ends the stream or announces a body")


def _joined_cookie(crumbs: list[Field]) -> bytes:
    """Return the line of a cookie that came in crumbs (RFC 9113 section 8.2.3)."""
    never_indexed = not all(crumb.line.startswith(b"cookie: ") for crumb in crumbs)
    value = b"; ".join([crumb.value for crumb in crumbs])
    return (b"cookie:%b\r\n" if never_indexed else b"cookie: %b\r\n") % value
