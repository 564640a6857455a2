"""Connections to one address that carry many exchanges each.

Requests go to the connection with the most room. If none has any, another is made, up to the limit; further
requests wait, bounded in number and time.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from nodeagent.proxy.deadlines import Deadline
from nodeagent.proxy.errors import PoolFull, PoolTimeout
from nodeagent.proxy.pool import Address, Dialer
from nodeagent.proxy.runtime import Runtime
from nodeagent.proxy.streams import Pending, StreamTaker, UpstreamStream


class Shared(Protocol):
    """A connection as its pool sees it."""

    lost: bool

    @property
    def room(self) -> int:
        """How many more streams it takes now."""
        ...

    @property
    def busy(self) -> int:
        """How many streams it has."""
        ...

    def open(self) -> UpstreamStream:
        """Return a stream for another request."""
        ...

    def leave(self) -> None:
        """Take no further streams, and close when the last has ended."""
        ...


class _Waiting:
    """A request that waits for room."""

    __slots__ = ("deadline", "pool", "taker")

    def __init__(self, pool: SharedPool, taker: StreamTaker) -> None:
        self.pool = pool
        self.taker = taker
        self.deadline: Deadline | None = None

    def cancel(self) -> None:
        """Wait no more."""
        self.pool.cancel(self)

    def timed_out(self) -> None:
        """It has waited for as long as one may."""
        pool = self.pool
        pool.cancel(self)
        self.taker.connect_failed(PoolTimeout(f"no connection to {pool} had room in time"))


class SharedPool:
    """The connections of this worker to one address. Implements `nodeagent.proxy.pool.EndpointPool`."""

    __slots__ = (
        "_connections",
        "_dialer",
        "_dialing",
        "_leaving",
        "_make",
        "_most",
        "_seconds",
        "_serving",
        "address",
        "queue",
        "runtime",
        "users",
    )

    def __init__(
        self, address: Address, runtime: Runtime, dialer: Dialer, make: Callable[[SharedPool], Shared]
    ) -> None:
        self.address = address
        self.users = 0
        self.runtime = runtime
        self._dialer = dialer
        self._make = make
        self._connections: list[Shared] = []
        self._leaving: set[Shared] = set()
        """Those that take no further streams but still have some; they do not count for the limit."""
        self._dialing: list[Pending] = []
        self.queue: OrderedDict[_Waiting, None] = OrderedDict()
        """Requests that wait for room, the first next."""
        self._most = 1
        self._seconds = 0.0
        """What the last that waited said of connecting."""
        self._serving = False

    def __str__(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    @property
    def waiting(self) -> int:
        """How many requests wait for room."""
        return len(self.queue)

    @property
    def open(self) -> int:
        """Connections that exist or are being made."""
        return len(self._connections) + len(self._leaving) + len(self._dialing)

    def take(self) -> UpstreamStream | None:
        """Return a stream on the connection with most room, or None."""
        best, most = None, 0
        for connection in self._connections:
            room = connection.room
            if room > most:
                best, most = connection, room
        return best.open() if best is not None else None

    def wait(self, taker: StreamTaker, seconds: float, most: int) -> Pending:
        """Wait for room, on a connection that is made for it where there may be one more.

        Raises:
            PoolFull: too many wait already.
        """
        limits = self.runtime.limits
        if len(self.queue) >= limits.upstream_queue:
            raise PoolFull(f"{self} has {self.open} connections, and {len(self.queue)} requests wait for one")
        waiting = _Waiting(self, taker)
        self.queue[waiting] = None
        self._most, self._seconds = most, seconds
        waiting.deadline = self.runtime.deadlines.set(limits.upstream_queue_time, waiting.timed_out)
        if any(connection.room > 0 for connection in self._connections):
            self.runtime.loop.call_soon(self.serve)  # not before the taker knows that it waits
        else:
            self._dial_enough()
        return waiting

    def cancel(self, waiting: _Waiting) -> None:
        """Forget one that waits. What is dialled is of use to the next."""
        self.queue.pop(waiting, None)
        if waiting.deadline is not None:
            waiting.deadline.cancel()

    def serve(self) -> None:
        """Give those that wait what room there is, and have connections made for the others."""
        if self._serving:
            return
        self._serving = True
        while self.queue:
            stream = self.take()
            if stream is None:
                self._dial_enough()
                break
            self._next().connected(stream)
        self._serving = False

    def lost(self, connection: Shared) -> None:
        """A connection is gone."""
        self._leaving.discard(connection)
        if connection in self._connections:
            self._connections.remove(connection)
            self.serve()

    def left(self, connection: Shared) -> None:
        """A connection takes no further streams; it is told when it is gone."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._leaving.add(connection)
            self.serve()

    def close_idle(self) -> None:
        """No backend has this address any more: connections close when their last exchange ends."""
        for connection in list(self._connections):
            connection.leave()

    def _next(self) -> StreamTaker:
        waiting, _ = self.queue.popitem(last=False)
        if waiting.deadline is not None:
            waiting.deadline.cancel()
        return waiting.taker

    def _dial_enough(self) -> None:
        """Have as many connections made as those that wait can use, and no more than there may be."""
        if any(not connection.busy and connection.room <= 0 for connection in self._connections):
            return  # an endpoint that takes no streams at all: another connection would not help
        limit = self.runtime.limits.streams
        while len(self.queue) > len(self._dialing) * limit:
            if len(self._connections) + len(self._dialing) >= self._most:
                return
            self._dial()

    def _dial(self) -> None:
        dialing: Pending | None = None

        def done(connection: Shared | None, error: Exception | None) -> None:
            assert dialing is not None
            self._dialing.remove(dialing)
            if connection is None or connection.lost:
                self._failed(error or ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
                return
            self._connections.append(connection)
            self.serve()
            if not self.users:
                connection.leave()

        dialing = self._dialer.dial(self.address, lambda: self._make(self), self._seconds, done)
        self._dialing.append(dialing)

    def _failed(self, error: Exception) -> None:
        """The endpoint has accepted no connection: fail the requests that wait, if there is no other
        connection to wait for.
        """
        if self._connections or self._dialing:
            return
        for waiting in list(self.queue):
            if waiting in self.queue:  # one may have ended because of another
                self.cancel(waiting)
                waiting.taker.connect_failed(error)
