"""A client's connection to a tcp port: bytes both ways, half-close and backpressure, nothing read into.

The endpoint is connected at once, before the client has said anything, so protocols in which the server
speaks first work. What the client sends meanwhile waits, bounded.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from middleware.contract import ConnectFailed, ExchangeError, NoEndpoint
from nodeagent.proxy.backend import Backend, Target, describe_failure
from nodeagent.proxy.connection import AHEAD, PEER_FULL, Connection, probe_peer
from nodeagent.proxy.forwarding import CONNECT_TRIES
from nodeagent.proxy.health import Outcome
from nodeagent.proxy.listeners import RunningListener
from nodeagent.proxy.observer import ALL, Closed
from nodeagent.proxy.runtime import FOREVER
from nodeagent.proxy.steering import Try
from nodeagent.proxy.streams import Pending, Source
from nodeagent.stats.columns import (
    BYTES_RECEIVED,
    BYTES_SENT,
    CONNECTIONS,
    CONNECTIONS_ACTIVE,
    UPSTREAM_CONNECT_FAILED,
    UPSTREAM_CONNECT_TIMEOUT,
    UPSTREAM_CONNECTIONS,
    UPSTREAM_NO_ENDPOINT,
)

LINGER_TIME: Final = 60.0
"""Seconds in which the last bytes of a connection that both sides have ended must get through."""
IN_ORDER: Final = frozenset(("client_closed", "client_reset", "endpoint_closed"))
"""Reasons to end that are no failure: one side had said all it wanted, or the client has left."""


class _End(NamedTuple):
    reason: str
    detail: str


BROKEN_OFF: Final = _End("broken_off", "the worker ended it: it leaves, or the client made it hold too much")


class TcpSide(Connection):
    """One of the two connections; `peer` is the other one. `column` counts the bytes that come from it."""

    __slots__ = ("_column", "bytes", "ended", "listener", "peer", "source")

    name = "client"
    """Who is at the far end, as the reasons of an end say it."""

    def __init__(self, listener: RunningListener, source: Source, column: int) -> None:
        super().__init__(listener.runtime)
        self.listener = listener
        self.source = source
        """Of the client."""
        self.peer: TcpSide | None = None
        self.ended = False
        """It will send no more, and its peer knows."""
        self.bytes = 0
        """How many have come from it."""
        self._column = column

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio calls this once."""
        super().connection_made(transport)
        probe_peer(self.transport)

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        size = len(data)
        self.listener.count_from(self.source, self._column, size)
        self.bytes += size
        self.moved()
        peer = self.peer
        if peer is not None and not peer.transport.is_closing():
            peer.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the end on; our own side of the connection stays open for what still comes."""
        peer = self.peer
        if peer is None or peer.transport.is_closing():
            return False
        self.end(peer)
        return not self.transport.is_closing()

    def end(self, peer: TcpSide) -> None:
        """Say no more; with both sides it is over."""
        self.ended = True
        self.ends(f"{self.name}_closed")
        peer.transport.write_eof()
        if peer.ended:
            for side in (self, peer):
                side.deadline = self.runtime.now() + LINGER_TIME
                side.transport.close()

    def pause_writing(self) -> None:
        """Asyncio: what we send is not taken, so the other side has to wait."""
        self.write_paused = True
        if self.peer is not None:
            self.peer.hold(PEER_FULL)

    def resume_writing(self) -> None:
        """Asyncio: it is taken again."""
        self.write_paused = False
        if self.peer is not None:
            self.peer.let_go(PEER_FULL)

    def connection_lost(self, exc: Exception | None) -> None:
        """One side gone is both gone: a reset as a reset."""
        super().connection_lost(exc)
        peer, self.peer = self.peer, None
        if peer is None:
            return
        peer.peer = None
        if exc is not None:
            self.ends(f"{self.name}_reset", str(exc))
        if exc is not None or not (self.ended and peer.ended):
            peer.reset()

    def moved(self) -> None:
        """Something has moved."""

    def ends(self, reason: str, detail: str = "") -> None:
        """Note why the two connections end."""


class TcpUpstream(TcpSide):
    """The connection to the endpoint of `client`."""

    __slots__ = ("_client",)

    name = "endpoint"

    def __init__(self, client: TcpConnection) -> None:
        super().__init__(client.listener, client.source, BYTES_SENT)
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the two at once: the endpoint's first bytes may come before anything else happens."""
        super().connection_made(transport)
        self._client.join(self)

    @property
    def owner(self) -> str:
        """The client's address."""
        return self._client.owner

    def moved(self) -> None:
        """The client's deadline is that of both."""
        self._client.moved()

    def ends(self, reason: str, detail: str = "") -> None:
        """The client's connection is told of for both."""
        self._client.ends(reason, detail)


class TcpConnection(TcpSide):
    """The client's connection, and the state of both: connecting, joined, ended."""

    __slots__ = (
        "_connect_time",
        "_early",
        "_early_end",
        "_end",
        "_idle_time",
        "_pending",
        "_started",
        "_tried",
        "_try",
        "_upstream",
    )

    of_client = True

    def __init__(
        self, listener: RunningListener, source: Source, connect_time: float, idle_time: float | None
    ) -> None:
        super().__init__(listener, source, BYTES_RECEIVED)
        self._connect_time = connect_time
        self._idle_time = idle_time
        self._early: list[bytes] = []
        """What the client sent before there was a connection to an endpoint."""
        self._early_end = False
        self._pending: Pending | None = None
        self._tried: tuple[Target, ...] = ()
        self._try: Try[Target] | None = None
        self._upstream: TcpUpstream | None = None
        """The endpoint's side, also when it is gone."""
        self._started = 0.0
        self._end = _End("", "")

    @property
    def owner(self) -> str:
        """The client's address."""
        return self.source.address

    @property
    def held(self) -> int:
        """Bytes that came before there was an endpoint, and those that the client does not take."""
        return super().held + sum(map(len, self._early))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: connect to an endpoint."""
        super().connection_made(transport)
        self._started = self.runtime.now()
        self.listener.count_from(self.source, CONNECTIONS)
        self.listener.count(CONNECTIONS_ACTIVE)
        self.moved()
        self._connect()

    def _connect(self) -> None:
        listener = self.listener
        rule = listener.rule
        backend = (rule.backend or rule.choose()) if rule is not None else None
        target = self._pick(backend) if backend is not None else None
        if target is None and backend is not None and backend.failover is not None:
            target = self._pick(backend.failover)
            if target is not None:
                backend.failed_over()
                backend = backend.failover
            else:
                target = backend.last_resort(self._tried, self.runtime.now())
        if backend is None or target is None:
            if not self._tried:
                listener.count(UPSTREAM_NO_ENDPOINT)
                self._fail(NoEndpoint(f"{listener.service} has no ready endpoint for port {listener.port}"))
            else:
                self._fail(ConnectFailed(f"none of {', '.join(map(str, self._tried))} accepts connections"))
            return
        self._tried = (*self._tried, target)

        def done(_: Connection | None, error: Exception | None) -> None:
            if self._try is not None:
                self._try.heard(error is None, self.runtime.now())
            if error is None:
                backend.connected(target)
                backend.accepted(target)
            elif self._pending is not None:  # else it was joined, and broke: the two have dealt with that
                self._pending = None
                timed_out = isinstance(error, TimeoutError)
                listener.count(UPSTREAM_CONNECT_TIMEOUT if timed_out else UPSTREAM_CONNECT_FAILED)
                backend.failed(target, Outcome.CONNECT_FAILED, self.runtime.now())
                elsewhere = backend.failover is not None or len(self._tried) < len(backend.targets)
                if len(self._tried) < CONNECT_TRIES and elsewhere:
                    self._connect()
                elif len(self._tried) == 1:
                    self._fail(ConnectFailed(describe_failure(target, error)))
                else:
                    tried = ", ".join(map(str, self._tried))
                    self._fail(ConnectFailed(f"none of {tried} accepts connections"))

        self._pending = backend.dial(target, lambda: TcpUpstream(self), self._connect_time, done)

    def _pick(self, backend: Backend) -> Target | None:
        now = self.runtime.now()
        if backend.steering is None:
            return backend.pick(self._tried, now)
        self._end_try()
        picked = backend.pick_for(None, self.source, self._tried, now)
        if picked is None:
            return None
        target, self._try = picked
        return target

    def _end_try(self) -> None:
        """Let the balancer know that it is over with this endpoint."""
        if self._try is not None:
            self._try.end(self.runtime.now())
            self._try = None

    def _fail(self, error: ExchangeError) -> None:
        self.ends(error.reason, error.detail)
        self.reset()

    def join(self, upstream: TcpUpstream) -> None:
        """Let bytes go both ways between the client and an endpoint that has just been connected."""
        self._pending = None
        if self.lost or self.transport.is_closing():
            upstream.transport.abort()
            return
        self.listener.count(UPSTREAM_CONNECTIONS)
        self.peer = self._upstream = upstream
        upstream.peer = self
        if self.write_paused:
            upstream.hold(PEER_FULL)
        if self._early:
            upstream.transport.write(b"".join(self._early))
            self._early.clear()
        if self._early_end:
            self.end(upstream)
        self.let_go(AHEAD)

    def data_received(self, data: bytes) -> None:
        """Bytes for the endpoint."""
        if self.peer is None and self._pending is not None:
            self.listener.count_from(self.source, BYTES_RECEIVED, len(data))
            self.bytes += len(data)
            self._early.append(data)
            # Bounded by one read. Not in `connection_made`: uvloop starts to read after it, whatever it says.
            self.hold(AHEAD)
        else:
            super().data_received(data)

    def eof_received(self) -> bool:
        """The client sends no more."""
        if self.peer is None and self._pending is not None:
            self._early_end = True
            return True
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client's connection is gone."""
        self.runtime.leave(self.source.address)
        self.listener.count(CONNECTIONS_ACTIVE, -1)
        self._end_try()
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
            self.ends("client_reset", str(exc or ""))
        super().connection_lost(exc)
        self._tell()

    def reset(self) -> None:
        """Break off both; who knows a better reason has said it before."""
        self.ends(*BROKEN_OFF)
        super().reset()

    def ends(self, reason: str, detail: str = "") -> None:
        """Note why it ends. The first word counts, but a failure comes before an end that was in order."""
        before = self._end.reason
        if not before or (before in IN_ORDER and reason not in IN_ORDER):
            self._end = _End(reason, detail)

    def _tell(self) -> None:
        """Tell who wants to know that the connection is over."""
        observer = self.runtime.observer
        reason, detail = self._end if self._end.reason else BROKEN_OFF
        failed = reason not in IN_ORDER
        if not (failed or observer.wants_all or self.listener.told_from == ALL):
            return
        listener, source, upstream = self.listener, self.source, self._upstream
        observer.closed(
            Closed(
                service=listener.service,
                port=listener.port,
                source=source.address,
                source_port=source.port,
                destination=f"{listener.key[0]}:{listener.key[1]}",
                endpoint=str(self._tried[-1]) if self._tried else "",
                took=self.runtime.now() - self._started,
                received=self.bytes,
                sent=upstream.bytes if upstream is not None else 0,
                reason=reason,
                detail=detail,
                failed=failed,
            )
        )

    def moved(self) -> None:
        """Bytes have moved, one way or the other."""
        if self._idle_time is not None and not self._over:
            self.deadline = self.runtime.now() + self._idle_time

    @property
    def _over(self) -> bool:
        """Whether both sides have said all."""
        return self.ended and (self.peer is None or self.peer.ended)

    def expire(self, now: float) -> None:
        """It has been quiet for longer than its owner allows, or its last bytes do not get through."""
        self.deadline = FOREVER
        if self._over:
            self.ends("stalled", f"the last bytes were not taken in {LINGER_TIME:g}s")
        elif self._idle_time is not None:
            self.ends("idle_timeout", f"nothing moved for {self._idle_time:g}s (svc.mesh/idle-timeout)")
        self.reset()
