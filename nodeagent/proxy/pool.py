"""Connections to one address: those in use, those idle, how new ones are made, and the requests that wait for
one.

`Pools` has one for each address, port and protocol, whichever backends name it. A pool is bounded: when it
has no further connection, requests wait; when too many wait, or one waits too long, it is refused. `Pool` is
for connections with one exchange at a time, `nodeagent.proxy.shared_pool` for those that carry many.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, cast

from nodeagent.plan.model import UpstreamProtocol
from nodeagent.proxy.connection import Connection
from nodeagent.proxy.deadlines import Deadline
from nodeagent.proxy.errors import PoolFull, PoolTimeout
from nodeagent.proxy.runtime import Runtime
from nodeagent.proxy.streams import Pending, StreamTaker, UpstreamStream

Address = tuple[str, int]
Made = TypeVar("Made")
"""What a dialer makes: a connection, an asyncio protocol."""


class EndpointPool(Protocol):
    """The connections of this worker to one address that speak one protocol."""

    address: Address
    users: int
    """Backends that name it. A pool that none names keeps no idle connections."""

    @property
    def waiting(self) -> int:
        """How many requests wait for a stream."""
        ...

    @property
    def open(self) -> int:
        """Connections that exist or are being made."""
        ...

    def take(self) -> UpstreamStream | None:
        """Return a stream that can be used at once, or None."""
        ...

    def wait(self, taker: StreamTaker, seconds: float, most: int) -> Pending:
        """Have a stream made, or wait for one where there are `most` connections; the taker is called, later.

        `seconds` is for connecting.

        Raises:
            PoolFull: too many wait already.
        """
        ...

    def close_idle(self) -> None:
        """Close what is idle; connections in use close when their exchanges end."""
        ...


class Pooled(UpstreamStream, Protocol):
    """A connection as its pool sees it."""

    lost: bool
    deadline: float
    """When it has been idle for long enough."""
    counted: bool
    """Set by the pool: from now on it tells `Pool.lost` when it is gone."""

    def usable(self) -> bool:
        """Whether it may serve another exchange: checks the socket for its end, or for unexpected bytes."""
        ...

    def abort(self) -> None:
        """Close it."""
        ...


class Dialer(Protocol):
    """Makes connections; the real one is `SocketDialer`."""

    def dial(
        self,
        address: Address,
        make: Callable[[], Made],
        seconds: float,
        done: Callable[[Made | None, Exception | None], None],
    ) -> Pending:
        """Connect within `seconds`; `done` gets what `make` made, or OSError or TimeoutError."""
        ...


class SocketDialer:
    """Connects sockets, on a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def dial(
        self,
        address: Address,
        make: Callable[[], Made],
        seconds: float,
        done: Callable[[Made | None, Exception | None], None],
    ) -> Pending:
        """Implements `Dialer`."""
        return _Dialing(self._loop, address, make, seconds, done)


class _Dialing:
    """One connection that is being made."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: Address,
        make: Callable[[], Any],
        seconds: float,
        done: Callable[[Any, Exception | None], None],
    ) -> None:
        self._loop = loop
        self._done = done
        self._make = make
        self._made: Any = None
        self._task = loop.create_task(self._run(address, seconds))

    async def _run(self, address: Address, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._loop.create_connection(self._factory, *address)
        except (OSError, TimeoutError) as error:
            self._drop()
            self._done(None, error)
        except asyncio.CancelledError:
            self._drop()
            raise
        else:
            self._done(self._made, None)

    def _factory(self) -> asyncio.BaseProtocol:
        self._made = made = self._make()
        return cast("asyncio.BaseProtocol", made)

    def _drop(self) -> None:
        """A connection that was made too late to be used: the loop has closed it without saying so."""
        made = self._made
        if isinstance(made, Connection) and made in made.runtime.connections:
            made.connection_lost(None)

    def cancel(self) -> None:
        """Give it up; `done` is not called."""
        self._task.cancel()


class _Waiting:
    """A request that waits: for the connection that is dialled for it, or for any that becomes free."""

    __slots__ = ("deadline", "dialing", "pool", "taker")

    def __init__(self, pool: Pool, taker: StreamTaker) -> None:
        self.pool = pool
        self.taker: StreamTaker | None = taker
        self.dialing: Pending | None = None
        self.deadline: Deadline | None = None

    def cancel(self) -> None:
        """Wait no more. A dial under way is given up with it."""
        self.pool.cancel(self)

    def timed_out(self) -> None:
        """It has waited in the queue for as long as one may."""
        taker, pool = self.taker, self.pool
        pool.cancel(self)
        if taker is not None:
            taker.connect_failed(PoolTimeout(f"no connection to {pool} became free in time"))


class Pool:
    """The connections of this worker to one address that carry one exchange at a time each.

    The idle ones are used again, newest first. Implements `EndpointPool`.
    """

    __slots__ = ("_dialer", "_idle", "_make", "_queue", "address", "open", "runtime", "users")

    def __init__(
        self, address: Address, runtime: Runtime, dialer: Dialer, make: Callable[[Pool], Pooled]
    ) -> None:
        self.address = address
        self.users = 0
        self.runtime = runtime
        self._dialer = dialer
        self._make = make
        self._idle: list[Pooled] = []
        self._queue: OrderedDict[_Waiting, None] = OrderedDict()
        self.open = 0
        """Connections that exist or are being made."""

    def __str__(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    @property
    def waiting(self) -> int:
        """How many requests wait for one of its connections."""
        return len(self._queue)

    def take(self) -> Pooled | None:
        """Return an idle connection that looks alive, or None."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable():
                return connection
            connection.abort()
        return None

    def wait(self, taker: StreamTaker, seconds: float, most: int) -> Pending:
        """Have a connection made, or wait for one where there are `most`; the taker is called, later.

        `seconds` is for connecting.

        Raises:
            PoolFull: too many wait already.
        """
        waiting = _Waiting(self, taker)
        if self.open < most:
            self._dial(waiting, seconds)
            return waiting
        limits = self.runtime.limits
        if len(self._queue) >= limits.upstream_queue:
            raise PoolFull(
                f"{self} has {self.open} connections, and {len(self._queue)} requests wait for one"
            )
        self._queue[waiting] = None
        waiting.deadline = self.runtime.deadlines.set(limits.upstream_queue_time, waiting.timed_out)
        return waiting

    def cancel(self, waiting: _Waiting) -> None:
        """Forget one that waits."""
        waiting.taker = None
        if waiting.deadline is not None:
            waiting.deadline.cancel()
        if waiting.dialing is not None:
            waiting.dialing.cancel()
            waiting.dialing = None
            self.lost()
        else:
            self._queue.pop(waiting, None)

    def give_back(self, connection: Pooled, now: float) -> None:
        """Hand a connection that has served to the next in the queue, or keep it, or close it."""
        queue = self._queue
        if queue:
            if connection.usable():
                self._deliver(queue.popitem(last=False)[0], connection)
            else:
                connection.abort()
        elif not self.users or len(self._idle) >= self.runtime.limits.upstream_idle_connections:
            connection.abort()
        else:
            connection.deadline = now + self.runtime.limits.upstream_idle_time
            self._idle.append(connection)

    def forget(self, connection: Pooled) -> None:
        """Drop a connection that may be idle: it is closing."""
        if connection in self._idle:
            self._idle.remove(connection)

    def lost(self) -> None:
        """A connection is gone, or serves no more exchanges: there is room for another."""
        self.open -= 1
        if self._queue:
            waiting, _ = self._queue.popitem(last=False)
            if waiting.deadline is not None:
                waiting.deadline.cancel()
            self._dial(waiting, self.runtime.limits.connect_time)

    def close_idle(self) -> None:
        """Close what is idle; connections in use close when their exchange ends."""
        while self._idle:
            self._idle.pop().abort()

    def _dial(self, waiting: _Waiting, seconds: float) -> None:
        self.open += 1

        def done(connection: Pooled | None, error: Exception | None) -> None:
            waiting.dialing = None
            taker = waiting.taker
            if error is not None:
                self.lost()
                if taker is not None:
                    taker.connect_failed(error)
            elif taker is not None:
                assert connection is not None
                connection.counted = True
                taker.connected(connection)

        waiting.dialing = self._dialer.dial(self.address, lambda: self._make(self), seconds, done)

    def _deliver(self, waiting: _Waiting, connection: Pooled) -> None:
        if waiting.deadline is not None:
            waiting.deadline.cancel()
        taker = waiting.taker
        assert taker is not None
        taker.connected(connection)


class Pools:
    """The pools of one worker, by address and protocol. `kinds` makes the pool of an address."""

    def __init__(
        self,
        runtime: Runtime,
        dialer: Dialer,
        kinds: Mapping[UpstreamProtocol, Callable[[Address], EndpointPool]],
    ) -> None:
        self.runtime = runtime
        self.dialer = dialer
        self._kinds = kinds
        self._pools: dict[tuple[Address, UpstreamProtocol], EndpointPool] = {}

    def __len__(self) -> int:
        return len(self._pools)

    @property
    def waiting(self) -> int:
        """How many requests wait for a connection to become free."""
        return sum(pool.waiting for pool in self._pools.values())

    def acquire(self, address: Address, protocol: UpstreamProtocol) -> EndpointPool:
        """Return the pool of an address for one more backend."""
        pool = self._pools.get((address, protocol))
        if pool is None:
            pool = self._pools[address, protocol] = self._kinds[protocol](address)
        pool.users += 1
        return pool

    def release(self, pool: EndpointPool) -> None:
        """One backend less; with the last one goes the pool."""
        pool.users -= 1
        if not pool.users:
            for key, one in list(self._pools.items()):
                if one is pool:
                    del self._pools[key]
            pool.close_idle()
