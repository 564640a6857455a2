"""The backends of one worker, as the plan and the rules need them: made, changed and dropped here.

What one backend needs of others, its failover and the node's zone, is given to it here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from nodeagent.plan.model import BackendKey, BackendSpec
from nodeagent.proxy.backend import Backend
from nodeagent.proxy.locality import zone_of
from nodeagent.proxy.pool import Address, Pools


class Backends:
    """The backends of one worker, by key: those in the plan, and those that rules name, whether they exist or
    not.
    """

    def __init__(self, pools: Pools) -> None:
        self.pools = pools
        self._backends: dict[BackendKey, Backend] = {}
        self._node = ""
        self._zone = ""
        self._local: set[Backend] = set()
        """Those with locality."""
        self._detecting: set[Backend] = set()
        """Those with outlier detection."""
        self._told: dict[BackendKey, Mapping[Address, str]] = {}
        """What `tick` has returned last of each that has ejected endpoints."""
        self._searched = False
        """Whether the endpoints that there were have been searched for the node's zone."""

    def __len__(self) -> int:
        return len(self._backends)

    def apply(self, upserted: Iterable[tuple[BackendSpec, int]], removed: Iterable[BackendKey]) -> None:
        """Make the running backends follow the plan; each comes with its port's slot of counters."""
        for key in removed:
            backend = self._backends.get(key)
            if backend is not None:
                backend.update(None)
                self._follow(backend, None)
                self._drop_unused(backend)
        specs = []
        for spec, slot in upserted:
            backend = self._get(spec.key)
            backend.update(spec, slot)
            self._follow(backend, spec)
            specs.append(spec)
        if self._local:
            self._locate(specs)

    def locate(self, node: str, zone: str) -> None:
        """Take note of the node's name, and of its zone if that is known."""
        self._node, self._zone = node, zone

    @property
    def lost(self) -> bool:
        """Whether the node's zone is needed and not known."""
        return bool(self._local) and not self._zone

    def tick(self, now: float) -> list[tuple[BackendKey, Mapping[Address, str]]]:
        """Once a second: end ejections whose time is over; return the backends whose ejected endpoints have
        changed, each with all that are ejected now.
        """
        if not self._detecting and not self._told:
            return []
        ejected = {}
        for backend in self._detecting:
            backend.advance(now)
            if out := backend.ejected():
                ejected[backend.key] = out
        keys = sorted(self._told.keys() | ejected.keys())
        changed = [(key, ejected.get(key, {})) for key in keys if ejected.get(key) != self._told.get(key)]
        self._told = ejected
        return changed

    def _follow(self, backend: Backend, spec: BackendSpec | None) -> None:
        """Give a backend what it needs of others."""
        wanted = spec.failover if spec is not None else None
        before = backend.failover
        if wanted != (before.key if before is not None else None):
            backend.fail_over_to(self.acquire(wanted) if wanted is not None else None)
            if before is not None:
                self.release(before)
        _put(self._detecting, backend, spec is not None and spec.outlier_detection is not None)
        _put(self._local, backend, spec is not None and spec.locality is not None)

    def _locate(self, changed: Iterable[BackendSpec]) -> None:
        """Learn the node's zone if it is not known, and tell it to those that need it."""
        if not self._zone:
            known = (backend.spec for backend in self._backends.values())
            specs = changed if self._searched else (spec for spec in known if spec is not None)
            self._searched = True
            self._zone = zone_of(self._node, (one for spec in specs for one in spec.endpoints))
        for backend in self._local:
            backend.locate(self._zone)

    def set_condition(self, key: BackendKey, unhealthy: Collection[Address]) -> None:
        """Take note of a backend's endpoints that fail the agent's health checks."""
        backend = self._backends.get(key)
        if backend is not None:
            backend.set_condition(unhealthy)

    def acquire(self, key: BackendKey) -> Backend:
        """Return the backend of this name for one more rule."""
        backend = self._get(key)
        backend.users += 1
        return backend

    def release(self, backend: Backend) -> None:
        """One rule less names it."""
        backend.users -= 1
        self._drop_unused(backend)

    def _get(self, key: BackendKey) -> Backend:
        backend = self._backends.get(key)
        if backend is None:
            backend = self._backends[key] = Backend(key, self.pools)
        return backend

    def _drop_unused(self, backend: Backend) -> None:
        if backend.spec is None and not backend.users:
            del self._backends[backend.key]


def _put(backends: set[Backend], backend: Backend, within: bool) -> None:
    """Make a set have this one, or not."""
    if within:
        backends.add(backend)
    else:
        backends.discard(backend)
