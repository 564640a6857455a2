"""One message, read by us, by h11 and by llhttp, as comparable values.

`RequestDriver` and `ResponseDriver` feed the codec the way `Http1Connection` and `Http1Upstream` do, without
a loop: what is held, when a head is judged, where a body ends and the next message begins.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import h11
import httptools

from nodeagent.proxy.body import Body, Unchunked
from nodeagent.proxy.http1.head import parse_request, parse_response
from nodeagent.proxy.http1.incomplete import check_incomplete, check_size
from nodeagent.proxy.message import CHUNKED, HeadError, RequestHead, ResponseHead, split_fields
from nodeagent.settings import Limits

FieldList = list[tuple[bytes, bytes]]
CLIENT = b"10.0.0.7"


class Reading(NamedTuple):
    """What a parser made of some bytes that begin with a message."""

    start: tuple[bytes, ...]
    """(method, target) or (status,)."""
    fields: FieldList
    body: bytes
    complete: bool
    keep_alive: bool | None = None
    """None where the parser does not say: not yet, or never."""


class Unreadable(Exception):
    """The parser refused the bytes."""


class Message:
    """A message as our codec read it."""

    def __init__(self, head: RequestHead | ResponseHead, original: bytes) -> None:
        self.head = head
        self.original = original
        """Its bytes as they came, as far as they came."""
        self.forwarded_body = b""
        self.payload = b""
        self.complete = False

    @property
    def forwarded(self) -> bytes:
        """The bytes that go on to the other side."""
        head = self.head
        if isinstance(head, ResponseHead):
            return b"HTTP/1.1 %b\r\n%b\r\n%b" % (head.status_line, head.fields, self.forwarded_body)
        before = head.forwarded_for + b", " if head.forwarded_for else b""
        fields = head.fields + b"X-Forwarded-For: " + before + CLIENT + b"\r\n"
        if head.upgrade:
            fields += b"Connection: upgrade\r\nUpgrade: " + head.upgrade + b"\r\n"
        return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (head.method, head.target, fields, self.forwarded_body)

    @property
    def original_fields(self) -> FieldList:
        """The fields of the head as it came, read with nothing but `split`."""
        lines = [line.split(b":", 1) for line in self.original[: self.head.end].split(b"\r\n")[1:-2]]
        return [(name.lower(), value.strip(b" \t")) for name, value in lines]

    @property
    def value(self) -> tuple[Any, ...]:
        """Everything that may not depend on how the bytes were cut."""
        return (self.forwarded, self.payload, self.complete, self.head.keep_alive, self.head.length)


class Driver:
    """Feeds the codec; `messages` grows, `refused` is set once and ends everything."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.messages: list[Message] = []
        self.refused: HeadError | None = None
        self.closed = False
        self.pending = b""
        self._body: Body | None = None
        self._unchunked: Unchunked | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes as they come from the peer."""
        if self.refused or self.closed:
            return
        try:
            if self._body is not None:
                data = self._take_body(data)
            if self._body is None and not self.closed:
                self._read_heads(data)
        except HeadError as error:
            self.refused = error

    @property
    def outcome(self) -> tuple[Any, ...]:
        """What may not depend on how the bytes were cut."""
        status = self.refused.status if self.refused else None
        # A body that is refused midway has gone on as far as it was right when it came, which may differ.
        messages = [m.value if m.complete or not self.refused else m.head.length for m in self.messages]
        return (messages, status, b"" if self.refused else self.pending)

    def _read_heads(self, data: bytes) -> None:
        raise AssertionError("for the subclasses")

    def _begin(self, message: Message, length: int, rest: bytes) -> bytes:
        self.messages.append(message)
        self._body = Body(length)
        self._unchunked = Unchunked() if length == CHUNKED else None
        if self._body.done:
            self._end()
            return rest
        return self._take_body(rest)

    def _take_body(self, data: bytes) -> bytes:
        body, unchunked, message = self._body, self._unchunked, self.messages[-1]
        assert body is not None
        while True:
            used = body.take(data)
            piece, data = data[:used], data[used:]
            forwarded = body.forwarded(piece)
            message.forwarded_body += forwarded
            message.payload += forwarded if unchunked is None else unchunked.payload(forwarded)
            message.original += piece
            if body.done:
                self._end()
                return data
            if not data:
                return b""

    def _end(self) -> None:
        message = self.messages[-1]
        message.complete = True
        self._body = self._unchunked = None
        self.closed = self._is_last(message.head)

    def _is_last(self, head: RequestHead | ResponseHead) -> bool:
        raise AssertionError("for the subclasses")


class RequestDriver(Driver):
    """A client's connection on which every request is answered as soon as it is complete."""

    def _read_heads(self, data: bytes) -> None:
        if self.pending:
            held, self.pending = self.pending, b""
            if b"\n" not in data and len(held) + len(data) <= self.limits.head_bytes:
                self.pending = held + data
                return
            data = held + data
        while data:
            head = parse_request(data)
            if head is None:
                if data[:2] == b"\r\n":
                    data = data[2:]
                    continue
                check_incomplete(data, self.limits)
                self.pending = data
                return
            check_size(data, 0, head.end, self.limits)
            data = self._begin(Message(head, data[: head.end]), head.length, data[head.end :])
            if self.closed or not self.messages[-1].complete:
                return

    def _is_last(self, head: RequestHead | ResponseHead) -> bool:
        return not head.keep_alive or bool(head.upgrade)


class ResponseDriver(Driver):
    """An endpoint's connection that answers one request."""

    def __init__(self, to_head: bool = False, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.to_head = to_head

    def _read_heads(self, data: bytes) -> None:
        data = self.pending + data
        self.pending = b""
        while data:
            head = parse_response(data, self.to_head)
            if head is None:
                check_incomplete(data, self.limits, response=True)
                self.pending = data
                return
            check_size(data, 0, head.end, self.limits)
            data = self._begin(Message(head, data[: head.end]), head.length, data[head.end :])
            if self.closed or not self.messages[-1].complete:
                return

    def _is_last(self, head: RequestHead | ResponseHead) -> bool:
        assert isinstance(head, ResponseHead)
        return head.status >= 200 or head.status == 101


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `data` at these offsets."""
    ends = [*sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    starts = [0, *ends[:-1]]
    return [data[a:b] for a, b in zip(starts, ends, strict=True)]


def drive(driver: Driver, parts: list[bytes]) -> Driver:
    """Feed the pieces one after another."""
    for part in parts:
        driver.feed(part)
    return driver


# h11

_H11_LIMIT = 1 << 20


def _events(connection: h11.Connection) -> tuple[Any, list[Any], bytes, bool]:
    """Return (head, informational heads, body, complete)."""
    head: Any = None
    early: list[Any] = []
    body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise Unreadable(str(error)) from error
        if event is h11.NEED_DATA or event is h11.PAUSED:
            return head, early, body, False
        if isinstance(event, h11.InformationalResponse):
            early.append(event)
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return head, early, body, True
        elif isinstance(event, h11.ConnectionClosed):
            return head, early, body, False
        else:
            head = event


def h11_request(data: bytes) -> Reading:
    """Read one request with h11."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_H11_LIMIT)
    connection.receive_data(data)
    head, _, body, complete = _events(connection)
    if head is None:
        return Reading((), [], b"", False)
    fields = [(bytes(name), bytes(value)) for name, value in head.headers]
    if complete and connection.trailing_data[0]:
        raise Unreadable(f"ends earlier, {connection.trailing_data[0]!r} is left")
    keep = connection.their_state is not h11.MUST_CLOSE if complete else None
    if str(connection.their_state) == "MIGHT_SWITCH_PROTOCOL":
        keep = None
    return Reading((bytes(head.method), bytes(head.target)), fields, body, complete, keep)


def h11_response(data: bytes, to_head: bool = False, ended: bool = False) -> Reading:
    """Read one response with h11, informational ones before it included; `ended` says the peer closed."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_H11_LIMIT)
    method = "HEAD" if to_head else "GET"
    asked = [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "websocket")]
    connection.send(h11.Request(method=method, target="/", headers=asked))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    if ended:
        connection.receive_data(b"")
    head, early, body, complete = _events(connection)
    if head is None and early:
        head, complete = early[-1], True
    if head is None:
        return Reading((), [], b"", False)
    fields = [(bytes(name), bytes(value)) for name, value in head.headers]
    if complete and connection.trailing_data[0] and head.status_code >= 200:
        raise Unreadable(f"ends earlier, {connection.trailing_data[0]!r} is left")
    keep = None
    if complete and head.status_code >= 200:
        keep = connection.their_state not in (h11.MUST_CLOSE, h11.CLOSED)
    return Reading((b"%d" % head.status_code,), fields, body, complete, keep)


# llhttp


class _Collected:
    """The callbacks of httptools. Fields that come after the head are trailers."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: FieldList = []
        self.body = b""
        self.completed = 0
        self.head_done = False
        self.parser: Any = None
        self.keep_alive: bool | None = None

    def on_message_begin(self) -> None:
        self.url, self.fields, self.body, self.head_done = b"", [], b"", False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_done:
            self.fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.head_done = True
        self.keep_alive = self.parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.completed += 1


def _llhttp(parser: Any, data: bytes) -> None:
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        return
    except httptools.HttpParserError as error:
        if str(error) == "Pause on CONNECT/Upgrade":  # said of responses
            return
        raise Unreadable(f"{type(error).__name__}: {error}: {error.__context__}") from error


def llhttp_request(data: bytes) -> Reading:
    """Read one request with llhttp."""
    seen = _Collected()
    parser = seen.parser = httptools.HttpRequestParser(seen)
    _llhttp(parser, data)
    if not seen.head_done:
        return Reading((), [], b"", False)
    if seen.completed > 1:
        raise Unreadable("more than one message")
    keep = seen.keep_alive if seen.completed else None
    return Reading((parser.get_method(), seen.url), seen.fields, seen.body, seen.completed == 1, keep)


def llhttp_response(data: bytes) -> Reading:
    """Read responses with llhttp, which cannot be told that the request was HEAD; the last one counts."""
    seen = _Collected()
    parser = seen.parser = httptools.HttpResponseParser(seen)
    _llhttp(parser, data)
    if not seen.head_done:
        return Reading((), [], b"", False)
    keep = seen.keep_alive if seen.completed else None
    return Reading((b"%d" % parser.get_status_code(),), seen.fields, seen.body, seen.completed > 0, keep)


def fields_of(raw: bytes) -> FieldList:
    """The fields of raw lines, as we read them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in split_fields(raw)]
