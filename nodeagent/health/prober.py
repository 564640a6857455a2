"""Runs the probes of an agent, and reports what they change."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from discovery.throttle import Throttle, Throttles
from nodeagent.admin.health import HealthState
from nodeagent.control.messages import BackendCondition, Conditions
from nodeagent.health.asking import Asker, asking
from nodeagent.health.book import Address, Book, Change, Probed
from nodeagent.plan.model import BackendKey, BackendSpec

log = structlog.get_logger()

OF_SERVICE: Final = (40, 10 / 60)
"""Lines about one Service that may come at once, and then in a second."""
OF_NAMESPACE: Final = (300, 2)
OF_NODE: Final = (3000, 20)


class Prober:
    """The agent's health checks. `told` is called with the unhealthy endpoints of each backend that
    changed.
    """

    def __init__(self, told: Callable[[Conditions], None], now: Callable[[], float] = time.monotonic) -> None:
        self._told = told
        self._now = now
        self._book = Book(random.random)
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines = Throttles(Throttle(*OF_NODE), Throttle(*OF_NAMESPACE), Throttle(*OF_SERVICE))
        self._left_out = 0
        self._passed = 0
        self._failed = 0
        self._unasked = 0
        self._ejections: dict[BackendKey, int] = {}
        self.unhealthy: Mapping[BackendKey, Mapping[Address, str]] = {}
        """Why endpoints are not used; replaced, never changed."""

    @property
    def state(self) -> HealthState:
        """What metrics show."""
        return HealthState(
            endpoints=len(self._book),
            passed=self._passed,
            failed=self._failed,
            unasked=self._unasked,
            ejections=dict(self._ejections),
            unhealthy={key: len(out) for key, out in self.unhealthy.items()},
        )

    def follow(self, upserted: Iterable[BackendSpec], removed: Iterable[BackendKey]) -> None:
        """Follow a plan: take the changes of its backends."""
        removed = tuple(removed)
        for key in removed:
            self._ejections.pop(key, None)
        self._tell(self._book.follow(upserted, removed, self._now()))
        self._wake.set()

    async def run(self) -> None:
        """Probe endpoints, until cancelled."""
        async with asking() as asker:
            try:
                while True:
                    self._wake.clear()
                    while (probed := self._book.take(self._now())) is not None:
                        task = asyncio.create_task(self._ask(asker, probed))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
                    await self._until_due()
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _until_due(self) -> None:
        try:
            async with asyncio.timeout(self._book.wait(self._now())):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _ask(self, asker: Asker, probed: Probed) -> None:
        failure = None
        try:
            failure = await asker.ask(probed.probe)
        except Exception:  # a bug that one endpoint triggers; the others are still probed
            log.exception("health_check_failed", endpoint=_shown(probed.probe.address))
        self._done(probed, failure)

    def _done(self, probed: Probed, failure: str | None) -> None:
        if failure is None:
            self._unasked += 1
        elif failure:
            self._failed += 1
        else:
            self._passed += 1
        now = self._now()
        change = self._book.done(probed, failure, now)
        self._wake.set()
        if change is not None:
            self._tell(change.backends)
            for key in change.backends:
                if not change.healthy:
                    self._ejections[key] = self._ejections.get(key, 0) + 1
                self._say(key, change, now)

    def _tell(self, changed: Iterable[BackendKey]) -> None:
        unhealthy = dict(self.unhealthy)
        conditions = []
        for key in sorted(changed):
            out = self._book.unhealthy(key)
            unhealthy[key] = out
            if not out:
                del unhealthy[key]
            conditions.append(BackendCondition(key, tuple(sorted(out))))
        if conditions:
            self.unhealthy = unhealthy
            self._told(Conditions(tuple(conditions)))

    def _say(self, key: BackendKey, change: Change, now: float) -> None:
        if not self._lines.admit(now, "", key.service.namespace, key.service):
            self._left_out += 1
            return
        left_out, self._left_out = self._left_out, 0
        more = {"not_logged": left_out} if left_out else {}
        left = self._book.left(key)
        where = {"service": str(key.service), "port": key.port, "endpoint": _shown(change.address)}
        if change.healthy:
            unhealthy = round((now - change.since) * 1000)
            log.info("endpoint_healthy", **where, unhealthy_ms=unhealthy, healthy=left, **more)
        else:
            effect = "it is not used" if left else "all are used, as none is healthy"
            log.warning(
                "endpoint_unhealthy", **where, reason=change.reason, effect=effect, healthy=left, **more
            )


def _shown(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
