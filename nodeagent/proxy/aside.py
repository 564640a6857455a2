"""A copy of a request, sent beside it: nobody waits for the answer, which is thrown away.

It has its own stream to an endpoint, one try, and a time after which it is given up. What becomes of it is
told to `done` alone; no endpoint's health and no count of the Service depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from middleware.contract import ExchangeError
from nodeagent.proxy.backend import Backend
from nodeagent.proxy.message import RequestHead, ResponseHead
from nodeagent.proxy.runtime import Runtime
from nodeagent.proxy.streams import Pending, Source, UpstreamStream

MOST_THROWN_AWAY: Final = 1024 * 1024
"""Bytes of an answer that are read so that its connection may serve again; beyond, it is closed."""


class Aside:
    """One copy. Implements `UpstreamOwner` and `StreamTaker`."""

    __slots__ = (
        "_backend",
        "_body",
        "_done",
        "_head",
        "_left",
        "_limit",
        "_over",
        "_pending",
        "_runtime",
        "_source",
        "_status",
        "_stream",
    )

    trailers_wanted = False

    def __init__(
        self,
        runtime: Runtime,
        backend: Backend,
        head: RequestHead,
        source: Source,
        body: Sequence[bytes],
        done: Callable[[int], None],
    ) -> None:
        self._runtime = runtime
        self._backend = backend
        self._head = head
        self._source = source
        self._body = body
        self._done = done
        self._pending: Pending | None = None
        self._stream: UpstreamStream | None = None
        self._status = 0
        self._left = MOST_THROWN_AWAY
        self._over = False

    def start(self, seconds: float) -> None:
        """Send it in the loop's next turn, when the request itself has gone on."""
        self._limit = self._runtime.deadlines.set(seconds, self._give_up)
        self._runtime.loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        if self._over:
            return
        target = self._backend.pick((), self._runtime.now())
        if target is None:
            self._end(0)
            return
        stream = target.pool.take() if target.pool is not None else None
        if stream is not None:
            self.connected(stream)
            return
        try:
            self._pending = self._backend.connect(target, self, self._runtime.limits.connect_time)
        except ExchangeError:
            self._end(0)

    def _give_up(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
        self._abort()

    def _abort(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort()
        self._end(self._status)

    def _finish(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.release(True, self._runtime.now())
        self._end(self._status)

    def _end(self, status: int) -> None:
        if not self._over:
            self._over = True
            self._limit.cancel()
            self._done(status)

    # What the pool calls

    def connected(self, stream: UpstreamStream) -> None:
        """Send it on this stream."""
        self._pending = None
        self._stream = stream
        stream.start(self, self._head, self._source, self._body, True)

    def connect_failed(self, error: Exception) -> None:
        """It is not tried elsewhere."""
        self._pending = None
        self._end(0)

    # What the stream calls

    def informational(self, head: ResponseHead) -> None:
        """Nobody wants to know."""

    def response_started(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """The response's head has come."""
        self._status = head.status
        if head.status == 101:  # it was not asked to, and no bytes of HTTP would follow
            self._status = 0
            self._abort()
        elif end:
            self._finish()

    def response_data(self, data: bytes, end: bool) -> None:
        """More of the body has come, and is thrown away."""
        self._left -= len(data)
        if end:
            self._finish()
        elif self._left < 0:
            self._abort()

    def response_trailers(self, lines: bytes) -> None:
        """The response has ended."""
        self._finish()

    def response_failed(self, detail: str) -> None:
        """The endpoint has sent what is not HTTP."""
        self._status = 0
        self._abort()

    def not_switched(self, detail: str) -> None:
        """It never asks to switch protocols."""
        self._abort()

    def upstream_lost(self, stream: UpstreamStream) -> None:
        """The connection is gone."""
        self._stream = None
        self._end(self._status)

    def pause_request(self) -> None:
        """All of the request is there already, and bounded."""

    def resume_request(self) -> None:
        """As above."""
