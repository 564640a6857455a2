"""What all clients of a soak share: they repeat their requests until they are told to stop, and each one is
measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from hack.soak.chance import begin, chance
from hack.soak.ledger import Break, Ledger, Outcome, Result
from hack.soak.services import BY_NAME, PORT
from hack.soak.stage import Stage
from hack.soak.wire import Answer, Broken, Wire

PATIENCE = 30.0
"""Seconds after which what was asked is taken for lost."""
LAST_ROUND = 20.0
"""Seconds that requests in flight may still take when the clients are told to stop."""

MEANT: Mapping[str, frozenset[tuple[int, str]]] = {
    "breaker": frozenset({(503, "circuit_open"), (429, "circuit_open"), (502, "upstream_reset")}),
    "limited": frozenset({(429, "rate_limited")}),
    "fault": frozenset({(503, "fault_injected")}),
    "crowded": frozenset({(503, "concurrency_limited"), (503, "queue_timeout")}),
}
"""Answers of the mesh (status and reason) that a Service's annotations cause, or a reset by an endpoint
without retries."""

Judged = tuple[Result, str]
OK: Judged = (Result.OK, "")


def judge(service: str, answer: Answer, wanted: int = 200) -> Judged:
    """Return what an answer is worth.

    Raises:
        Broken: it is not the right one.
    """
    if answer.status == wanted and not answer.reason:
        return OK
    if (answer.status, answer.reason) in MEANT.get(service, ()):
        return Result.MEANT, answer.reason
    by = f" {answer.reason} by the mesh: {answer.body[:200]!r}" if answer.reason else ""
    raise Broken(Break.ANSWER, f"{answer.status}{by} instead of {wanted}")


class Clients:
    """The tasks of all clients of one sort."""

    def __init__(self, stage: Stage, ledger: Ledger, seed: str) -> None:
        self.stage = stage
        self.ledger = ledger
        self._seed = seed
        self._stopped = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def stopped(self) -> bool:
        """Whether they were told to stop."""
        return self._stopped.is_set()

    def go_round(self, count: int, pause: float, once: Callable[[], Awaitable[None]]) -> None:
        """Have `count` clients do something again and again, `pause` seconds apart on average."""

        async def run(number: int) -> None:
            begin(f"{self._seed}/{number}")
            while not self.stopped:
                await self.rest(pause)
                if not self.stopped:
                    await once()

        first = len(self._tasks)
        self._tasks += [asyncio.create_task(run(first + n)) for n in range(count)]

    async def rest(self, mean: float) -> None:
        """Let a random time pass, at most three times the mean, less if they are told to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(3 * mean, chance().expovariate(1 / mean))):
                await self._stopped.wait()

    async def stop(self) -> None:
        """Let everybody finish what is under way.

        Raises:
            Exception: one of them has a bug.
        """
        self._stopped.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_ROUND)
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def cancel(self) -> None:
        """Break everything off."""
        self._stopped.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def broken(self) -> BaseException | None:
        """Return the bug that ended one of them, if there is one."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                return error
        return None

    def connect(self, service: str) -> AbstractAsyncContextManager[Wire]:
        """Connect to a Service."""
        return Wire.open(self.stage.mesh_address(service), PORT, BY_NAME[service].mesh_name)

    async def measured(
        self,
        kind: str,
        service: str,
        work: Awaitable[Judged],
        *,
        unsafe: bool = False,
        note: Callable[[], str] = str,
    ) -> bool:
        """Do something, and record the outcome; return whether it ended as it should.

        If it does not, `note` says how far it had come.
        """
        started = time.monotonic()
        how: Break | None = None
        try:
            async with asyncio.timeout(PATIENCE):
                result, why = await work
        except Broken as error:
            result, why, how = Result.FAILED, str(error), error.how
        except TimeoutError:
            result, why, how = Result.FAILED, f"nothing within {PATIENCE:g} s", Break.TIMEOUT
        except asyncio.IncompleteReadError as error:
            what = f"the connection ended, {len(error.partial)} bytes had come"
            result, why, how = Result.FAILED, what, Break.CONNECTION
        except OSError as error:
            result, why, how = Result.FAILED, error.strerror or str(error), Break.CONNECTION
        ended = time.monotonic()
        if how is not None and (far := note()):
            why = f"{why} ({far})"
        self.ledger.record(Outcome(kind, service, started, ended, result, why, how, unsafe))
        return how is None
