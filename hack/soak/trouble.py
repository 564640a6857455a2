"""What happens to the mesh meanwhile: endpoints come and go, files change, workers are killed and stopped."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from hack.kit.proc import lives
from hack.kit.waiting import until_async
from hack.soak.agentlog import AgentLog
from hack.soak.chance import begin, chance
from hack.soak.ledger import Ledger
from hack.soak.services import SERVICES
from hack.soak.stage import WORKERS, Stage

PATIENCE = 60.0
"""Seconds in which a change must have reached every worker."""
HUNG_TIME = 30.0
"""Seconds in which a worker that hangs must have been replaced."""
_VERSION = re.compile(r'^svcmesh_worker_plan_version\{worker="\d+"\} (\S+)$', re.MULTILINE)


class Pace(msgspec.Struct, frozen=True):
    """Mean seconds between two events of a kind."""

    roll: float = 12.0
    spoil: float = 6.0
    annotate: float = 2.0
    cut: float = 5.0
    kill: float = 150.0
    stop: float = 210.0
    """0: never."""


class TroubleFailed(Exception):
    """The mesh did not do in time what it must; the message says what."""


class Trouble:
    """Does it all, from `start` to `stop`. `late` tells whether the second half of the run has begun."""

    def __init__(
        self,
        stage: Stage,
        ledger: Ledger,
        log: AgentLog,
        seed: str,
        pace: Pace,
        complain: Callable[[str], None],
        late: Callable[[], bool],
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Events by kind."""
        self._stage = stage
        self._ledger = ledger
        self._log = log
        self._seed = seed
        self._pace = pace
        self._complain = complain
        self._late = late
        self._one_worker = asyncio.Lock()
        self._files = asyncio.Lock()
        """Held by who writes files: what one is in the middle of must not be undone by another."""
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._stopped_pid = 0
        self._leaving: list[asyncio.Task[None]] = []
        """Pods that were told to leave and finish what they have."""

    def start(self) -> None:
        """Let it begin."""
        pace = self._pace
        kinds: tuple[tuple[str, float, Callable[[], Awaitable[None]]], ...] = (
            ("rolled", pace.roll, self._roll),
            ("spoiled", pace.spoil, self._spoil),
            ("annotated", pace.annotate, self._annotate),
            ("cut", pace.cut, self._cut),
            ("killed", pace.kill, self._kill),
            ("hung", pace.stop, self._stop),
        )
        for kind, mean, once in kinds:
            if mean:
                self._tasks.append(asyncio.create_task(self._again(kind, mean, once)))

    async def stop(self) -> None:
        """End it, with every Service as it was at the beginning and only good endpoints."""
        self._stopping.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PATIENCE)
        await self.cancel()
        for one in SERVICES:
            self._stage.files.annotations[one.name] = one.annotations
            self._stage.files.bad.pop(one.name, None)
            self._stage.write(one.name)
        await self._settled("the plan of the beginning")

    async def cancel(self) -> None:
        """End it at once; a worker that is stopped is continued, so that it can be ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._stopped_pid and lives(self._stopped_pid):
            os.kill(self._stopped_pid, signal.SIGCONT)

    def broken(self) -> BaseException | None:
        """Return the bug that ended one of its tasks, if there is one."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                return error
        return None

    async def _again(self, kind: str, mean: float, once: Callable[[], Awaitable[None]]) -> None:
        begin(f"{self._seed}/{kind}")
        while not await self._rest(chance().uniform(0.5, 1.5) * mean):
            try:
                await once()
            except TroubleFailed as error:
                self._complain(str(error))
            self.counts[kind] += 1

    async def _rest(self, seconds: float) -> bool:
        """Let time pass; return whether it is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    # Endpoints

    async def _roll(self) -> None:
        """A pod comes, and the oldest one leaves as Kubernetes has it leave."""
        stage = self._stage
        new = await stage.start_pod()
        pods = stage.files.pods
        pods.append(new)
        await self._write()
        await self._settled(f"new endpoint {new.address}", lambda plan: f"{new.address}:" in plan)
        old = pods[0]
        old.leaving = True
        await self._write()
        await self._settled(f"that {old.address} leaves", lambda plan: f"{old.address}:" not in plan)
        pods.remove(old)
        await self._write()
        self._leaving = [task for task in self._leaving if not task.done()]
        self._leaving.append(asyncio.create_task(stage.dismiss(old)))

    async def _spoil(self) -> None:
        """Bad endpoints join a Service's good ones for a while."""
        one = chance().choice([one for one in SERVICES if one.bad])
        kinds = chance().sample(one.bad, chance().randint(1, min(2, len(one.bad))))
        self._stage.files.bad[one.name] = tuple(kinds)
        await self._write(one.name)
        await self._rest(chance().uniform(1, 5))
        self._stage.files.bad.pop(one.name)
        await self._write(one.name)

    # Files

    async def _annotate(self) -> None:
        """A Service's annotations change, to good ones or bad ones."""
        one = chance().choice([one for one in SERVICES if one.variants])
        self._stage.files.annotations[one.name] = chance().choice(one.variants)
        await self._write(one.name)

    async def _cut(self) -> None:
        """A file is cut off where no YAML ends: in the middle of a write, or as if its writer had died."""
        name = chance().choice(SERVICES).name
        async with self._files:
            text, path = self._stage.manifest(name), self._stage.path(name)
            within = chance().choice([place.end() for place in re.finditer(r"[\[{]", text)])
            half = chance().uniform(0.01, 1.0)
            with path.open("w") as file:
                file.write(text[:within])
                file.flush()
                if chance().random() < 0.5:
                    await self._rest(half)
                    file.write(text[within:])
                    return
            await self._rest(half)
            self._stage.write(name)

    # Workers

    async def _kill(self) -> None:
        """A worker is killed; the next one serves before anything else is done to one."""
        async with self._one_worker:
            place, pid, starts = self._choose()
            window = self._ledger.open("in flight on a worker that was killed", time.monotonic())
            self._log.expect_death(place)
            os.kill(pid, signal.SIGKILL)
            await until_async(lambda: not lives(pid))
            window.until = time.monotonic()
            await self._replaced(starts, PATIENCE)

    async def _stop(self) -> None:
        """A worker hangs; the agent must replace it."""
        async with self._one_worker:
            place, pid, starts = self._choose()
            reason = "under way while a worker hung"
            window = self._ledger.open(reason, time.monotonic(), any_break=True)
            self._log.expect_death(place)
            self._stopped_pid = pid
            os.kill(pid, signal.SIGSTOP)
            try:
                await until_async(lambda: not lives(pid), HUNG_TIME, 0.05)
            except TimeoutError:
                self._log.expect_no_death(place)
                os.kill(pid, signal.SIGCONT)
                raise TroubleFailed(
                    f"worker {place} (process {pid}) hung for {HUNG_TIME:g} s and was not replaced"
                ) from None
            finally:
                window.until = time.monotonic()
            await self._replaced(starts, PATIENCE)

    def _choose(self) -> tuple[int, int, int]:
        """Return a worker's place and process, and how many were started up to now.

        In the second half the first worker is left alone, so that one of them gets old.
        """
        place = chance().randrange(1 if self._late() else 0, WORKERS)
        return place, self._log.workers[place], self._log.starts

    async def _replaced(self, starts: int, seconds: float) -> None:
        try:
            await until_async(lambda: self._log.starts > starts, seconds, 0.05)
        except TimeoutError:
            raise TroubleFailed(f"no worker was started within {seconds:g} s for one that died") from None
        await self._settled("the plan, after a worker was replaced,")

    # What has taken effect

    async def _write(self, *names: str) -> None:
        async with self._files:
            for name in names or [one.name for one in SERVICES]:
                self._stage.write(name)

    async def _settled(self, what: str, condition: Callable[[str], bool] | None = None) -> None:
        """Wait until the agent's plan is as it should be, and every worker serves it.

        The agent shows a plan once its workers have it, except those that do not answer. Workers are only
        told what concerns them, so they are compared with each other and not with the agent.
        """

        async def settled() -> bool:
            if condition is not None and not condition(await self._stage.read_admin("/plan")):
                return False
            versions = set(map(float, _VERSION.findall(await self._stage.read_admin("/metrics"))))
            return len(versions) == 1 and 0 not in versions

        try:
            await until_async(settled, PATIENCE, 0.1)
        except TimeoutError:
            raise TroubleFailed(f"{what} has not reached every worker within {PATIENCE:g} s") from None
