"""The way to an endpoint: the choice of one, the connection, and what follows when it fails.

A request is sent to another endpoint when one accepts no connection, again when a pooled connection turns out
to be closed or the endpoint did not process it, and to another Service when its own has no healthy endpoint.
A layer may have it sent again after a failure, or race a second try against the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from middleware.contract import ConnectFailed, ExchangeError, NoEndpoint, UpstreamReset
from nodeagent.proxy.backend import Backend, Target, describe_failure
from nodeagent.proxy.chain import Outcome
from nodeagent.proxy.errors import PoolFull, UpstreamRefused
from nodeagent.proxy.health import Outcome as Verdict
from nodeagent.proxy.responding import Responding
from nodeagent.proxy.response import UpstreamResponse
from nodeagent.proxy.second import Place, SecondTry
from nodeagent.proxy.streams import UpstreamStream
from nodeagent.stats.columns import (
    RESENDS,
    UPSTREAM_CONNECT_FAILED,
    UPSTREAM_CONNECT_TIMEOUT,
    UPSTREAM_CONNECTIONS,
    UPSTREAM_NO_ENDPOINT,
    UPSTREAM_OVERLOADED,
    UPSTREAM_RESET,
    UPSTREAM_TRUNCATED,
)

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""RFC 9110 section 9.2.2."""
CONNECT_TRIES: Final = 3
"""Endpoints that are tried for one send when they accept no connection."""
RESEND_TRIES: Final = 2


class Forwarding(Responding):
    """An exchange with what goes to endpoints."""

    __slots__ = ()

    # The choice of an endpoint

    async def forward(self) -> UpstreamResponse:
        """Send the request to the next endpoint: the innermost handler. Raises `ExchangeError`."""
        self.dispatch()
        return cast("UpstreamResponse", await Outcome())

    def dispatch(self) -> None:
        """Choose an endpoint and send the request, or have a connection made for it.

        Raises:
            ExchangeError: there is no endpoint, or the request cannot be sent again.
        """
        if self._expired is not None:
            raise self._expired
        if not self.replayable:
            raise UpstreamReset("the request's body is not kept any more, so it cannot be sent again")
        backend = self._backend
        tried = self._tried
        target = None
        if backend is not None:
            now = self.listener.runtime.now() if tried else self.started
            steered = backend.steering is not None
            target = self._pick_for(backend, tried) if steered else backend.pick(tried, now)
            if target is None:
                if tried:
                    # Every endpoint has had its try: begin again rather than give up early.
                    self._tried = ()
                    target = self._pick_for(backend, ()) if steered else backend.pick((), now)
                if target is None and backend.failover is not None:
                    backend, target = self._fail_over(backend, backend.failover, now)
        if target is None:
            self.listener.count(UPSTREAM_NO_ENDPOINT)
            raise NoEndpoint(self._why_none())
        self._target = target
        pool = target.pool
        stream = pool.take() if pool is not None and self._resends < RESEND_TRIES else None
        if self._journey is not None:
            self._journey.next_try(target.name, self.listener.runtime.now(), stream is None)
        if stream is not None:
            self._send(stream)
            return
        assert backend is not None
        try:
            self._pending = backend.connect(target, self, self.client.connect_time)
        except PoolFull:
            self.listener.count(UPSTREAM_OVERLOADED)
            raise

    def _fail_over(self, backend: Backend, other: Backend, now: float) -> tuple[Backend, Target | None]:
        """Choose an endpoint of another Service, as this one has no healthy one."""
        target = self._pick_for(other, ()) if other.steering is not None else other.pick((), now)
        if target is None:
            return backend, backend.last_resort((), now)
        backend.failed_over()
        self._backend = other
        return other, target

    def _pick_for(self, backend: Backend, avoid: tuple[Target, ...]) -> Target | None:
        """Choose with all that this backend's balancer wants to know."""
        if self._try is not None:
            self._try.end(self.listener.runtime.now())
            self._try = None
        picked = backend.pick_for(self._head, self.client.source, avoid, self.listener.runtime.now())
        if picked is None:
            return None
        target, self._try = picked
        return target

    def _why_none(self) -> str:
        if self._backend is None:
            return f"{self.listener.service} has no backend with a weight"
        return f"{self._backend.key.service} has no ready endpoint for port {self._backend.key.port}"

    # The connection and the stream

    def connected(self, stream: UpstreamStream) -> None:
        """Take the connection that was made for this exchange into use."""
        self._pending = None
        if not stream.served:
            self.listener.count(UPSTREAM_CONNECTIONS)
        assert self._backend is not None
        assert self._target is not None
        self._backend.connected(self._target)
        if self._journey is not None:
            journey = self._journey
            journey.connected(journey.current, self.listener.runtime.now(), stream.served > 0)
        self._send(stream)

    def connect_failed(self, error: Exception) -> None:
        """Try another endpoint: nothing has been sent yet."""
        self._pending = None
        backend, target = self._backend, self._target
        assert backend is not None
        assert target is not None
        if isinstance(error, ExchangeError):
            self.listener.count(UPSTREAM_OVERLOADED)
            self._raise(error)
            return
        now = self.listener.runtime.now()
        timed_out = isinstance(error, TimeoutError)
        self.listener.count(UPSTREAM_CONNECT_TIMEOUT if timed_out else UPSTREAM_CONNECT_FAILED)
        backend.failed(target, Verdict.CONNECT_FAILED, now)
        self._try_failed()
        self._connect_failures += 1
        self._tried_in_vain()
        elsewhere = backend.failover is not None or any(one not in self._tried for one in backend.targets)
        if self._connect_failures < CONNECT_TRIES and elsewhere:
            self._dispatch_again(ConnectFailed)
            return
        self._connect_failures = 0
        self._raise(ConnectFailed(describe_failure(target, error)))

    def _dispatch_again(self, after: type[ExchangeError]) -> None:
        """Try again, after a failure that is no reason to tell the layers."""
        if self._journey is not None:
            self._journey.over(self._journey.current, self.listener.runtime.now(), after.reason)
        try:
            self.dispatch()
        except ExchangeError as error:
            self._raise(error)

    def _send(self, stream: UpstreamStream) -> None:
        self._upstream = stream
        client = self.client
        if client.write_paused:
            stream.pause()
        end = self.completed is not None
        if not end:  # before `start`, which may have it held again
            client.resume_reading()
        if self._trailers:
            stream.start(self, self._head, client.source, self._kept or (), False)
            if self._upstream is stream:
                stream.send_trailers(self._trailers)
            return
        stream.start(self, self._head, client.source, self._kept or (), end)
        if self._kept_size > self.listener.runtime.replay_bytes:
            self._forget_body()

    def pause_request(self) -> None:
        """The endpoint does not keep up: the client has to wait."""
        self.client.pause_reading()

    def resume_request(self) -> None:
        """The endpoint has caught up."""
        self.client.resume_reading()

    def upstream_lost(self, stream: UpstreamStream) -> None:
        """The endpoint's connection ended while this exchange owned it, before the response was whole."""
        self._upstream = None
        self.client.resume_reading()
        if self.tunnel:
            self._break_off(None)
        elif self._response is not None:
            self.listener.count(UPSTREAM_TRUNCATED)
            self._tried_in_vain()
            self._response.cut = True  # `chain_returned` will see to it
            self._response.wake()
        elif self.committed:
            self.listener.count(UPSTREAM_TRUNCATED)
            self._truncated()
        elif stream.unprocessed:
            self._refused()
        elif (
            stream.served
            and self.replayable
            and self._head.method in IDEMPOTENT
            and self._resends <= RESEND_TRIES
        ):
            # It was closed while idle in the pool: that is not the endpoint's verdict on this request.
            self._resends += 1
            self.listener.count(RESENDS)
            self._dispatch_again(UpstreamReset)
        else:
            self.listener.count(UPSTREAM_RESET)
            self._blame(Verdict.RESET)
            self._tried_in_vain()
            self._raise(UpstreamReset(f"{self._target} closed the connection without answering"))

    def _refused(self) -> None:
        """The endpoint has said that it did nothing: any request may be sent again (RFC 9113 section 8.7)."""
        self._tried_in_vain()
        if self.replayable and self._resends < RESEND_TRIES:
            self._resends += 1
            self.listener.count(RESENDS)
            self._dispatch_again(UpstreamRefused)
        else:
            self.listener.count(UPSTREAM_RESET)
            self._raise(UpstreamRefused(f"{self._target} refused the request"))

    # A second try beside the first

    def race(self, seconds: float, permit: Callable[[], bool]) -> SecondTry:
        """Have a second try after this time; see the contract."""
        second = self._second = SecondTry(self, permit)
        second.after(seconds)
        return second

    def place_for_second(self, permit: Callable[[], bool]) -> Place | None:
        """Return where a second try goes, and begin it, if there may be one and `permit` allows it."""
        backend, first = self._backend, self._target
        waiting = self._upstream is not None or self._pending is not None
        if not waiting or self._response is not None or backend is None or first is None:
            return None
        if self.completed is None or not self.replayable or self._head.upgrade or self._expired is not None:
            return None
        now = self.listener.runtime.now()
        target = backend.pick_second(self._head, self.client.source, (*self._tried, first), now)
        if target is None or not permit():
            return None
        self._tried = (*self._tried, target)
        if self._journey is not None:
            self._journey.second = self._journey.began(target.name, now, True)
        return Place(backend, target, backend.begin_second(self._head, target, now))

    def start_second(self, stream: UpstreamStream) -> None:
        """Send the request, all of which is there, on the stream of the second try."""
        second, source, body = self._second, self.client.source, self._kept or ()
        if self._journey is not None:
            journey = self._journey
            journey.connected(journey.second, self.listener.runtime.now(), stream.served > 0)
        if not self._trailers:
            stream.start(second, self._head, source, body, True)
            return
        stream.start(second, self._head, source, body, False)
        if second.stream is stream:
            stream.send_trailers(self._trailers)

    def second_over(self) -> None:
        """Note that the second try is over, unless it is the exchange's own by now."""
        if self._journey is not None:
            self._journey.over(self._journey.second, self.listener.runtime.now())
