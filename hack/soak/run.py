"""One soak from its beginning to its end: start everything, let it run, drain, judge, end everything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from hack.kit.waiting import until_async
from hack.soak.agentlog import AgentLog
from hack.soak.ledger import Ledger
from hack.soak.report import (
    Report,
    Violation,
    excused,
    growing,
    progress,
    render,
    requests_by_kind,
    unexcused,
)
from hack.soak.rude import Rude
from hack.soak.served import complaints, read
from hack.soak.services import SERVICES
from hack.soak.stage import Stage
from hack.soak.traffic import Traffic
from hack.soak.traffic2 import Traffic2
from hack.soak.trouble import Pace, Trouble, TroubleFailed
from hack.soak.watch import Watch

PODS = 2
PROGRESS = 30.0
DRAIN = 90.0
"""Seconds after the last request in which everything must be closed: the longest limit is a minute."""
PODS_GONE = 30.0
"""Seconds in which what waited in the pools must be closed when the pods are gone."""
SPARE_DESCRIPTORS = 2
"""How many more than before a process may have: a connection to the admin server may just be closing."""
MOST_COMPLAINTS = 1000


class Plan(msgspec.Struct, frozen=True):
    """What the run has to do."""

    seconds: float
    seed: int
    pace: Pace
    every: float
    """Seconds between two samples."""
    warm_up: float
    """Seconds of each process that are not judged: pools and caches fill, code is compiled."""


class Soak:
    """A run. `directory` takes its files."""

    def __init__(self, plan: Plan, directory: Path, say: Callable[[str], None]) -> None:
        self.stage = Stage(directory)
        self._plan = plan
        self._say = say
        self._log = AgentLog()
        self._ledger = Ledger(one.name for one in SERVICES if {"reset", "stall"} & set(one.bad))
        self._violations: list[Violation] = []
        self._began = time.monotonic()
        self._trouble = Trouble(
            self.stage, self._ledger, self._log, str(plan.seed), plan.pace, self._complain, self._is_late
        )
        self._traffic = Traffic(self.stage, self._ledger, f"{plan.seed}/traffic")
        self._traffic2 = Traffic2(self.stage, self._ledger, f"{plan.seed}/traffic2")
        self._rude = Rude(self.stage, self._ledger, f"{plan.seed}/rude")
        self._watch = Watch(self.stage, self._log, plan.every, self._complain)

    async def run(self, stopped: asyncio.Event) -> Report | None:
        """Run until the time is up; None if it was stopped before. Nothing that was started is left.

        Raises:
            ProcessFailed: the agent or a pod could not be started.
        """
        try:
            await self.stage.open(PODS)
            self._watch.start()
            report = await self._run(stopped)
        except BaseException:
            await self._break_off()
            self.stage.kill()
            raise
        for what in await self.stage.close():
            self._say(f"soak: {what}")
        return report

    async def _break_off(self) -> None:
        await self._trouble.cancel()
        for part in (self._traffic, self._traffic2, self._rude, self._watch):
            await part.cancel()

    async def _run(self, stopped: asyncio.Event) -> Report | None:
        await until_async(lambda: len(self._watch.processes()) == 3)
        await self._watch.look()
        before = self._watch.descriptors()
        own = time.process_time()
        self._began = time.monotonic()
        for clients in (self._traffic, self._traffic2, self._rude):
            clients.start()
        self._trouble.start()
        await self._go_on(stopped)
        if stopped.is_set():
            await self._break_off()
            return None
        seconds = time.monotonic() - self._began
        used = {"load": time.process_time() - own, **self._watch.cpu_seconds()}
        trends = self._watch.samples.trends(self._plan.warm_up)
        self._say("The time is up; waiting until everything is closed ...")
        drained_in, after = await self._drain(before)
        await self._watch.stop()
        for what in complaints(read(self.stage.served), self._traffic2.answered):
            self._complain(what)
        for what in self._log.complaints:
            self._complain(f"the agent's log: {what}")
        verdicts = self._ledger.judge()
        violations = [
            *self._violations,
            *unexcused(verdicts, self._began),
            *growing(trends, seconds),
        ]
        return Report(
            seed=self._plan.seed,
            seconds=seconds,
            requests=requests_by_kind(self._ledger),
            meant={f"{name}: {why}": count for (name, why), count in sorted(self._ledger.meant.items())},
            excused=excused(verdicts),
            events=self._trouble.counts,
            trends=trends,
            descriptors={role: (before.get(role, 0), count) for role, count in after.items()},
            drained_in=drained_in,
            cpu={who: value / seconds for who, value in used.items()},
            violations=violations,
        )

    async def _go_on(self, stopped: asyncio.Event) -> None:
        """Let it run, and report, until the time is over or something is broken for good.

        Raises:
            ProcessFailed: the agent has ended.
            Exception: the soak itself has a bug.
        """
        agent = self.stage.agent
        assert agent is not None
        next_line = PROGRESS
        while not stopped.is_set() and self._elapsed < self._plan.seconds:
            for part in (self._traffic, self._traffic2, self._rude, self._trouble, self._watch):
                if (error := part.broken()) is not None:
                    raise error
            agent.check()
            if self._elapsed >= next_line:
                next_line += PROGRESS
                self._tell()
            await _wait(stopped, min(1.0, self._plan.seconds - self._elapsed))

    def _tell(self) -> None:
        living = {f"{role} ({pid})" for role, pid in self._watch.processes().items()}
        memory = {
            process: value
            for process, value in self._watch.samples.latest("memory").items()
            if process in living
        }
        line = progress(
            self._elapsed,
            self._ledger,
            self._ledger.judge(),
            memory,
            self._trouble.counts,
            len(self._violations) + len(self._log.complaints),
        )
        self._say(line)

    async def _drain(self, before: Mapping[str, int]) -> tuple[float | None, Mapping[str, int]]:
        """End trouble and traffic, and wait until nothing is open any more; return how long that took.

        Returns the descriptors of each process then, too.
        """
        try:
            await self._trouble.stop()
        except TroubleFailed as error:
            self._complain(str(error))
        await asyncio.gather(self._traffic.stop(), self._traffic2.stop(), self._rude.stop())
        self.stage.close_bad()
        began = time.monotonic()
        took: float | None = None

        async def nothing_left() -> bool:
            return not (await self._watch.look()).left()

        try:
            await until_async(nothing_left, DRAIN, 0.2)
            took = time.monotonic() - began
        except TimeoutError:
            for what in self._watch.gauges.left():
                self._complain(f"{DRAIN:g} s after the traffic has ended there is left: {what}")
        await self.stage.stop_pods()  # they close what waits in the pools

        def surplus() -> Mapping[str, int]:
            now = self._watch.descriptors()
            return {role: n for role, n in now.items() if n > before[role] + SPARE_DESCRIPTORS}

        try:
            await until_async(lambda: not surplus(), PODS_GONE, 0.2)
        except TimeoutError:
            for role, count in surplus().items():
                self._complain(f"{role} has {count} descriptors after the traffic, {before[role]} before")
        return took, self._watch.descriptors()

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _is_late(self) -> bool:
        return self._elapsed > self._plan.seconds / 2

    def _complain(self, what: str) -> None:
        if len(self._violations) < MOST_COMPLAINTS:
            self._violations.append(Violation(what, self._elapsed))
            self._say(f"{self._elapsed:.1f} s: VIOLATION: {what}")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def soak(
    plan: Plan, directory: Path, stopped: asyncio.Event, say: Callable[[str], None] = print
) -> Report | None:
    """Run one soak; None if it was stopped before its time."""
    report = await Soak(plan, directory, say).run(stopped)
    if report is not None:
        say(render(report))
    return report
