"""Looks at the agent and its workers every few seconds: log, gauges, memory, descriptors, threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hack.soak.agentlog import AgentLog, Tail
from hack.soak.series import Samples
from hack.soak.stage import Stage

LONGEST_PAUSE = 75.0
"""Seconds that nothing may be read from a connection: `Limits.stall_time`, and some until it is seen."""
LEFT = (
    "client_connections",
    "exchanges",
    "upstream_connections_active",
    "requests_waiting",
    "connections_paused",
)
"""Gauges of a worker (`svcmesh_worker_*`) that are zero when there are no requests."""
_GAUGE = re.compile(r'^svcmesh_worker_(\w+)\{worker="(\d+)"\} (\S+)$', re.MULTILINE)
_AGENT_TASKS = re.compile(r"^svcmesh_agent_tasks (\S+)$", re.MULTILINE)
_ACTIVE = re.compile(r'^svcmesh_connections_active\{service="([\w-]+)".*\} (\S+)$', re.MULTILINE)
_ANONYMOUS = re.compile(r"^Anonymous:\s+(\d+) kB$", re.MULTILINE)
"""Not PSS: it grows when another process ends that shared pages of libraries."""
_TICKS = os.sysconf("SC_CLK_TCK")
_THREADS = re.compile(r"^Threads:\s+(\d+)$", re.MULTILINE)


class Gauges:
    """The gauges of one scrape."""

    def __init__(self, page: str) -> None:
        self.workers: dict[int, dict[str, float]] = {}
        """By worker and name, without `svcmesh_worker_`."""
        for name, worker, value in _GAUGE.findall(page):
            self.workers.setdefault(int(worker), {})[name] = float(value)
        tasks = _AGENT_TASKS.search(page)
        self.agent_tasks = float(tasks[1]) if tasks is not None else 0.0
        self.services = {name: float(value) for name, value in _ACTIVE.findall(page)}
        """Connections of clients by Service."""

    def left(self) -> list[str]:
        """Return in words what is open or under way."""
        found = [
            f"worker {worker}: {name} {numbers[name]:g}"
            for worker, numbers in sorted(self.workers.items())
            for name in LEFT
            if numbers.get(name)
        ]
        return found + [
            f"{name}: {value:g} active connections" for name, value in self.services.items() if value
        ]


class Watch:
    """Samples from `start` to `stop`; complains of what is wrong at once."""

    def __init__(self, stage: Stage, log: AgentLog, every: float, complain: Callable[[str], None]) -> None:
        self.samples = Samples()
        self.gauges = Gauges("")
        self._stage = stage
        self._log = log
        self._tail = Tail(stage.agent_log)
        self._every = every
        self._complain = complain
        self._tasks: list[asyncio.Task[None]] = []
        self._stuck: set[int] = set()
        """Workers for which a connection that is paused for too long was already reported."""
        self._cpu: dict[tuple[str, int], float] = {}

    def start(self) -> None:
        """Begin to sample."""
        self._tasks = [
            asyncio.create_task(self._repeat(0.05, self._read_log)),
            asyncio.create_task(self._repeat(self._every, self._sample)),
        ]

    async def cancel(self) -> None:
        """Break it off."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Sample no more; read the rest of the log."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        await self._read_log()

    def broken(self) -> BaseException | None:
        """Return what ended it, if it has ended."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                return error
        return None

    async def look(self) -> Gauges:
        """Return the gauges now."""
        self.gauges = Gauges(await self._stage.read_admin("/metrics"))
        return self.gauges

    def descriptors(self) -> Mapping[str, int]:
        """Return how many descriptors each process has open, by its role."""
        return {role: len(os.listdir(f"/proc/{pid}/fd")) for role, pid in self._processes().items()}

    def processes(self) -> Mapping[str, int]:
        """Return the processes by their role."""
        return self._processes()

    def cpu_seconds(self) -> Mapping[str, float]:
        """Return how long all processes have computed up to their last sample, by what they are for."""
        sums: dict[str, float] = {}
        for (what, _), value in self._cpu.items():
            sums[what] = sums.get(what, 0.0) + value
        return sums

    async def _repeat(self, pause: float, once: Callable[[], object]) -> None:
        while True:
            result = once()
            if asyncio.iscoroutine(result):
                await result
            await asyncio.sleep(pause)

    async def _read_log(self) -> None:
        for line in self._tail.lines():
            self._log.read(line)

    def _processes(self) -> dict[str, int]:
        agent = self._stage.agent
        found = {f"worker {place}": pid for place, pid in sorted(self._log.workers.items())}
        return {"agent": agent.pid, **found} if agent is not None else found

    async def _sample(self) -> None:
        gauges = await self.look()
        for role, pid in self._processes().items():
            try:
                memory, descriptors, threads = _figures(pid)
            except OSError:  # it is being replaced
                continue
            now = time.monotonic()
            self._cpu["agent" if role == "agent" else "workers", pid] = _cpu_seconds(pid)
            process = f"{role} ({pid})"
            self.samples.add(process, "memory", now, memory)
            self.samples.add(process, "descriptors", now, descriptors)
            self.samples.add(process, "threads", now, threads)
            if role == "agent":
                self.samples.add(process, "tasks", now, gauges.agent_tasks)
        for pid in [process.pid for pod in self._stage.files.pods for process in pod.processes]:
            with contextlib.suppress(OSError):
                self._cpu["endpoints", pid] = _cpu_seconds(pid)
        for place, numbers in gauges.workers.items():
            self.samples.add(
                f"worker {place} ({self._log.workers.get(place, 0)})",
                "tasks",
                time.monotonic(),
                numbers.get("tasks", 0),
            )
            pause = numbers.get("longest_pause_seconds", 0)
            if pause <= LONGEST_PAUSE:
                self._stuck.discard(place)
            elif place not in self._stuck:
                self._stuck.add(place)
                self._complain(f"worker {place}: nothing is read from a connection for {pause:.0f} s")


def _figures(pid: int) -> tuple[float, int, int]:
    """Return memory (bytes that are its own), open descriptors and threads of a process."""
    process = Path(f"/proc/{pid}")
    memory = _ANONYMOUS.search((process / "smaps_rollup").read_text())
    threads = _THREADS.search((process / "status").read_text())
    if memory is None or threads is None:
        raise ProcessLookupError(pid)
    return int(memory[1]) * 1024, len(os.listdir(process / "fd")), int(threads[1])


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
