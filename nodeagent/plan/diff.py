"""What changes from one plan to the next, for the data plane and everybody else. Pure.

Plans that say what changed are not looked through; of others, identity comes first, so it is fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from discovery.model import ServiceKey
from nodeagent.plan.model import NodePlan, Route, RouteKey, ServicePlan


class ServiceChange(NamedTuple):
    """A Service in one plan and the next; `old` or `new` is None where there was or is none."""

    key: ServiceKey
    old: ServicePlan | None
    new: ServicePlan | None


class RouteDelta(msgspec.Struct, frozen=True):
    """Routes that are new or differ, and keys that no route has any more. A key is in at most one of both."""

    upserted: tuple[Route, ...] = ()
    removed: tuple[RouteKey, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.upserted or self.removed)


def diff_services(old: NodePlan, new: NodePlan) -> list[ServiceChange]:
    """Return the Services that differ, in the order of their keys."""
    before, after = old.services, new.services
    keys: Iterable[ServiceKey]
    if new.changes is not None and new.changes.since == old.version:
        keys = new.changes.keys
    else:
        keys = [key for key, now in after.items() if before.get(key) is not now]
        keys += [key for key in before if key not in after]
    changes = (ServiceChange(key, before.get(key), after.get(key)) for key in sorted(keys))
    return [change for change in changes if change.old is not change.new]


def diff_routes(changed: Sequence[ServiceChange]) -> RouteDelta:
    """Return what makes the routes before these changes those after them, in their order."""
    # A route's key may pass from one Service to another, so the changed Services are compared as one set.
    was_routes = _by_key(change.old for change in changed)
    new_routes = _by_key(change.new for change in changed)
    upserted = tuple(route for key, route in new_routes.items() if not _same(was_routes.get(key), route))
    removed = tuple(key for key in was_routes if key not in new_routes)
    return RouteDelta(upserted, removed)


def _by_key(plans: Iterable[ServicePlan | None]) -> dict[RouteKey, Route]:
    return {route.key: route for plan in plans if plan is not None for route in plan.routes}


def _same(was: Route | None, route: Route) -> bool:
    return was is route or was == route
