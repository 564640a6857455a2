"""A worker: one process of the data plane, started by the agent as `python -m nodeagent.worker`.

It gets its socket to the agent, its memory and, in nftables capture, its listening socket as open file
descriptors. When the agent is gone it keeps serving its last plan until another agent is ready.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Coroutine, Iterable
from typing import Any, Final

import msgspec
import structlog
import uvloop

from middleware.custom import WATCH
from middleware.registry import installed
from nodeagent.capture.privileges import die_with_parent, drop_capabilities
from nodeagent.control.messages import (
    Applied,
    Apply,
    BackendCondition,
    BackendEjections,
    Channel,
    Conditions,
    Configure,
    Drain,
    Ejections,
    Message,
    PortFailure,
    Sources,
    Tap,
)
from nodeagent.control.successor import wait_for_successor
from nodeagent.log.configure import (
    access_form,
    access_lines,
    configure_logging,
    lost_access_lines,
    lost_lines,
)
from nodeagent.plan.model import ListenerKey
from nodeagent.proxy.accept import local_address, original_destination
from nodeagent.proxy.data_plane import DataPlane
from nodeagent.stats.cells import SharedCells
from nodeagent.stats.columns import (
    REFUSALS,
    WORKER_ACCESS_BUDGET,
    WORKER_ACCESS_SLOW,
    WORKER_HEARTBEAT,
    WORKER_LOCKS_FORGONE,
    WORKER_LOG_LINES_LOST,
    WORKER_LOOP_LAG,
    WORKER_PLAN_VERSION,
    WORKER_SLOT,
    WORKER_STARTED,
    WORKER_TASKS,
    Layout,
)
from nodeagent.stats.edges import EdgeRows
from nodeagent.stats.methods import MethodRows
from nodeagent.stats.region import StatsRegion
from nodeagent.stats.windows import SharedWindows
from nodeagent.worker.access_log import AccessLogger
from nodeagent.worker.applying import apply_change
from nodeagent.worker.heap import keep_buffers
from nodeagent.worker.layer_watch import LayerWatch
from nodeagent.worker.listening import LoopbackListeners
from nodeagent.worker.memory import MemoryGuard
from nodeagent.worker.open_files import most_clients, raise_limit
from nodeagent.worker.recent import RecentFailures
from nodeagent.worker.sources import SourcePods
from nodeagent.worker.tapping import PERIOD, Tapper, Tellers
from nodeagent.worker.token_store import RedisTokens
from nodeagent.worker.traces import TraceSender

log = structlog.get_logger()

BACKLOG: Final = 4096
SWEEP: Final = 1.0
ORPHAN_DRAIN_TIME: Final = 30.0


class Descriptors(msgspec.Struct, frozen=True):
    """The open files that the agent passes: numbers, as on the command line; `listen` is -1 if none."""

    control: int
    stats: int
    shared: int
    windows: int
    listen: int
    workers: int
    """Not a file: how many workers share `shared` and `windows`."""


class Worker:
    """The process's wiring: control channel, listening sockets, data plane."""

    def __init__(self, descriptors: Descriptors, loop: asyncio.AbstractEventLoop) -> None:
        self._descriptors = descriptors
        self._loop = loop
        self._layout = Layout(installed().middlewares, REFUSALS)
        self._region = StatsRegion.open(descriptors.stats, self._layout)
        alone = descriptors.workers == 1
        self._shared = SharedCells.open(descriptors.shared, alone, self._lock_forgone)
        self._base = self._layout.base(WORKER_SLOT)
        self._sources = SourcePods()
        self._tokens: RedisTokens | None = None
        self._data_plane: DataPlane | None = None
        self._memory: MemoryGuard | None = None
        self._server: asyncio.Server | None = None
        """In nftables capture."""
        self._listeners = LoopbackListeners(self._serve_here)
        self._failures: dict[ListenerKey, PortFailure] = {}
        """Of what the data plane could not take into use."""
        self._version = 0
        self._settings: Configure | None = None
        self._applying: asyncio.Queue[Message | None] = asyncio.Queue()
        """What the agent says; None: time to try ports again that could not be bound."""
        self._ended = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None
        self._agent_gone = False
        self._channel: Channel | None = None
        self._zone_doubted = False
        self._access_log: AccessLogger | None = None
        self._tapper: Tapper | None = None
        self._recent: RecentFailures | None = None
        self._flushing = False
        """Whether lines for those who watch are sent every `PERIOD`."""
        self._traces: TraceSender | None = None
        self._missing_lines = (0, 0, 0)
        """As counted last; see `_count_missing_lines`."""

    async def run(self) -> None:
        """Serve until told to leave."""
        control = socket.socket(fileno=self._descriptors.control)
        _, channel = await self._loop.create_connection(
            lambda: Channel(self._applying.put_nowait, self._agent_lost), sock=control
        )
        self._channel = channel
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._told_to_leave)
        ended = self._loop.create_task(self._ended.wait())
        while not self._ended.is_set():
            message = self._loop.create_task(self._applying.get())
            await asyncio.wait((message, ended), return_when=asyncio.FIRST_COMPLETED)
            if message.done():
                await self._handle(message.result(), channel)
            else:
                message.cancel()
        if self._data_plane is not None:
            self._data_plane.close()
            await asyncio.sleep(0)  # connections that are broken off are told of in the loop's next turn
        if self._tokens is not None:
            self._tokens.close()
        if self._access_log is not None:
            self._access_log.tick()
        if self._traces is not None:
            self._traces.flush()
        if self._recent is not None:
            self._recent.flush()
        channel.close()

    async def _handle(self, message: Message | None, channel: Channel) -> None:
        if message is None:
            if await self._listeners.retry():
                self._confirm(channel)
        elif isinstance(message, Configure):
            await self._configure(message)
        elif isinstance(message, Apply):
            await self._apply(message)
            self._confirm(channel)
        elif isinstance(message, Sources):
            self._sources.change(message)
            if self._data_plane is not None:
                self._data_plane.sources_changed()
        elif isinstance(message, Conditions):
            self._set_conditions(message.backends)
        elif isinstance(message, Tap):
            self._tap(message)
        elif isinstance(message, Drain):
            self._start_drain(message.timeout)

    async def _configure(self, settings: Configure) -> None:
        self._settings = settings
        if not settings.outlives_agent:
            die_with_parent()
        if settings.capture == "nftables":
            # Strangers' bytes are read here, and the sockets are the agent's: no privilege is of any use.
            # A thread keeps what it was started with: this comes before the one that writes the log.
            drop_capabilities()
        form = configure_logging(settings.log_level, settings.log_format)
        lines = access_lines(access_form(settings.access_log_format, form), settings.log_level)
        if any(middleware.custom for middleware in installed().middlewares):
            LayerWatch(WATCH, threading.get_ident()).start()
        assert self._channel is not None
        channel = self._channel
        self._access_log = AccessLogger(settings.access_log, settings.index, self._sources, lines)
        self._tapper = Tapper(
            self._sources, settings.index, channel.send, lambda: channel.pending, self._exchanges
        )
        self._recent = RecentFailures(
            self._sources,
            settings.index,
            settings.node,
            channel.send,
            lambda: channel.pending,
            self._loop.call_later,
        )
        observer = Tellers(self._access_log, self._tapper, self._recent)
        limits = settings.limits
        if settings.token_store is not None:
            self._tokens = RedisTokens(self._loop, settings.token_store)
        if settings.traces and self._channel is not None:
            self._traces = TraceSender(self._loop, self._channel, self._sources.identify)
        self._data_plane = DataPlane(
            self._loop,
            msgspec.structs.replace(limits, connections=most_clients(raise_limit(), limits.connections)),
            self._layout,
            self._region.cells,
            self._shared,
            SharedWindows(
                self._descriptors.windows, self._descriptors.workers, settings.index, self._lock_forgone
            ),
            observer,
            settings.index,
            methods=MethodRows(self._region.methods),
            workload=self._sources.workload,
            tokens=self._tokens,
            wall=time.time,
            edges=EdgeRows(self._region.cells, self._region.edges_at),
            identify=self._sources.identify,
            traces=self._traces,
        )
        self._data_plane.backends.locate(settings.node, settings.zone)
        self._memory = MemoryGuard(self._data_plane.runtime, limits.memory)
        self._memory.start()
        self._region.cells[self._base + WORKER_STARTED] = time.monotonic_ns()
        self._beat(self._loop.time())

    def _tap(self, message: Tap) -> None:
        assert self._tapper is not None
        self._tapper.follow(message)
        if not self._flushing:
            self._flush_tapped()

    def _exchanges(self) -> DataPlane:
        assert self._data_plane is not None
        return self._data_plane

    def _flush_tapped(self) -> None:
        """Send lines to those who watch, again and again as long as somebody does."""
        assert self._tapper is not None
        self._tapper.flush()
        self._flushing = self._tapper.watched
        if self._flushing:
            self._loop.call_later(PERIOD, self._flush_tapped)

    def _confirm(self, channel: Channel) -> None:
        unbound = {failure.key: failure for failure in self._listeners.failures}
        channel.send(Applied(self._version, tuple({**self._failures, **unbound}.values())))

    async def _apply(self, message: Apply) -> None:
        data_plane, settings = self._data_plane, self._settings
        assert data_plane is not None
        assert settings is not None
        keys = [one.listener.key for one in message.upserted]
        for key in (*message.removed, *keys):
            self._failures.pop(key, None)
        self._failures.update({failure.key: failure for failure in apply_change(data_plane, message)})
        assert self._access_log is not None
        self._access_log.follow((one.listener for one in message.upserted), message.removed)
        self._set_conditions(message.conditions)
        self._check_zone(settings.node)
        if settings.capture == "loopback":
            await self._listeners.follow(keys, message.removed)
        elif self._server is None:
            listener = socket.socket(fileno=self._descriptors.listen)
            self._server = await self._loop.create_server(
                lambda: data_plane.accepted(original_destination), sock=listener, backlog=BACKLOG
            )
        if self._region.cells[self._base + WORKER_PLAN_VERSION] == 0:
            gc.collect()
            gc.freeze()
        self._version = message.version
        self._region.cells[self._base + WORKER_PLAN_VERSION] = message.version

    def _set_conditions(self, conditions: Iterable[BackendCondition]) -> None:
        assert self._data_plane is not None
        for one in conditions:
            self._data_plane.backends.set_condition(one.backend, one.unhealthy)

    def _check_zone(self, node: str) -> None:
        """Warn once if a Service asks for locality and nobody says where this node is."""
        assert self._data_plane is not None
        if self._data_plane.backends.lost and not self._zone_doubted:
            self._zone_doubted = True
            log.warning(
                "zone_unknown",
                node=node,
                reason="a Service has svc.mesh/locality, but no endpoint on this node says its zone, so all "
                "zones are used; set --node-zone",
            )

    def _tell_ejections(self) -> None:
        assert self._data_plane is not None
        changed = self._data_plane.backends.tick(self._data_plane.runtime.now())
        if changed and self._channel is not None:
            self._channel.send(
                Ejections(
                    tuple(
                        BackendEjections(key, tuple((*address, reason) for address, reason in out.items()))
                        for key, out in changed
                    )
                )
            )

    async def _serve_here(self, listener: socket.socket) -> asyncio.Server:
        data_plane = self._data_plane
        assert data_plane is not None
        return await self._loop.create_server(
            lambda: data_plane.accepted(local_address), sock=listener, backlog=BACKLOG
        )

    def _beat(self, due: float) -> None:
        """Once a second: show that the loop runs and how late it was, and end what has exceeded its time."""
        cells = self._region.cells
        now = self._loop.time()
        cells[self._base + WORKER_HEARTBEAT] = time.monotonic_ns()
        cells[self._base + WORKER_LOOP_LAG] = max(0, int((now - due) * 1e6))
        cells[self._base + WORKER_TASKS] = len(asyncio.all_tasks(self._loop))
        assert self._access_log is not None
        self._access_log.tick()
        self._count_missing_lines((lost_lines(), lost_access_lines(), self._access_log.left_out))
        assert self._data_plane is not None
        self._data_plane.sweep()
        self._tell_ejections()
        assert self._memory is not None
        self._memory.look()
        self._data_plane.count()
        if self._listeners.failures:
            self._applying.put_nowait(None)
        self._loop.call_later(SWEEP, self._beat, now + SWEEP)

    def _count_missing_lines(self, numbers: tuple[int, int, int]) -> None:
        """Add what is new of this process's numbers to the counters, which outlive it."""
        columns = (WORKER_LOG_LINES_LOST, WORKER_ACCESS_SLOW, WORKER_ACCESS_BUDGET)
        for column, number, before in zip(columns, numbers, self._missing_lines, strict=True):
            self._region.cells[self._base + column] += number - before
        self._missing_lines = numbers

    def _lock_forgone(self) -> None:
        self._region.cells[self._base + WORKER_LOCKS_FORGONE] += 1

    def _told_to_leave(self) -> None:
        """SIGTERM or SIGINT: ignored unless the agent is gone, because the agent decides when its workers
        leave.

        A terminal's Ctrl-C reaches the agent and also its workers.
        """
        if self._agent_gone:
            log.info("worker_draining", reason="told to leave, and has no agent")
            self._orphaned(self._drain(ORPHAN_DRAIN_TIME))

    def _agent_lost(self) -> None:
        self._agent_gone = True
        if self._draining is not None or self._ended.is_set():
            return
        if self._settings is None or not self._settings.outlives_agent:
            self._ended.set()
            return
        log.warning("agent_lost", reason="serving the last plan until another agent is ready")
        self._orphaned(self._wait_as_orphan(self._settings.successor_address))

    def _orphaned(self, way: Coroutine[Any, Any, None]) -> None:
        if self._draining is not None:
            self._draining.cancel()
        self._draining = self._loop.create_task(way)

    async def _wait_as_orphan(self, successor: str) -> None:
        await wait_for_successor(successor)
        log.info("successor_ready", reason="draining")
        await self._drain(ORPHAN_DRAIN_TIME)

    def _start_drain(self, timeout: float) -> None:
        if self._draining is None:
            self._draining = self._loop.create_task(self._drain(timeout))

    async def _drain(self, seconds: float) -> None:
        """Close the listeners and wait until the last connection has gone, or the time is up."""
        if self._server is not None:
            self._server.close()
        self._listeners.close()
        data_plane = self._data_plane
        if data_plane is not None:
            data_plane.drain()
            deadline = self._loop.time() + seconds
            while data_plane.clients and self._loop.time() < deadline:  # noqa: ASYNC110 counting costs a request
                await asyncio.sleep(0.02)
        self._ended.set()


def main() -> None:
    """Run a worker; its arguments are the numbers of `Descriptors`, in order."""
    descriptors = Descriptors(*map(int, sys.argv[1:]))
    os.set_inheritable(descriptors.control, False)
    gc.set_threshold(20_000, 20, 50)
    keep_buffers()

    async def serve() -> None:
        await Worker(descriptors, asyncio.get_running_loop()).run()

    uvloop.run(serve())
