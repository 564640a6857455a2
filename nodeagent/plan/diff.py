"""What changes from one plan to the next, for the data plane and everybody else. Pure.

If a plan says what changed, only that is compared; otherwise objects are compared by identity first, so it is
fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from discovery.model import ServiceKey
from nodeagent.plan.model import BackendKey, BackendSpec, Listener, ListenerKey, NodePlan, ServicePlan

K = TypeVar("K")
V = TypeVar("V", Listener, BackendSpec)


class ServiceChange(NamedTuple):
    """A Service in one plan and the next; `old` or `new` is None where there was or is none."""

    key: ServiceKey
    old: ServicePlan | None
    new: ServicePlan | None


class PlanDelta(msgspec.Struct, frozen=True):
    """Listeners and backends that are new or differ, and keys that none has any more.

    A key is in at most one of both.
    """

    upserted: tuple[Listener, ...] = ()
    removed: tuple[ListenerKey, ...] = ()
    backends: tuple[BackendSpec, ...] = ()
    removed_backends: tuple[BackendKey, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.upserted or self.removed or self.backends or self.removed_backends)


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


def diff_plans(changed: Sequence[ServiceChange]) -> PlanDelta:
    """Return what makes the listeners and backends before these changes those after them, in their order."""
    # A listener's key may pass from one Service to another, so the changed Services are compared as one set.
    listeners = _diff(
        _by_key(change.old.listeners for change in changed if change.old is not None),
        _by_key(change.new.listeners for change in changed if change.new is not None),
    )
    backends = _diff(
        _by_key(change.old.backends for change in changed if change.old is not None),
        _by_key(change.new.backends for change in changed if change.new is not None),
    )
    return PlanDelta(*listeners, *backends)


def _by_key(groups: Iterable[Iterable[V]]) -> dict[Any, V]:
    return {part.key: part for group in groups for part in group}


def _diff(before: Mapping[K, V], after: Mapping[K, V]) -> tuple[tuple[V, ...], tuple[K, ...]]:
    """Return what is new or differs, and the keys that are gone."""
    upserted = tuple(part for key, part in after.items() if not _same(before.get(key), part))
    return upserted, tuple(key for key in before if key not in after)


def _same(was: object, part: object) -> bool:
    return was is part or was == part
