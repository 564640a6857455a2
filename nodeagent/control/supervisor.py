"""Keeps the workers alive and equal to the plan.

Each worker has a place: a number, its counters, and in nftables capture a listening socket that the agent
made and keeps. When a worker dies the next one takes its place, counters and socket: connections that arrive
in between wait in the socket's queue and are not refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from discovery.model import PodObject
from middleware.registry import installed
from nodeagent.control import ejections
from nodeagent.control.listener import open_listener
from nodeagent.control.messages import (
    Applied,
    Apply,
    BackendCondition,
    Channel,
    Conditions,
    Configure,
    Drain,
    Ejections,
    Failed,
    Message,
    PortFailure,
    SlottedBackend,
    SlottedListener,
    SourcePod,
    Tap,
    Tapped,
    Traces,
)
from nodeagent.control.pulse import Pulse
from nodeagent.control.sources import SourceTable
from nodeagent.control.successor import successor_address
from nodeagent.control.tap import Watch, Watchers
from nodeagent.plan.diff import PlanDelta
from nodeagent.plan.model import BackendKey, Listener, ListenerKey
from nodeagent.settings import Settings
from nodeagent.stats.cells import SharedCells
from nodeagent.stats.columns import REFUSALS, Layout
from nodeagent.stats.failures import FailureMemory
from nodeagent.stats.region import SlotAllocator, SlotKey, StatsRegion
from nodeagent.stats.windows import SharedWindows

log = structlog.get_logger()

ROOT: Final = Path(__file__).parents[2]
"""The folder with our packages."""
APPLY_TIME: Final = 5.0
"""Seconds after which a change no longer waits for a worker that has not confirmed it."""
CRASHES: Final = 3
"""Deaths within `CRASH_WINDOW` seconds after which a worker's next start waits `CRASH_PAUSE` seconds."""
CRASH_WINDOW: Final = 5.0
CRASH_PAUSE: Final = 1.0
LOOK: Final = 1.0
"""Seconds between two looks at the workers' heartbeats."""
HUNG: Final = 5
"""Looks without a heartbeat after which a worker counts as hung, and is killed."""
SLOW_START: Final = 60
"""The same for a worker that has not served yet: a machine that boots is slow."""
EXIT_TIME: Final = 2.0
"""Seconds beyond the drain time after which a worker is killed."""


class _Place:
    """What stays when a worker dies, and the worker that uses it now."""

    def __init__(self, index: int, region: StatsRegion, listener: socket.socket | None) -> None:
        self.index = index
        self.region = region
        self.listener = listener
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel | None = None
        self.applied = 0
        self.sent = 0
        """The version of the last change that it was told."""
        self.changed = asyncio.Event()
        self.deaths: list[float] = []
        self.pulse = Pulse()
        self.missed = 0
        """Looks without a heartbeat, in a row."""
        self.failures: Mapping[ListenerKey, PortFailure] = {}
        """The ports that the worker does not serve as the plan says; of a new worker, until it reports, those
        of the last one."""
        self.ejected: ejections.OfWorker = {}
        """The endpoints that the worker has ejected."""

    @property
    def serves(self) -> bool:
        """Whether a worker in this place carries traffic."""
        return self.channel is not None and self.applied > 0 and self.missed < HUNG

    def tell(self, change: Apply) -> None:
        """Send a change to the worker, if there is one."""
        if self.channel is not None:
            self.channel.send(change)
            self.sent = change.version


class Supervisor:
    """The workers of this agent.

    `failed` is told which ports are not served as the plan says, `serving` how many workers serve, `ejected`
    which endpoints workers have ejected, whenever that may have changed. `traced` takes what workers have
    recorded of requests.
    """

    def __init__(
        self,
        settings: Settings,
        failed: Callable[[Mapping[ListenerKey, PortFailure]], None],
        serving: Callable[[int], None] = lambda _: None,
        ejected: Callable[[Mapping[BackendKey, Mapping[tuple[str, int], str]]], None] = lambda _: None,
        traced: Callable[[Traces], None] = lambda _: None,
    ) -> None:
        self.layout = Layout(installed().middlewares, REFUSALS)
        self.allocator = SlotAllocator()
        self.restarts = 0
        self._settings = settings
        self._failed = failed
        self._serving = serving
        self._ejected = ejected
        self._traced = traced
        self._shared = SharedCells.create(exclusive=settings.workers == 1)
        self._windows = SharedWindows.create(settings.workers)
        self._places: list[_Place] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._watcher: asyncio.Task[None] | None = None
        self._listeners: dict[ListenerKey, SlottedListener] = {}
        self._backends: dict[BackendKey, SlottedBackend] = {}
        self._sources = SourceTable()
        self._conditions: dict[BackendKey, BackendCondition] = {}
        """Of backends with unhealthy endpoints."""
        self._version = 0
        self._stopping = False
        self.watchers = Watchers(self._tell_watches)
        """Those who watch live requests."""
        self.failures = FailureMemory(settings.node_name, time.time())

    @property
    def regions(self) -> list[StatsRegion]:
        """The counters of every place."""
        return [place.region for place in self._places]

    @property
    def alive(self) -> int:
        """How many workers live now."""
        return sum(place.channel is not None for place in self._places)

    async def start(self) -> None:
        """Start the workers; they serve from the first `apply` on."""
        for index in range(self._settings.workers):
            listener = open_listener(self._settings) if self._settings.capture == "nftables" else None
            self._places.append(_Place(index, StatsRegion.create(self.layout), listener))
        for place in self._places:
            await self._spawn(place)
            self._keepers.append(asyncio.create_task(self._keep(place)))
        self._watcher = asyncio.create_task(self._watch())

    async def _spawn(self, place: _Place) -> None:
        ours, theirs = socket.socketpair()
        files = [theirs.fileno(), place.region.fd, self._shared.fd, self._windows.fd]
        if place.listener is not None:
            files.append(place.listener.fileno())
        numbers = [*files, *([] if place.listener else [-1]), self._settings.workers]
        with theirs:
            place.process = await asyncio.create_subprocess_exec(
                *worker_command(_current_folder()), *map(str, numbers), pass_fds=files
            )
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(
            lambda: Channel(lambda message: self._heard(place, message), lambda: self._lost(place)), sock=ours
        )
        place.channel = channel
        place.applied = place.sent = place.missed = 0
        place.pulse = Pulse()
        settings = self._settings
        channel.send(
            Configure(
                place.index,
                settings.capture,
                settings.limits,
                settings.access_log,
                settings.log_level,
                settings.log_format,
                successor_address(settings.mesh_range),
                settings.workers_outlive,
                settings.node_name,
                settings.node_zone,
                settings.token_store,
                settings.traces is not None,
                settings.access_log_format,
            )
        )
        channel.send(self._sources.everything())
        if self.watchers.watches:
            channel.send(Tap(self.watchers.watches))
        if self._version:
            place.tell(
                Apply(
                    self._version,
                    tuple(self._listeners.values()),
                    (),
                    tuple(self._backends.values()),
                    conditions=tuple(self._conditions.values()),
                )
            )
        log.info("worker_started", worker=place.index, pid=place.process.pid)

    def _heard(self, place: _Place, message: Message) -> None:
        if isinstance(message, Applied):
            place.applied = message.version
            place.changed.set()
            failures = {failure.key: failure for failure in message.failures}
            if failures != place.failures:
                place.failures = failures
                self._failed({key: one for each in self._places for key, one in each.failures.items()})
            self._tell_who_serves()
        elif isinstance(message, Ejections):
            place.ejected = ejections.follow(place.ejected, message)
            self._tell_ejected()
        elif isinstance(message, Tapped):
            self.watchers.heard(message.lines, message.dropped)
        elif isinstance(message, Failed):
            self.failures.heard(message.lines, message.left_out)
        elif isinstance(message, Traces):
            self._traced(message)

    def _tell_watches(self, watches: tuple[Watch, ...]) -> None:
        for place in self._places:
            if place.channel is not None:
                place.channel.send(Tap(watches))

    def _tell_ejected(self) -> None:
        self._ejected(ejections.merged(place.ejected for place in self._places))

    def _lost(self, place: _Place) -> None:
        place.channel = None
        place.changed.set()
        if place.ejected:
            place.ejected = {}
            self._tell_ejected()
        self._tell_who_serves()

    def _tell_who_serves(self) -> None:
        self._serving(sum(place.serves for place in self._places))

    async def _watch(self) -> None:
        """Kill a worker that gives no sign of life, so that the next one takes its place.

        It may be stopped, or wait for something that never happens. Connections that arrive meanwhile wait in
        its listening socket and are served by the next worker.
        """
        while True:
            await asyncio.sleep(LOOK)
            for place in self._places:
                if place.channel is None or place.process is None:
                    continue
                place.missed = place.pulse.look(place.region.heartbeat)
                patience = HUNG if place.applied else SLOW_START
                if place.missed == patience:
                    silent = round(patience * LOOK * 1000)
                    log.error("worker_hung", worker=place.index, pid=place.process.pid, silent_ms=silent)
                    self._tell_who_serves()
                    with contextlib.suppress(ProcessLookupError):
                        place.process.kill()

    async def _keep(self, place: _Place) -> None:
        """Replace the worker of this place whenever it dies."""
        while True:
            assert place.process is not None
            code = await place.process.wait()
            if self._stopping:
                return
            place.region.reset_gauges(self.allocator.used)
            now = time.monotonic()
            place.deaths = [death for death in place.deaths if now - death < CRASH_WINDOW] + [now]
            pause = CRASH_PAUSE if len(place.deaths) > CRASHES else 0.0
            reason = _describe(code)
            log.error("worker_died", worker=place.index, reason=reason, restart_in_ms=round(pause * 1000))
            self.restarts += 1
            await asyncio.sleep(pause)
            try:
                await self._spawn(place)
            except OSError as error:
                log.error("worker_start_failed", worker=place.index, reason=str(error))  # noqa: TRY400
                await asyncio.sleep(CRASH_PAUSE)

    async def apply(self, version: int, delta: PlanDelta) -> None:
        """Make every worker serve this change; returns when all that live do.

        If a worker does not answer within `APPLY_TIME`, that is logged and the change goes on. Later changes
        do not wait for it until it has caught up: it has the changes in its queue.
        """
        listeners = self._listeners
        changed = (*delta.removed, *(listener.key for listener in delta.upserted))
        before = [_slot_key(known.listener) for key in changed if (known := listeners.get(key)) is not None]
        for key in delta.removed:
            listeners.pop(key, None)
        self.allocator.assign(map(_slot_key, delta.upserted), before, self.regions, time.monotonic())
        upserted = tuple(SlottedListener(one, self._slot(_slot_key(one))) for one in delta.upserted)
        listeners.update({one.listener.key: one for one in upserted})
        for backend in delta.removed_backends:
            self._backends.pop(backend, None)
        backends = tuple(
            SlottedBackend(one, self._slot((one.key.service, one.key.port))) for one in delta.backends
        )
        self._backends.update({one.backend.key: one for one in backends})
        self._version = version
        message = Apply(version, upserted, delta.removed, backends, delta.removed_backends)
        punctual = [place for place in self._places if place.applied == place.sent]
        for place in self._places:
            place.tell(message)
        await asyncio.gather(*(self._wait(place, version) for place in punctual))

    def tell_sources(self, pods: Mapping[str, PodObject]) -> None:
        """Let every worker know the node's pods by address; one that starts later is told as well."""
        message = self._sources.change(pods)
        for place in self._places if message else ():
            if place.channel is not None:
                place.channel.send(message)

    def tell_conditions(self, conditions: Conditions) -> None:
        """Let every worker know which endpoints are unhealthy; one that starts later is told as well."""
        for one in conditions.backends:
            if one.unhealthy:
                self._conditions[one.backend] = one
            else:
                self._conditions.pop(one.backend, None)
        for place in self._places:
            if place.channel is not None:
                place.channel.send(conditions)

    def pod(self, address: str) -> SourcePod | None:
        """Return the pod of this node with this address, as workers have been told."""
        return self._sources.find(address)

    def _slot(self, key: SlotKey) -> int:
        return self.allocator.slots[key]

    async def _wait(self, place: _Place, version: int) -> None:
        try:
            async with asyncio.timeout(APPLY_TIME):
                while place.channel is not None and place.applied < version:
                    place.changed.clear()
                    await place.changed.wait()
        except TimeoutError:
            waited = round(APPLY_TIME * 1000)
            log.warning("worker_slow", worker=place.index, plan_version=version, waited_ms=waited)

    async def drain(self, seconds: float) -> None:
        """Let the workers finish what is in flight, for at most `seconds`, and end them."""
        self._stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        for place in self._places:
            if place.listener is not None:
                place.listener.close()
            if place.channel is not None:
                place.channel.send(Drain(seconds))
        await asyncio.gather(*(self._end(place, seconds) for place in self._places))
        if self._watcher is not None:
            self._watcher.cancel()

    async def _end(self, place: _Place, seconds: float) -> None:
        process = place.process
        if process is None:
            return
        try:
            async with asyncio.timeout(seconds + EXIT_TIME):
                await process.wait()
        except TimeoutError:
            log.warning("worker_killed", worker=place.index, reason="it did not leave in time")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if place.channel is not None:
            place.channel.close()


def worker_command(folder: str) -> list[str]:
    """Return the command that is a worker, for an agent whose current folder is `folder`.

    With `-m` Python looks into the current folder first, where somebody may work on a package of one of our
    names; `-P` is without. Only a tree that is not installed is found there, by the agent too.
    """
    here = Path(folder).resolve() == ROOT.resolve()
    return [sys.executable, *([] if here else ["-P"]), "-m", "nodeagent.worker"]


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return "/"


def _slot_key(listener: Listener) -> SlotKey:
    return (listener.service, listener.port)


def _describe(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"
