"""A request that belongs to no client: a layer sends it for its own sake, such as to validate what it keeps.

It is an exchange like others, towards the endpoints, and nothing at all towards clients: its response goes to
nobody, and it is neither counted nor reported as a request to the Service.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, cast

from middleware.contract import ExchangeError, Handler, Reply
from nodeagent.proxy.chain import Chain
from nodeagent.proxy.exchange import Exchange
from nodeagent.proxy.message import ResponseHead
from nodeagent.proxy.streams import Source


class Nobody:
    """Takes everything and sends nothing. Implements `nodeagent.proxy.streams.ClientStream`."""

    http_version = ""

    def __init__(self, source: Source, connect_time: float) -> None:
        self.source = source
        self.connect_time = connect_time
        self.write_paused = False
        self.received = 0
        self.sent = 0

    def respond(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """Drop it."""

    def send_data(self, data: bytes, end: bool) -> None:
        """Drop it."""

    def send_trailers(self, lines: bytes) -> None:
        """Drop them."""

    def respond_reply(self, reply: Reply, close: bool) -> None:
        """Drop it."""

    def informational(self, head: ResponseHead) -> None:
        """Drop it."""

    def finished(self, now: float, abort: bool) -> None:
        """There is nothing to end."""

    def pause_reading(self) -> None:
        """There is nothing to read."""

    def resume_reading(self) -> None:
        """There is nothing to read."""


class Errand(Exchange):
    """An exchange of nobody. `like` is the exchange whose request it sends."""

    __slots__ = ()

    def __init__(self, like: Exchange) -> None:
        listener = like.listener
        now = listener.runtime.now()
        super().__init__(
            Nobody(like.client.source, like.client.connect_time),
            listener,
            like.head.copy(0),
            now,
        )
        self.completed = now
        self._rule = like._rule
        self._backend = like._backend
        self._backend_name = like._backend_name

    def serve(self, handler: Handler) -> None:
        """Run it."""
        coroutine = cast("Coroutine[Any, Any, Any]", handler(self))
        self._chain = Chain(coroutine, self, self.listener.runtime.loop)
        self._chain.step(None)

    def chain_returned(self, response: Any) -> None:
        """It is done."""
        self._chain = None
        waiting = self._response
        if waiting is not None:
            self.discard(waiting)
        self._over()

    def fail(self, error: ExchangeError) -> None:
        """It has failed, which is told to nobody."""
        self.error = error
        self._over()

    def _record(self, now: float) -> None:
        """Count nothing: no client has sent it."""

    def _over(self) -> None:
        if not self._ended:
            self._give_try_up()
            self._end(self.listener.runtime.now())


def run_apart(like: Exchange, serve: Handler) -> None:
    """Have `serve` called with a request like that of this exchange which belongs to nobody."""
    Errand(like).serve(serve)
