"""Runs a chain of layers as one coroutine without a Task: started eagerly, resumed directly by its exchange.

A Task would cost two turns of the loop for every request, which a busy worker hides and a quiet connection
feels (`docs/performance.md`). The chain either waits for
its exchange (`Outcome`) or for an asyncio future, such as the one of `asyncio.sleep`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Protocol

from middleware.contract import ExchangeError
from nodeagent.proxy.resume import resume


class ChainOwner(Protocol):
    """Runs a chain, and is told how it ends."""

    def chain_returned(self, response: Any) -> None:
        """Take the response that the layers have decided on."""
        ...

    def chain_raised(self, error: ExchangeError) -> None:
        """Learn that there is no response, and why."""
        ...

    def chain_broke(self, error: Exception) -> None:
        """Learn of a bug in a layer."""
        ...


class Outcome:
    """What the innermost handler awaits: the exchange resumes the chain with the response, or an error."""

    __slots__ = ()

    def __await__(self) -> Generator[Outcome, Any, Any]:
        """Wait until the exchange knows."""
        response = yield self
        return response


class Chain:
    """One run of a rule's layers over one request."""

    __slots__ = ("_coroutine", "_loop", "_owner", "_waits")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], owner: ChainOwner, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._coroutine: Coroutine[Any, Any, Any] | None = coroutine
        self._owner = owner
        self._loop = loop
        self._waits: object = None
        """The future, or the turn of the loop, that is awaited. One that completes after an error has ended
        the wait must not be taken for the one that is awaited then."""

    def step(self, outcome: Any) -> None:
        """Run until the chain waits again, returns or raises; `outcome` is what it has waited for.

        An exception as outcome is raised where it waits, whatever it waits for.
        """
        coroutine = self._coroutine
        assert coroutine is not None
        self._waits = None
        try:
            returned, value = resume(coroutine, outcome)
        except ExchangeError as error:
            self._coroutine = None
            self._owner.chain_raised(error)
        except Exception as error:
            self._coroutine = None
            self._owner.chain_broke(error)
        else:
            if returned:
                self._coroutine = None
                self._owner.chain_returned(value)
            elif not isinstance(value, Outcome):
                self._await(value)

    def close(self) -> None:
        """End the chain where it waits; its `finally` blocks run."""
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None:
            coroutine.close()

    def _await(self, future: Any) -> None:
        """Resume when an asyncio future is done, as a Task would; the future's result is read by its own
        `__await__`.
        """
        if future is None:  # `asyncio.sleep(0)`: a bare yield
            self._waits = turn = object()
            self._loop.call_soon(self._wake, turn)
        elif getattr(future, "_asyncio_future_blocking", None):
            future._asyncio_future_blocking = False
            self._waits = future
            future.add_done_callback(self._wake)
        else:
            self.step(RuntimeError(f"a middleware awaits {future!r}, which is not an asyncio future"))

    def _wake(self, awaited: object) -> None:
        if self._coroutine is not None and awaited is self._waits:
            self.step(None)
