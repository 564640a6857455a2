"""A loop that a test moves by hand: turns, timers and connections come when the test says so.

Callbacks, futures, tasks and `asyncio.timeout` are asyncio's own. What a callback raises is raised to the
test, at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

from nodeagent.proxy.connection import Connection

MOST_TURNS = 10_000
"""Turns without time passing, after which a loop is not going to come to rest."""


class Attempt:
    """A connection that `create_connection` is making, until the far side decides."""

    def __init__(self, loop: HandLoop, address: tuple[str, int], protocol: Connection) -> None:
        self.address = address
        self.protocol = protocol
        self.transport: Any = None
        self.close: Callable[[], None] = lambda: None
        self.waiter: asyncio.Future[None] = asyncio.Future(loop=loop.asyncio)

    def accepted(self, transport: Any, close: Callable[[], None]) -> None:
        """The peer accepts: the protocol learns of it now, the caller of `create_connection` later."""
        self.transport, self.close = transport, close
        self.protocol.connection_made(transport)
        if not self.waiter.done():
            self.waiter.set_result(None)

    @property
    def pending(self) -> bool:
        """Whether the far side has not decided."""
        return not self.waiter.done()

    def refused(self, error: OSError) -> None:
        """The far side refuses."""
        if not self.waiter.done():
            self.waiter.set_exception(error)


class HandLoop:
    """What the data plane uses of a loop; `asyncio` is it by its type."""

    def __init__(self) -> None:
        self.asyncio = cast("asyncio.AbstractEventLoop", self)
        self.now = 1000.0
        self.attempts: list[Attempt] = []
        self.dialled: Callable[[Attempt], None] = lambda _: None
        self.given_up: Callable[[Attempt], None] = lambda _: None
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._number = 0
        self._errors: list[Any] = []

    # What the data plane and asyncio call

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self.asyncio, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self.asyncio, context)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asyncio's `TimerHandle` calls this."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self.asyncio)

    def create_task(self, coro: Any, **_: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self.asyncio)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._errors.append(context)

    async def create_connection(self, protocol_factory: Any, *address: Any) -> Any:
        """Connect, as uvloop's does, also in that a connection which it gives up is closed without a word."""
        attempt = Attempt(self, cast("tuple[str, int]", address), protocol_factory())
        self.attempts.append(attempt)
        self.dialled(attempt)
        try:
            await attempt.waiter
        except BaseException as error:
            attempt.close()
            if attempt.transport is None and not isinstance(error, OSError):
                self.given_up(attempt)
            raise
        finally:
            self.attempts.remove(attempt)
        return attempt.transport, attempt.protocol

    # What tests call

    @property
    def busy(self) -> bool:
        """Whether something is to be done in the next turn."""
        return bool(self._ready)

    @property
    def timers(self) -> list[asyncio.TimerHandle]:
        """Those that have not been cancelled."""
        return [handle for _, _, handle in self._timers if not handle.cancelled()]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Be the running loop, and raise what callbacks have raised."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self.asyncio)
        try:
            yield
        finally:
            asyncio._set_running_loop(before)
        self.check()

    def check(self) -> None:
        """Raise what callbacks have raised."""
        if self._errors:
            context = self._errors.pop(0)
            raise context.get("exception") or AssertionError(context)

    def turn(self) -> None:
        """Do what is to be done now; what comes of it is for the next turn."""
        with self.running():
            for _ in range(len(self._ready)):
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
                    self.check()

    def settle(self) -> None:
        """Turn until nothing is left to do without time passing."""
        for _ in range(MOST_TURNS):
            if not self._ready:
                return
            self.turn()
        raise AssertionError("the loop does not come to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass, each timer at its time."""
        end = self.now + seconds
        self.settle()
        while self._timers and self._timers[0][0] <= end:
            when, _, handle = heapq.heappop(self._timers)
            if handle.cancelled():
                continue
            self.now = max(self.now, when)
            self._ready.append(handle)
            self.settle()
        self.now = end
