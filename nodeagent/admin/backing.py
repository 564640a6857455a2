"""Which Service a source belongs to, by the plan in force: made by a thread, once for each plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nodeagent.plan.model import NodePlan
from nodeagent.stats.overview import Backing, ServiceName


class PlanBacking:
    """Remembers what it has made of the last plan. `current` returns a value that is only ever replaced."""

    def __init__(self, current: Callable[[], NodePlan]) -> None:
        self._current = current
        self._making = asyncio.Lock()
        self._made: tuple[NodePlan, Backing] | None = None

    async def backing(self) -> Backing:
        """Return it for the plan in force."""
        async with self._making:
            plan = self._current()
            if self._made is None or self._made[0] is not plan:
                self._made = (plan, await asyncio.to_thread(backing_of, plan))
            return self._made[1]


def backing_of(plan: NodePlan) -> Backing:
    """Return which pods are endpoints of which Services."""
    return Backing(
        {
            ServiceName(key.namespace, key.name): sorted(
                {one.pod for backend in service.backends for one in backend.endpoints if one.pod}
            )
            for key, service in plan.services.items()
        }
    )
