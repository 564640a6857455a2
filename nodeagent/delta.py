"""What changes for the data plane from one plan to the next. Pure; identity first, so it is fast."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from nodeagent.plan import NodePlan, Route, RouteKey, ServicePlan


class RouteDelta(msgspec.Struct, frozen=True):
    """Routes that are new or differ, and keys that no route has any more. A key is in at most one of both."""

    upserted: tuple[Route, ...] = ()
    removed: tuple[RouteKey, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.upserted or self.removed)


def diff_routes(old: NodePlan, new: NodePlan) -> RouteDelta:
    """Return what makes the routes of `old` those of `new`, in the order of the plans."""
    before = old.services
    changed: list[tuple[ServicePlan | None, ServicePlan]] = []
    kept = 0
    for key, plan in new.services.items():
        was = before.get(key)
        if was is not None:
            kept += 1
        if was is not plan:
            changed.append((was, plan))
    # A route's key may pass from one Service to another, so the changed Services are compared as one set.
    gone = [plan for key, plan in before.items() if key not in new.services] if kept != len(before) else []
    was_routes = _by_key([*(was for was, _ in changed if was is not None), *gone])
    new_routes = _by_key(plan for _, plan in changed)
    upserted = tuple(route for key, route in new_routes.items() if not _same(was_routes.get(key), route))
    removed = tuple(key for key in was_routes if key not in new_routes)
    return RouteDelta(upserted, removed)


def _by_key(plans: Iterable[ServicePlan]) -> dict[RouteKey, Route]:
    return {route.key: route for plan in plans for route in plan.routes}


def _same(was: Route | None, route: Route) -> bool:
    return was is route or was == route
