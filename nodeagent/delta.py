"""What changes from one plan to the next, for the data plane and everybody else. Pure.

Plans that say what changed are not looked through; of others, identity comes first, so it is fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from nodeagent.plan import NodePlan, Route, RouteKey, ServicePlan

ServiceChange = tuple[ServicePlan | None, ServicePlan | None]
"""A Service before and after; None where there was or is none. Never both."""


class RouteDelta(msgspec.Struct, frozen=True):
    """Routes that are new or differ, and keys that no route has any more. A key is in at most one of both."""

    upserted: tuple[Route, ...] = ()
    removed: tuple[RouteKey, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.upserted or self.removed)


def diff_services(old: NodePlan, new: NodePlan) -> list[ServiceChange]:
    """Return the Services that differ, in the order of the plans; those that went are last."""
    before, after = old.services, new.services
    if new.changes is not None and new.changes.since == old.version:
        keys = sorted(new.changes.keys)
        return [(before[key], after[key]) for key in keys if before[key] is not after[key]]
    changed: list[ServiceChange] = [
        (was, now) for key, now in after.items() if (was := before.get(key)) is not now
    ]
    changed += [(was, None) for key, was in before.items() if key not in after]
    return changed


def diff_routes(changed: Sequence[ServiceChange]) -> RouteDelta:
    """Return what makes the routes before these changes those after them, in their order."""
    # A route's key may pass from one Service to another, so the changed Services are compared as one set.
    was_routes = _by_key(was for was, _ in changed if was is not None)
    new_routes = _by_key(now for _, now in changed if now is not None)
    upserted = tuple(route for key, route in new_routes.items() if not _same(was_routes.get(key), route))
    removed = tuple(key for key in was_routes if key not in new_routes)
    return RouteDelta(upserted, removed)


def _by_key(plans: Iterable[ServicePlan]) -> dict[RouteKey, Route]:
    return {route.key: route for plan in plans for route in plan.routes}


def _same(was: Route | None, route: Route) -> bool:
    return was is route or was == route
