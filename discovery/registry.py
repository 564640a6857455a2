"""Joins Services, EndpointSlices and Pods, as the source reports them, to snapshots of the mesh.

`Registry.fold` takes events in any order: a slice may come before its Service. Only Services whose owner asks
for the mesh are in a snapshot; problems of other Services are not reported either. Nothing here knows of
relists: a source reports what has vanished meanwhile as `Deleted`. Pure.

The place where an object was read (`origin`) is not a part of its content: a Service that only moved within
its file stays the same object in the snapshot, with the origin it had.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice

import msgspec

from discovery.bounds import bounded, more_problems
from discovery.compat import PREFIXES
from discovery.join import join_service
from discovery.manifest import SERVICE_NAME_LABEL
from discovery.model import (
    ANNOTATION_PREFIX,
    Changes,
    MeshObject,
    MeshSnapshot,
    NamespaceKey,
    NamespaceObject,
    ObjectKey,
    PodKey,
    PodObject,
    Problem,
    Service,
    ServiceKey,
    ServiceObject,
    SliceKey,
    SliceObject,
)
from discovery.position import place_of
from discovery.source import Deleted, Event, Malformed, Stale, Synced, Upserted

MOST_OF_NAMESPACE = 100
"""Problems that belong to no Service (but to slices, for example) that are reported for one namespace; one
more says how many others there are."""
AT_ONCE = 200
"""Services that are joined in a few milliseconds."""

_Object = tuple[str, str, str]
"""Namespace, name and kind."""


class Registry:
    """Everything that the source has reported, and the snapshot of it."""

    def __init__(self) -> None:
        self._services: dict[ServiceKey, ServiceObject] = {}
        self._slices: dict[SliceKey, SliceObject] = {}
        self._slices_of: defaultdict[ServiceKey, set[SliceKey]] = defaultdict(set)
        self._orphans: set[ServiceKey] = set()
        """Services that slices name and that do not exist."""
        self._pods: dict[PodKey, PodObject] = {}
        self._pods_at: defaultdict[str, set[PodKey]] = defaultdict(set)
        self._namespaces: dict[str, NamespaceObject] = {}
        """Those that say something of the Services in them, by name."""
        self._told_namespaces: Mapping[str, NamespaceObject] = {}
        """As in the last snapshot."""
        self._malformed: dict[str, dict[_Object, list[Problem]]] = {}
        """The problems of objects, by origin."""
        self._synced = False
        self._stale = False
        self._problems_dirty = False
        """Whether something has changed that decides which problems are reported, and for which Service."""
        self._dirty: set[ServiceKey] = set()
        self._changed: set[ServiceKey] = set()
        """Services that are joined and differ from the last snapshot."""
        self._dirty_addresses: set[str] = set()
        self._joined: dict[ServiceKey, Service] = {}
        self._others: tuple[Problem, ...] = ()
        """Reported problems that belong to no meshed Service."""
        self._noted: dict[ServiceKey, tuple[Problem, ...]] = {}
        """Problems that sources reported of meshed Services, as in the last snapshot."""
        self._snapshot = MeshSnapshot(version=0, services={})
        self._unrelated = True
        """The next snapshot is the first, or follows one that was not made here: it does not say what
        changed."""

    @property
    def synced(self) -> bool:
        """True once the source has reported everything; it stays true while the source is stale."""
        return self._synced

    @property
    def knows_pods(self) -> bool:
        """Whether there is any Pod, with an address of its own or without."""
        return bool(self._pods)

    def continue_from(self, version: int) -> None:
        """Give the next snapshot a version above this one: a plan was made before there was a snapshot."""
        self._snapshot = msgspec.structs.replace(self._snapshot, version=max(version, self._snapshot.version))
        self._unrelated = True

    def fold(self, events: Iterable[Event]) -> bool:
        """Take events in and return whether the next snapshot may differ from the last."""
        changed = False
        for event in events:
            changed |= self._fold_one(event)
        return changed

    def _fold_one(self, event: Event) -> bool:
        match event:
            case Upserted(object=found):
                return self._upsert(found)
            case Deleted(key=key):
                return self._delete(key)
            case Malformed(origin=origin, problems=problems):
                wrong = _by_object(problems)
                changed = self._malformed.get(origin, {}) != wrong
                self._malformed[origin] = wrong
                if not problems:
                    del self._malformed[origin]
                self._problems_dirty |= changed
                return changed
            case Synced():
                changed = not self._synced or (self._stale and bool(self._orphans))
                self._synced, self._stale = True, False
                self._problems_dirty |= changed
                return changed
            case Stale():
                changed = self._synced and not self._stale and bool(self._orphans)
                self._stale = True
                self._problems_dirty |= changed
                return changed

    def join_some(self) -> bool:
        """Do a part of the work for the next snapshot; return whether much is left."""
        self._sort_problems()
        if len(self._dirty) > AT_ONCE:
            self._join(list(islice(self._dirty, AT_ONCE)))
        return len(self._dirty) > AT_ONCE

    def snapshot(self) -> MeshSnapshot:
        """Return what is known now; the same object as before if nothing changed.

        If only pods did, the version stays: no plan depends on them.
        """
        before = self._snapshot
        self._sort_problems()
        problems = self._others
        self._join(sorted(self._dirty))
        changed = frozenset(self._changed)
        self._changed.clear()
        services = dict(self._joined) if changed else before.services
        pods = self._place_pods(before.pods)
        if self._namespaces != self._told_namespaces:
            self._told_namespaces = dict(self._namespaces)
        namespaces = self._told_namespaces
        news = changed or problems is not before.problems or namespaces is not before.namespaces
        if news or self._unrelated:
            changes = None if self._unrelated else Changes(before.version, changed)
            self._unrelated = False
            self._snapshot = MeshSnapshot(before.version + 1, services, pods, problems, changes, namespaces)
        elif pods is not before.pods:
            self._snapshot = msgspec.structs.replace(before, pods=pods)
        return self._snapshot

    # -- objects ---------------------------------------------------------------------------------------

    def _upsert(self, found: MeshObject) -> bool:
        if isinstance(found, ServiceObject):
            return self._upsert_service(found)
        if isinstance(found, SliceObject):
            return self._upsert_slice(found)
        if isinstance(found, NamespaceObject):
            return self._upsert_namespace(found)
        return self._upsert_pod(found)

    def _delete(self, key: ObjectKey) -> bool:
        if isinstance(key, ServiceKey):
            return self._delete_service(key)
        if isinstance(key, SliceKey):
            return self._delete_slice(key)
        if isinstance(key, NamespaceKey):
            return self._put_namespace(key.name, None)
        return self._delete_pod(key)

    def _upsert_service(self, new: ServiceObject) -> bool:
        old = self._services.get(new.key)
        self._services[new.key] = new
        if old is not None and says_the_same(old, new):
            return False
        was_orphan = new.key in self._orphans
        self._orphans.discard(new.key)
        self._problems_dirty |= old is None or old.meshed != new.meshed
        if not new.meshed and not (old is not None and old.meshed):
            # Problems of an unmeshed Service and of its slices are not reported: this may add or remove some.
            return was_orphan or bool(self._malformed)
        self._dirty.add(new.key)
        return True

    def _delete_service(self, key: ServiceKey) -> bool:
        old = self._services.pop(key, None)
        if old is None:
            return False
        self._problems_dirty = True
        if self._slices_of.get(key):
            self._orphans.add(key)
        if old.meshed:
            self._dirty.add(key)
        return old.meshed or key in self._orphans or bool(self._malformed)

    def _upsert_slice(self, new: SliceObject) -> bool:
        old = self._slices.get(new.key)
        self._slices[new.key] = new
        if old is not None and says_the_same(old, new):
            return False
        self._problems_dirty |= old is None or old.service != new.service
        changed = False
        if old is not None and old.service != new.service:
            changed = self._detach(old)
        self._slices_of[new.service].add(new.key)
        return self._touch(new.service) or changed

    def _delete_slice(self, key: SliceKey) -> bool:
        old = self._slices.pop(key, None)
        self._problems_dirty |= old is not None
        return old is not None and self._detach(old)

    def _detach(self, old: SliceObject) -> bool:
        slices = self._slices_of[old.service]
        slices.discard(old.key)
        if not slices:
            del self._slices_of[old.service]
        return self._touch(old.service)

    def _touch(self, key: ServiceKey) -> bool:
        """Take note that the slices of a Service changed."""
        service = self._services.get(key)
        if service is None:
            (self._orphans.add if self._slices_of.get(key) else self._orphans.discard)(key)
            return self._synced
        if service.meshed:
            self._dirty.add(key)
        return service.meshed or bool(self._malformed)

    def _upsert_namespace(self, new: NamespaceObject) -> bool:
        old = self._namespaces.get(new.key.name)
        if old is not None and says_the_same(old, new):
            return False
        return self._put_namespace(new.key.name, new if new.annotations else None)

    def _put_namespace(self, name: str, new: NamespaceObject | None) -> bool:
        """Have the Services of a namespace joined again, if it says something else of them than before."""
        old = self._namespaces.pop(name, None)
        if new is not None:
            self._namespaces[name] = new
        if old is None and new is None:
            return False
        # Those of the mesh that are not joined yet will be anyway.
        self._dirty |= {key for key in self._joined if key.namespace == name}
        return True

    def _upsert_pod(self, new: PodObject) -> bool:
        old = self._pods.get(new.key)
        self._pods[new.key] = new
        if old is not None and says_the_same(old, new):
            return False
        for address in old.addresses if old is not None else ():
            self._pods_at[address].discard(new.key)
        for address in new.addresses:
            self._pods_at[address].add(new.key)
        affected = {*new.addresses, *(old.addresses if old is not None else ())}
        self._dirty_addresses |= affected
        return bool(affected)

    def _delete_pod(self, key: PodKey) -> bool:
        old = self._pods.pop(key, None)
        if old is None:
            return False
        for address in old.addresses:
            self._pods_at[address].discard(key)
        self._dirty_addresses.update(old.addresses)
        return bool(old.addresses)

    # -- the snapshot ----------------------------------------------------------------------------------

    def _join(self, keys: Iterable[ServiceKey]) -> None:
        """Join these Services again, which may have changed; take note of those that did."""
        for key in keys:
            self._dirty.discard(key)
            found = self._services.get(key)
            old = self._joined.get(key)
            if found is None or not found.meshed:
                if self._joined.pop(key, None) is not None:
                    self._changed.add(key)
                continue
            slices = [self._slices[slice_] for slice_ in sorted(self._slices_of.get(key, ()))]
            namespace = self._namespaces.get(key.namespace)
            new = join_service(found, slices, self._noted.get(key, ()), namespace)
            if new != old:
                self._joined[key] = new
                self._changed.add(key)

    def _place_pods(self, before: Mapping[str, PodObject]) -> Mapping[str, PodObject]:
        """Return the pods by address; of several with one address the first by name."""
        if not self._dirty_addresses:
            return before
        after = dict(before)
        for address in self._dirty_addresses:
            keys = self._pods_at[address]
            if keys:
                after[address] = self._pods[min(keys)]
            else:
                after.pop(address, None)
                del self._pods_at[address]
        self._dirty_addresses.clear()
        return before if after == before else after

    def _sort_problems(self) -> None:
        """Give the problems of meshed Services to these Services, and keep the others that have to be
        reported.

        This looks at all problems, so it is only done for changes that concern them.
        """
        if not self._problems_dirty:
            return
        self._problems_dirty = False
        noted: defaultdict[ServiceKey, list[Problem]] = defaultdict(list)
        others: defaultdict[str, _Others] = defaultdict(_Others)
        by_object = chain.from_iterable(found.items() for found in self._malformed.values())
        for (namespace, name, kind), problems in sorted(by_object):
            key = ServiceKey(namespace, name)
            if kind == "Service" and self._is_meshed(key):
                noted[key] += problems
            elif not self._is_unmeshed_slice(kind, key):
                others[namespace].add([one for one in problems if not self._concerns_unmeshed(one)])
        now = {key: bounded(sorted(problems)) for key, problems in noted.items()}
        self._dirty |= {
            key for key in now.keys() | self._noted.keys() if now.get(key) != self._noted.get(key)
        }
        self._noted = now
        if self._synced and not self._stale:
            for slice_ in sorted(chain.from_iterable(self._slices_of[key] for key in self._orphans)):
                others[slice_.namespace].add([_orphan_problem(self._slices[slice_])])
        after = tuple(sorted(chain.from_iterable(found.told() for found in others.values())))
        if after != self._others:
            self._others = after

    def _is_meshed(self, key: ServiceKey) -> bool:
        service = self._services.get(key)
        return service is not None and service.meshed

    def _concerns_unmeshed(self, problem: Problem) -> bool:
        """Whether it is about a Service whose owner never asked for the mesh."""
        if problem.kind != "Service" or problem.field.startswith((ANNOTATION_PREFIX, *PREFIXES)):
            return False
        return ServiceKey(problem.namespace, problem.name) in self._services

    def _is_unmeshed_slice(self, kind: str, key: ServiceKey) -> bool:
        """Whether an object is a slice of a Service whose owner never asked for the mesh."""
        slice_ = self._slices.get(SliceKey(*key)) if kind == "EndpointSlice" else None
        return slice_ is not None and slice_.service in self._services and not self._is_meshed(slice_.service)


class _Others:
    """The problems of a namespace that belong to no Service, as they are added, within bounds."""

    def __init__(self) -> None:
        self._listed: list[Problem] = []
        self._more = 0

    def add(self, problems: Sequence[Problem]) -> None:
        """Add the problems of one object."""
        room = MOST_OF_NAMESPACE - len(self._listed)
        self._listed += problems[:room]
        self._more += len(problems[room:])

    def told(self) -> list[Problem]:
        """Return those that are told."""
        if not self._more:
            return self._listed
        return [*self._listed, more_problems(self._listed[-1], self._more, MOST_OF_NAMESPACE)]


def _by_object(problems: Iterable[Problem]) -> dict[_Object, list[Problem]]:
    found: defaultdict[_Object, list[Problem]] = defaultdict(list)
    for problem in problems:
        found[problem.namespace, problem.name, problem.kind].append(problem)
    return found


def says_the_same(old: MeshObject, new: MeshObject) -> bool:
    """Whether two objects differ only in the places where they were read."""
    return old == new or msgspec.structs.replace(old, origin=new.origin, lines=new.lines) == new


def _orphan_problem(slice_: SliceObject) -> Problem:
    field = f"metadata.labels[{SERVICE_NAME_LABEL}]"
    return Problem(
        namespace=slice_.key.namespace,
        name=slice_.key.name,
        field=field,
        value=slice_.service.name,
        reason=f"there is no Service {slice_.service}",
        expected="the name of a Service in the same namespace",
        effect="the slice is not used until there is one",
        kind="EndpointSlice",
        origin=place_of(slice_.origin, slice_.lines, field),
    )
