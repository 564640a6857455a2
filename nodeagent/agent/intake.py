"""What the source tells: folded into the registry, and when the changes are to be applied."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence

import structlog

from discovery.debounce import Debounce
from discovery.model import MeshSnapshot
from discovery.registry import Registry
from discovery.source import Event, Source, Stale, Synced
from nodeagent.admin.freshness import Freshness
from nodeagent.admin.readiness import ReadinessToken
from nodeagent.settings import Settings

log = structlog.get_logger()

AT_ONCE = 500
"""Events that are folded in a few milliseconds."""


class Intake:
    """Follows one source. Another task waits for changes with `until_due`, and takes them as a snapshot."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = Registry()
        self._folding = asyncio.Lock()
        """Held while a batch is folded or a snapshot taken: no snapshot has half a batch."""
        self._debounce = Debounce()
        self._wake = asyncio.Event()
        self._node_name_doubted = False
        self.freshness = Freshness()
        """How far the source can be relied on."""

    async def follow(self, source: Source, awaited: ReadinessToken) -> None:
        """Fold what the source tells into the registry; release the token when it has told everything."""
        async with contextlib.aclosing(source.watch()) as batches:  # type: ignore[type-var]
            async for batch in batches:
                changed = await self._fold(batch)
                for event in batch:
                    if isinstance(event, Stale):
                        self.freshness = self.freshness.lost(event.reason, time.time())
                        log.warning("source_stale", reason=event.reason, serving="the last plan")
                    elif isinstance(event, Synced):
                        if not self.freshness.fresh:
                            log.info("source_synced")
                        self.freshness = self.freshness.regained(time.time())
                        awaited.release()
                        self._debounce.synced(time.monotonic())
                        self._check_node_name()
                if changed:
                    self._debounce.changed(time.monotonic())
                self._wake.set()

    async def until_due(self, patience: float = math.inf) -> bool:
        """Wait until changes are to be applied, at most `patience` seconds; return whether they are."""
        end = time.monotonic() + patience
        while (wait := self._debounce.due - time.monotonic()) > 0:
            left = min(wait, end - time.monotonic())
            if left <= 0:
                return False
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if math.isinf(left) else left):
                    await self._wake.wait()
        return True

    async def take_snapshot(self) -> MeshSnapshot:
        """Return everything that the source has told so far."""
        async with self._folding:
            # There is no event to wait for, because the work is done here; other tasks run in between.
            while self._registry.join_some():  # noqa: ASYNC110
                await asyncio.sleep(0)
            return self._registry.snapshot()

    def applied(self, started: float, cost: float | None = None) -> None:
        """Note that the changes that came until `started` are applied, and what that cost in CPU time."""
        ended = time.monotonic()
        self._debounce.applied(ended, ended - started, cost)

    def continue_from(self, version: int, reason: str, written: float) -> None:
        """Let snapshots follow a stored one, which is served now; it was written then, for this reason."""
        self.freshness = self.freshness.lost(reason, written)
        self._registry.continue_from(version)

    async def _fold(self, batch: Sequence[Event]) -> bool:
        """Fold a batch as a whole, and let other tasks run in between; return whether anything changed."""
        changed = False
        async with self._folding:
            for start in range(0, len(batch), AT_ONCE):
                changed |= self._registry.fold(batch[start : start + AT_ONCE])
                if len(batch) > AT_ONCE:
                    await asyncio.sleep(0)
        return changed

    def _check_node_name(self) -> None:
        """Warn once if no Pod is on a node of our name: in a cluster, the agent itself is such a Pod."""
        if self._settings.source == "kube" and not self._registry.knows_pods and not self._node_name_doubted:
            self._node_name_doubted = True
            log.warning(
                "node_without_pods",
                node=self._settings.node_name,
                reason="no Pod is on a node of this name, so clients are known by their address alone; "
                "if there should be, set --node-name to the node's name in Kubernetes",
            )
