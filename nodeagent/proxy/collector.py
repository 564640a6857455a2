"""Keeps a response's body as it passes to the client, if a layer has asked for that: others cost nothing."""

from __future__ import annotations

from collections.abc import Callable

from middleware.contract import Reply
from nodeagent.proxy.body import Unchunked
from nodeagent.proxy.message import CHUNKED, ResponseHead
from nodeagent.proxy.streams import ClientStream, Source


class Collector:
    """Stands between an exchange and its client. Implements `ClientStream`.

    `head` is that of the response that is meant: if another one is sent, nothing is collected.
    """

    def __init__(
        self, client: ClientStream, head: ResponseHead, limit: int, done: Callable[[bytes | None], None]
    ) -> None:
        self._client = client
        self._head = head
        self._limit = limit
        self._done: Callable[[bytes | None], None] | None = done
        self._parts: list[bytes] = []
        self._size = 0
        self._unchunked = Unchunked() if head.length == CHUNKED else None
        self.source: Source = client.source
        self.connect_time = client.connect_time

    @property
    def http_version(self) -> str:
        """As the client's."""
        return self._client.http_version

    @property
    def write_paused(self) -> bool:
        """As the client's."""
        return self._client.write_paused

    @write_paused.setter
    def write_paused(self, paused: bool) -> None:
        self._client.write_paused = paused

    @property
    def received(self) -> int:
        """As the client's."""
        return self._client.received

    @received.setter
    def received(self, received: int) -> None:
        self._client.received = received

    @property
    def sent(self) -> int:
        """As the client's."""
        return self._client.sent

    @sent.setter
    def sent(self, sent: int) -> None:
        self._client.sent = sent

    def respond(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """Pass the head on; collect what has come of the body."""
        if head is not self._head:
            self._done = None
        self._client.respond(head, data, end)
        self._take(data, end)

    def send_data(self, data: bytes, end: bool) -> None:
        """Pass more of the body on, and collect it."""
        self._client.send_data(data, end)
        self._take(data, end)

    def send_trailers(self, lines: bytes) -> None:
        """Pass the trailers on: the body has ended. They are not collected."""
        self._client.send_trailers(lines)
        self._take(b"", True)

    def respond_reply(self, reply: Reply, close: bool) -> None:
        """Pass another response on."""
        self._done = None
        self._client.respond_reply(reply, close)

    def informational(self, head: ResponseHead) -> None:
        """Pass it on."""
        self._client.informational(head)

    def finished(self, now: float, abort: bool) -> None:
        """Pass it on; a body that is broken off is not collected."""
        self._done = None
        self._parts.clear()
        self._client.finished(now, abort)

    def pause_reading(self) -> None:
        """Pass it on."""
        self._client.pause_reading()

    def resume_reading(self) -> None:
        """Pass it on."""
        self._client.resume_reading()

    def _take(self, data: bytes, end: bool) -> None:
        done = self._done
        if done is None:
            return
        if self._unchunked is not None:
            data = self._unchunked.payload(data)
        self._size += len(data)
        if self._size > self._limit:
            self._done = None
            self._parts.clear()
            done(None)
            return
        if data:
            self._parts.append(data)
        if end:
            self._done = None
            done(b"".join(self._parts))
