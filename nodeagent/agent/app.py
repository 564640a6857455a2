"""The agent: wires source, registry, compiler, workers, capture, DNS and admin together, and orders changes.

The order of a change: what goes is taken out of DNS and the kernel first, then the workers follow, then what
is new is put into the kernel and DNS. A name never resolves to an address that nobody serves.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, ParamSpec, TypeVar

import dns.exception
import structlog

from discovery.dns.server import DnsServer
from discovery.model import PodObject
from discovery.notice import Announcer
from nodeagent.admin.freshness import describe_state
from nodeagent.admin.metrics import AgentState
from nodeagent.admin.readiness import Readiness, ReadinessToken
from nodeagent.admin.ready_file import ReadyFile
from nodeagent.admin.server import AdminListenError
from nodeagent.agent.intake import Intake
from nodeagent.agent.notices import Notices
from nodeagent.agent.pages import Pages
from nodeagent.agent.ports import UnservedPorts
from nodeagent.agent.preflight import StartError, check_ports, check_source
from nodeagent.agent.report import Report
from nodeagent.agent.sources import make_source
from nodeagent.agent.state import SnapshotFile
from nodeagent.agent.stored import remembered_plan
from nodeagent.agent.traces import keep_exemplars, make_exporter
from nodeagent.capture.choose import make_capture
from nodeagent.capture.contract import CaptureError
from nodeagent.compiled import is_compiled
from nodeagent.control.messages import Conditions, PortFailure, Traces
from nodeagent.control.successor import Presence, successor_address
from nodeagent.control.supervisor import Supervisor
from nodeagent.health.prober import Prober
from nodeagent.log.configure import lost_lines
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.counts import count_fields, count_services
from nodeagent.plan.diff import ServiceChange, diff_plans, diff_services
from nodeagent.plan.model import EMPTY_PLAN, BackendKey, ListenerKey, NodePlan
from nodeagent.plan.render import InForce
from nodeagent.plan.zone import changed_zone, departures, empty_zone
from nodeagent.settings import DNS_PORT, Settings
from nodeagent.stats.exemplars import Exemplars

log = structlog.get_logger()

VERIFY_INTERVAL = 5.0
"""Seconds between two checks that the kernel still does what it was told."""
COLD_START_PATIENCE = 0.2
"""Seconds that the source has before the snapshot on disk is served."""
MANY = 100
"""Changed Services; work on more than these is done by a thread, so that DNS is answered meanwhile."""
T = TypeVar("T")
P = ParamSpec("P")


class Agent:
    """One agent, from start to the end of its drain."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._plan: NodePlan = EMPTY_PLAN
        self._in_force = InForce(EMPTY_PLAN)
        self._plan_changed = 0.0
        self._pods: Mapping[str, PodObject] = {}
        """Those of this node, by address."""
        self._keys: set[ListenerKey] = set()
        self._intake = Intake(settings)
        self._announced = False
        self._capture_failures: dict[str, str] = {}
        """What the kernel refused when it was last told, and when it was last looked at."""
        self._unserved = UnservedPorts()
        self._announcer: Announcer | None = None
        self._notices = Notices()
        self._report = Report()
        self._readiness = Readiness()
        self._serving = 0
        self._workers = self._readiness.register("workers")
        self._supervisor = Supervisor(
            settings, self._ports_failed, self._workers_serve, self._ejected_changed, self._traced
        )
        self._traces = make_exporter(settings, self._supervisor.pod)
        self._exemplars = Exemplars()
        self._ejected: Mapping[BackendKey, Mapping[tuple[str, int], str]] = {}
        """Why workers have ejected endpoints."""
        self._prober = Prober(self._conditions_changed)
        self._capture = make_capture(settings)
        self._zone = empty_zone(settings)
        try:
            self._dns = DnsServer(self._zone)
        except (ValueError, dns.exception.DNSException) as error:
            raise StartError(f"the zone {settings.zone} cannot be served: {error}") from error
        self._presence = Presence(successor_address(settings.mesh_range))
        self._pages = Pages(
            settings,
            self._supervisor,
            self._exemplars,
            self._readiness,
            lambda: self._in_force,
            lambda: self._pods,
            self._state,
            self._notes,
        )
        self._ready_file = ReadyFile(settings.ready_file)
        self._snapshot_file = SnapshotFile(settings.state_dir, settings.source)

    def _state(self) -> AgentState:
        return AgentState(
            plan=self._in_force.plan,
            plan_changed=self._plan_changed,
            source=self._intake.freshness,
            snapshot=self._snapshot_file.state,
            regions=self._supervisor.regions,
            workers=self._supervisor.alive,
            worker_restarts=self._supervisor.restarts,
            dns_queries=self._dns.counters.by_result(),
            dns_responses=self._dns.counters.by_transport(),
            log_lines_lost=lost_lines(),
            admin_malformed=self._pages.malformed,
            ready=self._readiness.ready,
            tasks=len(asyncio.all_tasks()),
            health=self._prober.state,
            traces=self._traces.state if self._traces is not None else None,
            ejected={key: len(out) for key, out in self._ejected.items()},
            unusable={
                key: len(self._prober.unhealthy.get(key, {}).keys() | self._ejected.get(key, {}).keys())
                for key in (*self._prober.unhealthy, *self._ejected)
            },
        )

    def _notes(self) -> Iterable[str]:
        plan = self._plan
        yield from describe_state(
            self._intake.freshness, plan.version, self._plan_changed, count_services(plan), time.time()
        )
        yield f"workers: {self._serving} of {self._settings.workers} serve"
        failures = "; ".join(self._capture_failures.values())
        yield f"capture: {f'failed: {failures}' if failures else f'{self._settings.capture} in place'}"
        yield from self._unserved.notes()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain.

        Raises:
            StartError: an address, the kernel or the source refuses.
            SourceError: the source turned out to be unusable later.
        """
        awaited = [self._readiness.register(name) for name in ("source", "plan", "dns")]
        source, self._announcer = make_source(self._settings)
        await check_source(self._settings, source)
        check_ports(self._settings)
        tasks: list[asyncio.Task[Any]] = []
        try:
            await self._start()
            tasks = [
                asyncio.create_task(self._intake.follow(source, awaited[0])),
                asyncio.create_task(self._apply_changes(awaited)),
                asyncio.create_task(self._snapshot_file.write_changes()),
                asyncio.create_task(self._verify_capture()),
                asyncio.create_task(self._prober.run()),
                asyncio.create_task(stop.wait()),
            ]
            if self._traces is not None:
                tasks.append(asyncio.create_task(self._traces.run()))
            if self._announcer is not None:
                tasks.append(asyncio.create_task(self._announcer.run()))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (error := task.exception()) is not None:
                    raise error
        finally:
            for task in tasks:
                task.cancel()
            await self._leave()

    async def _start(self) -> None:
        settings = self._settings
        try:
            await self._capture.start()
            await self._supervisor.start()
            await self._pages.start()
        except (CaptureError, AdminListenError, OSError, ValueError) as error:
            raise StartError(str(error)) from error
        log.info(
            "agent_started",
            version=version("svcmesh"),
            node=settings.node_name,
            source=settings.source,
            capture=settings.capture,
            mesh_range=settings.mesh_range,
            zone=settings.zone,
            workers=settings.workers,
            compiled=is_compiled(),
        )

    async def _apply_changes(self, awaited: Sequence[ReadinessToken]) -> None:
        """Make the node equal to the registry, one change at a time; the first releases `awaited`."""
        previous = await self._remember(awaited)
        while True:
            await self._intake.until_due()
            started, spent = time.monotonic(), time.process_time()
            snapshot = await self._intake.take_snapshot()
            self._pods = snapshot.pods
            self._supervisor.tell_sources(snapshot.pods)
            if snapshot.version == previous.version:  # nothing but pods differs, and no plan depends on them
                self._snapshot_file.keep(snapshot, previous, soon=False)
                self._intake.applied(started)
                continue
            size = len(snapshot.services if snapshot.changes is None else snapshot.changes.keys)
            plan = await _beside(size, compile_plan, snapshot, previous, self._settings)
            compiled = time.monotonic()
            await self._apply(plan)
            ended = time.monotonic()
            self._intake.applied(started, time.process_time() - spent)
            previous = plan
            self._snapshot_file.keep(snapshot, plan)
            if self._announcer is not None:
                self._announcer.tell(self._notices.changed(plan))
            await self._announce(awaited)
            log.debug(
                "plan_timing",
                compile_ms=round((compiled - started) * 1000, 1),
                apply_ms=round((ended - compiled) * 1000, 1),
            )

    async def _remember(self, awaited: Sequence[ReadinessToken]) -> NodePlan:
        """Return what the snapshot on disk knows; serve it if the source has nothing to tell yet."""
        stored = await self._snapshot_file.load()
        if stored is None:
            return EMPTY_PLAN
        remembered = remembered_plan(stored)
        if await self._intake.until_due(COLD_START_PATIENCE):
            return remembered
        head = stored.head
        self._intake.continue_from(
            stored.snapshot.version, "no answer yet, the snapshot on disk is served", head.written
        )
        self._pods = stored.snapshot.pods
        self._supervisor.tell_sources(stored.snapshot.pods)
        size = len(stored.snapshot.services)
        plan = await _beside(size, compile_plan, stored.snapshot, remembered, self._settings)
        await self._apply(plan)
        log.warning(
            "snapshot_loaded",
            **count_fields(plan),
            age_ms=round(max(0.0, time.time() - head.written) * 1000),
            written_by=head.mesh,
            reason="the source has not answered yet",
        )
        await self._announce(awaited)
        return plan

    async def _start_dns(self) -> None:
        """Answer DNS, now that there is something to answer from.

        Not earlier: an agent that starts beside its predecessor shares the port with it, and whether a name
        exists would depend on which of the two gets the question.
        """
        settings = self._settings
        try:
            if settings.capture == "nftables":
                await self._dns.start(settings.dns_address, DNS_PORT)
            if settings.dns_listen != (settings.dns_address, DNS_PORT):
                await self._dns.start(*settings.dns_listen)
        except (OSError, ValueError) as error:
            raise StartError(str(error)) from error

    async def _announce(self, awaited: Sequence[ReadinessToken]) -> None:
        """Once the first plan is in force: answer DNS, and say that the mesh is served."""
        if self._announced:
            return
        await self._start_dns()
        for token in awaited:
            token.release()
        self._announced = True
        self._presence.announce()
        self._show_readiness()
        log.info("agent_ready", **count_fields(self._plan))
        # What exists now stays: collecting it again and again would delay changes by tens of ms.
        gc.freeze()

    async def _apply(self, plan: NodePlan) -> None:
        old = self._plan
        size = len(plan.services if plan.changes is None else plan.changes.keys)
        changed = await _beside(size, diff_services, old, plan)
        delta = await _beside(size, diff_plans, changed)
        self._change_zone(departures(changed))
        if delta.removed:
            self._keys.difference_update(delta.removed)
            await self._steer()
        first = not old.version
        await self._supervisor.apply(plan.version, delta)
        added = {listener.key for listener in delta.upserted} - self._keys
        if added or first:
            self._keys |= added
            await self._steer()
        self._change_zone(changed)
        self._plan = plan
        self._prober.follow(delta.backends, delta.removed_backends)
        self._show_in_force()
        self._plan_changed = time.time()
        await _beside(size, self._report.tell, old, plan, changed, delta, time.monotonic())

    def _conditions_changed(self, conditions: Conditions) -> None:
        """Endpoints have become unhealthy, or well again."""
        self._supervisor.tell_conditions(conditions)
        self._show_in_force()

    def _ejected_changed(self, ejected: Mapping[BackendKey, Mapping[tuple[str, int], str]]) -> None:
        """Workers have ejected endpoints, or use them again."""
        self._ejected = ejected
        self._show_in_force()

    def _traced(self, traces: Traces) -> None:
        """Workers have recorded requests."""
        if self._traces is not None:
            room = self._traces.take(traces)
            keep_exemplars(self._exemplars, traces, room, time.time() - time.monotonic())

    def _show_in_force(self) -> None:
        shown = self._unserved.shown_in(self._plan, self._keys)
        self._in_force = InForce(shown, self._prober.unhealthy, self._ejected)

    async def _steer(self) -> None:
        await self._attempt_capture("apply", self._capture.apply(self._keys))

    async def _verify_capture(self) -> None:
        """Every few seconds, put back what somebody else has removed from the kernel."""
        while True:
            await asyncio.sleep(VERIFY_INTERVAL)
            await self._attempt_capture("verify", self._capture.verify())

    async def _attempt_capture(self, step: str, attempt: Awaitable[None]) -> None:
        """Tell the kernel something; a refusal is logged, and shown until the same step succeeds."""
        try:
            await attempt
            self._capture_failures.pop(step, None)
        except CaptureError as error:
            self._capture_failures[step] = str(error)
            log.error("capture_failed", reason=str(error))  # noqa: TRY400 the reason is the whole story

    def _change_zone(self, changed: Sequence[ServiceChange]) -> None:
        self._zone, differ = changed_zone(self._zone, changed)
        if differ:
            self._dns.set_zone(self._zone, differ)

    def _workers_serve(self, number: int) -> None:
        """`number` workers carry traffic now."""
        self._serving = number
        if number:
            self._workers.release()
        else:
            self._workers.hold()
        self._show_readiness()

    def _show_readiness(self) -> None:
        self._ready_file.show(self._readiness.ready)

    def _ports_failed(self, failures: Mapping[ListenerKey, PortFailure]) -> None:
        """Workers serve all ports but these."""
        self._unserved.tell(failures)
        self._show_in_force()

    async def _leave(self) -> None:
        """Refuse new connections, finish what is in flight, and remove everything that was set up."""
        log.info("agent_draining", drain_timeout_ms=round(self._settings.drain_timeout * 1000))
        self._readiness.drain()
        self._show_readiness()
        await self._presence.close()
        # The zone is not updated from here on; a successor that shares the port has a newer one.
        await self._dns.close()
        await self._snapshot_file.flush()
        if self._plan.version:
            self._keys.clear()
            await self._steer()
        await self._supervisor.drain(self._settings.drain_timeout)
        try:
            await self._capture.close()
        except CaptureError as error:
            log.error("capture_failed", reason=str(error))  # noqa: TRY400
        await self._pages.close()
        log.info("agent_stopped")


async def _beside(size: int, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what a call returns; a call about more than `MANY` Services is made in a thread."""
    return await asyncio.to_thread(call, *args, **kwargs) if size > MANY else call(*args, **kwargs)
