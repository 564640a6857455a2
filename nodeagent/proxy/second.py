"""A second try of a request beside the first one, at another endpoint: the head that comes first counts.

A layer asks for it (`Request.race`) with the time after which it begins. While both tries are under way,
the exchange knows only the first one, and the second stands here. It becomes the exchange's own try when its
head has come, or when the first one has failed. From then on this is only a name under which the stream
reaches its exchange. Whichever is too late is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from middleware.contract import ExchangeError, GatewayTimeout
from nodeagent.proxy.backend import Backend, Target
from nodeagent.proxy.deadlines import Deadline
from nodeagent.proxy.health import Outcome as Verdict
from nodeagent.proxy.listeners import RunningListener
from nodeagent.proxy.message import ResponseHead
from nodeagent.proxy.steering import Try
from nodeagent.proxy.streams import ClientStream, Pending, StreamTaker, UpstreamOwner, UpstreamStream
from nodeagent.stats.columns import (
    UPSTREAM_CONNECT_FAILED,
    UPSTREAM_CONNECT_TIMEOUT,
    UPSTREAM_CONNECTIONS,
    UPSTREAM_PROTOCOL_ERROR,
    UPSTREAM_RESET,
)


class Place(NamedTuple):
    """Where a second try goes."""

    backend: Backend
    target: Target
    attempt: Try[Target] | None
    """It as the balancer knows it; None: the balancer does not want to know."""


class Racing(StreamTaker, UpstreamOwner, Protocol):
    """The exchange that a second try belongs to."""

    client: ClientStream
    listener: RunningListener

    def start_second(self, stream: UpstreamStream) -> None:
        """Send the request on this stream, for the second try."""
        ...

    def place_for_second(self, permit: Callable[[], bool]) -> Place | None:
        """Return where a second try goes; None: there must not be one, or there is no other endpoint.

        `permit` is asked last.
        """
        ...

    def second_over(self) -> None:
        """Learn that the second try was given up."""
        ...

    def adopt(self, second: SecondTry) -> None:
        """Make the second try its own one, in place of what it has."""
        ...


class SecondTry:
    """One that may begin later. Implements `Deadline`, and what a stream needs to know of its owner."""

    __slots__ = (
        "_adopted",
        "_backend",
        "_exchange",
        "_permit",
        "_timer",
        "_try",
        "pending",
        "stream",
        "target",
    )

    def __init__(self, exchange: Racing, permit: Callable[[], bool]) -> None:
        self._exchange = exchange
        self._permit = permit
        self._timer: Deadline | None = None
        self._adopted = False
        self._backend: Backend | None = None
        self._try: Try[Target] | None = None
        self.target: Target | None = None
        self.pending: Pending | None = None
        self.stream: UpstreamStream | None = None

    def after(self, seconds: float) -> None:
        """Begin when this time has passed, unless it is cancelled."""
        self._timer = self._exchange.listener.runtime.deadlines.set(seconds, self._begin)

    def cancel(self) -> None:
        """Take it back, or give it up; nothing happens once it is the exchange's own try."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._adopted:
            self._give_up()

    def replaces(self, error: ExchangeError) -> bool:
        """Whether it goes on where the first try has ended with this error."""
        under_way = self.pending is not None or self.stream is not None
        ours = error.fault == "upstream" and not error.final and not isinstance(error, GatewayTimeout)
        return under_way and ours and not self._adopted

    def adopted(self) -> Try[Target] | None:
        """Note that it is the exchange's own try from now on, and return what the balancer knows it as."""
        self._adopted = True
        return self._try

    def _begin(self) -> None:
        place = self._exchange.place_for_second(self._permit)
        if place is None:
            return
        backend, target, self._try = place
        self._backend, self.target = backend, target
        stream = target.pool.take() if target.pool is not None else None
        if stream is not None:
            self._send(stream)
            return
        try:
            self.pending = backend.connect(target, self, self._exchange.client.connect_time)
        except ExchangeError:
            self._give_up()  # the pool is full: there is the first try

    def _send(self, stream: UpstreamStream) -> None:
        self.stream = stream
        self._exchange.start_second(stream)

    def _give_up(self) -> None:
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.cancel()
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.abort()
        if self._try is not None:
            self._try.end(self._exchange.listener.runtime.now())
        self._exchange.second_over()

    def _failed(self, column: int, verdict: Verdict | None) -> None:
        """Note that it failed; the first try goes on alone."""
        listener = self._exchange.listener
        now = listener.runtime.now()
        listener.count(column)
        if verdict is not None and self._backend is not None and self.target is not None:
            self._backend.failed(self.target, verdict, now)
        if self._try is not None:
            self._try.heard(False, now)
        self._give_up()

    # What the pool and the stream call

    def connected(self, stream: UpstreamStream) -> None:
        """Take the connection into use."""
        self.pending = None
        if self._adopted:
            self._exchange.connected(stream)
            return
        if not stream.served:
            self._exchange.listener.count(UPSTREAM_CONNECTIONS)
        if self._backend is not None and self.target is not None:
            self._backend.connected(self.target)
        self._send(stream)

    def connect_failed(self, error: Exception) -> None:
        """Leave it at the first try."""
        self.pending = None
        if self._adopted:
            self._exchange.connect_failed(error)
        elif not isinstance(error, ExchangeError):
            timed_out = isinstance(error, TimeoutError)
            column = UPSTREAM_CONNECT_TIMEOUT if timed_out else UPSTREAM_CONNECT_FAILED
            self._failed(column, Verdict.CONNECT_FAILED)
        else:
            self._give_up()

    @property
    def trailers_wanted(self) -> bool:
        """Whether an endpoint of HTTP/1 gets the request's trailers."""
        return self._exchange.trailers_wanted

    def informational(self, head: ResponseHead) -> None:
        """Pass a 1xx response on if the client can take it for that of the try that it gets."""
        if self._adopted:
            self._exchange.informational(head)

    def response_started(self, head: ResponseHead, data: bytes, end: bool) -> None:
        """It has won."""
        if not self._adopted:
            self._exchange.adopt(self)
        self._exchange.response_started(head, data, end)

    def response_data(self, data: bytes, end: bool) -> None:
        """More of the body has come."""
        self._exchange.response_data(data, end)

    def response_trailers(self, lines: bytes) -> None:
        """The response has ended with trailers."""
        self._exchange.response_trailers(lines)

    def response_failed(self, detail: str) -> None:
        """The endpoint has sent what cannot be passed on."""
        if self._adopted:
            self._exchange.response_failed(detail)
        else:
            self._failed(UPSTREAM_PROTOCOL_ERROR, None)

    def not_switched(self, detail: str) -> None:
        """There is nothing to switch: such requests get no second try."""
        self._exchange.not_switched(detail)

    def upstream_lost(self, stream: UpstreamStream) -> None:
        """The stream is gone before the response was whole."""
        if self._adopted:
            self._exchange.upstream_lost(stream)
            return
        self.stream = None
        if stream.unprocessed or stream.served:  # it may just have been closed while idle
            self._give_up()
        else:
            self._failed(UPSTREAM_RESET, Verdict.RESET)

    def pause_request(self) -> None:
        """The endpoint does not keep up; before it is the exchange's try, all of the request is there."""
        if self._adopted:
            self._exchange.pause_request()

    def resume_request(self) -> None:
        """The endpoint has caught up."""
        if self._adopted:
            self._exchange.resume_request()
