"""A request to an endpoint and its response, as one stream of an HTTP/2 connection.

`UpstreamHttp2Stream` implements `nodeagent.proxy.streams.UpstreamStream`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nodeagent.proxy.body import Unchunked
from nodeagent.proxy.http2.announcement import Announcement
from nodeagent.proxy.http2.headers import StreamFault
from nodeagent.proxy.http2.stream import Stream, StreamOwner
from nodeagent.proxy.message import CHUNKED, NO_BODY, UNTIL_CLOSE, RequestHead, ResponseHead
from nodeagent.proxy.streams import Source, UpstreamOwner
from nodeagent.proxy.websocket import asks_for_one, key_of, to_extended_connect, to_switched


class UpstreamStreamOwner(StreamOwner, Protocol):
    """A connection to an endpoint as its streams see it."""

    begun: int
    websockets: Announcement

    def begin(self, stream: UpstreamHttp2Stream) -> None:
        """Give a stream its number."""
        ...

    def released(self, stream: UpstreamHttp2Stream, now: float) -> None:
        """An exchange has ended; what is not whole is broken off."""
        ...


class UpstreamHttp2Stream(Stream[UpstreamStreamOwner]):
    """A request to an endpoint and its response."""

    __slots__ = (
        "_unchunked",
        "_unsent",
        "early",
        "key",
        "owner",
        "responded",
        "served",
        "to_head",
        "unprocessed",
    )

    def __init__(self, connection: UpstreamStreamOwner) -> None:
        self.identifier = 0
        self.window = 0
        self.backlog = None
        self.queued = 0
        self.sent_all = False
        self.connection = connection
        self.body_left = NO_BODY
        self.held = False
        self.inflow = None
        self.received_all = False
        self.waiting = None
        self.served = connection.begun
        self.unprocessed = False
        self.owner: UpstreamOwner | None = None
        self.to_head = False
        self.early: ResponseHead | None = None
        """A response whose body may be in the same bytes as its head."""
        self.responded = False
        """The response's head has come."""
        self.key: str | None = None
        """The client's key of a WebSocket, which may be empty; None: this is not a WebSocket, or it was
        refused."""
        self._unchunked: Unchunked | None = None
        self._unsent = 0

    # What the exchange calls

    def start(
        self, owner: UpstreamOwner, head: RequestHead, source: Source, body: Sequence[bytes], end: bool
    ) -> None:
        """Send the request's head and what has come of its body."""
        self.owner = owner
        if head.upgrade and asks_for_one(head):
            self.key = key_of(head)
            self.connection.websockets.ask(self, to_extended_connect(head), source)
            return
        self.to_head = head.method == b"HEAD"
        connection = self.connection
        connection.begin(self)
        block = connection.encoder.request(head, source)
        if head.length == CHUNKED:
            self._unchunked = Unchunked()
        if not body:
            connection.writer.headers(self, block, end)
        else:
            data = body[0] if len(body) == 1 else b"".join(body)
            if self._unchunked is None:
                connection.writer.message(self, block, data, end)
            else:
                connection.writer.headers(self, block, False)
                self._send(data, end)
        if not connection.flushing:
            connection.flushing = True
            connection.runtime.flush.add(connection)

    def send_data(self, data: bytes, end: bool) -> None:
        """Send more of the body."""
        if self.sent_all:
            return
        self._send(data, end)
        self.connection.flush_soon()

    def _send(self, data: bytes, end: bool) -> None:
        writer, unchunked = self.connection.writer, self._unchunked
        if unchunked is None:
            writer.data(self, data, end)
            return
        data = unchunked.payload(data)
        if end and unchunked.trailers:
            if data:
                writer.data(self, data, False)
            writer.finish(self, unchunked.trailers)
        else:
            writer.data(self, data, end)

    def check_trailers(self, end: bool) -> None:
        """Check that trailers are where they may be: not in a WebSocket (RFC 9113 section 8.5)."""
        if self.key is not None:
            raise StreamFault("trailer", "HEADERS within a WebSocket")
        super().check_trailers(end)

    def send_trailers(self, lines: bytes) -> None:
        """Send trailers, and with them the end."""
        if self.sent_all:
            return
        if lines:
            self.connection.writer.finish(self, lines)
        else:
            self.connection.writer.data(self, b"", True)
        self.connection.flush_soon()

    def pause(self) -> None:
        """Pass nothing on for now."""
        self.wait()

    def resume(self) -> None:
        """Pass on what has come."""
        self.go_on()

    def body_came(self, data: bytes, end: bool, lines: bytes) -> None:
        """Pass on what has waited."""
        owner = self.owner
        if owner is None:
            return
        if data or not lines:
            owner.response_data(data, end and not lines)
        if lines and self.owner is owner:
            owner.response_trailers(lines)

    def takes_slowly(self) -> bool:
        """Whether the endpoint has taken anything since this was asked last."""
        queued, before = self.queued, self._unsent
        self._unsent = queued
        return queued < before

    def release(self, complete: bool, now: float) -> None:
        """The exchange has ended: so has the stream, or it is broken off."""
        self.owner = None
        self.connection.released(self, now)

    def abort(self) -> None:
        """Give the try up."""
        self.owner = None
        self.key = None
        self.connection.released(self, self.connection.runtime.now())

    # What the writer calls

    def filled(self) -> None:
        """The endpoint does not keep up with the request's body."""
        self._unsent = self.queued
        if self.owner is not None:
            self.owner.pause_request()

    def taken(self) -> None:
        """The endpoint has caught up."""
        if self.owner is not None:
            self.owner.resume_request()

    def ended(self) -> None:
        """The last of the request is on its way."""
        if self.owner is None:  # of a WebSocket that was over except for these bytes
            self.connection.released(self, self.connection.runtime.now())

    def not_needed(self) -> None:
        """The rest of the request has been dropped: the endpoint has answered and wants no more."""
        if self.key is None:
            return
        if self.owner is not None:
            self.owner.resume_request()
        else:
            self.connection.released(self, self.connection.runtime.now())

    def last_bytes(self) -> bool:
        """Whether this is a WebSocket that both sides have ended, and that only the endpoint still has to
        read.
        """
        backlog = self.backlog
        return self.key is not None and self.received_all and backlog is not None and backlog.ending

    # What the connection calls

    def send_websocket(self, head: RequestHead, source: Source) -> None:
        """Ask for a WebSocket."""
        connection = self.connection
        if self.owner is None:
            return
        connection.begin(self)
        connection.writer.headers(self, connection.encoder.request(head, source), False)
        connection.flush_soon()

    def cannot_ask(self, detail: str) -> None:
        """Tell that there can be none."""
        if self.owner is not None:
            self.owner.not_switched(detail)

    def ask_elsewhere(self) -> None:
        """Tell that another connection has to be found."""
        self.unprocessed = True
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.upstream_lost(self)

    def answered(self, head: ResponseHead, end: bool) -> None:
        """The endpoint has answered the request for a WebSocket: a success opens it."""
        owner, key = self.owner, self.key
        assert owner is not None
        assert key is not None
        self.responded = True
        if head.status >= 300:
            self.key = None
            self.connection.writer.data(self, b"", True)
            self.connection.flush_soon()
            self.body_left = head.length
            self.received_all = end
            owner.response_started(head, b"", end)
            return
        self.body_left = UNTIL_CLOSE
        owner.response_started(to_switched(head, key), b"", False)
        if end and self.owner is owner and self.connection.take_body(self, b"", 0, True) is not None:
            owner.response_data(b"", True)
