"""Which endpoint is probed when, and what is known about it. Pure: time and chance are arguments.

There is one `Probe` for each address and port, however many backends have this endpoint. A new endpoint
counts as healthy, because Kubernetes has found it ready. It is probed for the first time at a random moment
of its first interval, and then after intervals that are up to a tenth longer or shorter, so that neither
endpoints nor nodes are probed in step.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from nodeagent.plan.model import BackendKey, BackendSpec, HealthCheck, UpstreamProtocol

AT_ONCE: Final = 64
"""Probes at the same time; further ones wait."""
JITTER: Final = 0.1

Address = tuple[str, int]


class Probe(msgspec.Struct, frozen=True):
    """What is probed, and how."""

    address: Address
    check: HealthCheck
    protocol: UpstreamProtocol
    """The protocol that is used to the endpoint."""


class Change(NamedTuple):
    """An endpoint has become unhealthy, or healthy again, to these backends."""

    address: Address
    healthy: bool
    reason: str
    """Why the last failed probe has failed."""
    since: float
    """When it got the condition that it had before this change."""
    backends: tuple[BackendKey, ...]


class Probed:
    """What is known of one endpoint."""

    __slots__ = ("asked", "backends", "due", "healthy", "probe", "reason", "since", "streak")

    def __init__(self, probe: Probe, now: float, due: float) -> None:
        self.probe = probe
        self.backends: set[BackendKey] = set()
        self.healthy = True
        self.since = now
        self.streak = 0
        """Probes in a row that contradict `healthy`."""
        self.reason = ""
        self.due = due
        self.asked = now
        """When the last probe began."""

    def report(self, failure: str, now: float) -> bool:
        """Take the outcome of a probe; an empty `failure` means success. Return whether `healthy` has
        changed.
        """
        if failure:
            self.reason = failure
        if self.healthy == (not failure):
            self.streak = 0
            return False
        self.streak += 1
        check = self.probe.check
        if self.streak < (check.unhealthy if self.healthy else check.healthy):
            return False
        self.healthy = not self.healthy
        self.streak = 0
        self.since = now
        return True


class Book:
    """All probes of an agent. `chance` gives random numbers from 0 to 1."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._backends: dict[BackendKey, tuple[Probe, ...]] = {}
        self._probed: dict[Probe, Probed] = {}
        self._order: list[tuple[float, int, Probed]] = []
        self._number = 0
        self._under_way = 0

    def __len__(self) -> int:
        return len(self._probed)

    def follow(
        self, upserted: Iterable[BackendSpec], removed: Iterable[BackendKey], now: float
    ) -> set[BackendKey]:
        """Make the probes those of changed backends; return the backends whose unhealthy ones differ now."""
        changed = set()
        for key in removed:
            if self._set(key, (), now):
                changed.add(key)
        for spec in upserted:
            if self._set(spec.key, _probes_of(spec), now):
                changed.add(spec.key)
        return changed

    def unhealthy(self, key: BackendKey) -> Mapping[Address, str]:
        """Return the endpoints of a backend that are not to be used, each with the reason."""
        known = [self._probed[probe] for probe in self._backends.get(key, ())]
        return {one.probe.address: one.reason for one in known if not one.healthy}

    def left(self, key: BackendKey) -> int:
        """Return how many endpoints of a backend are healthy."""
        return sum(self._probed[probe].healthy for probe in self._backends.get(key, ()))

    def take(self, now: float) -> Probed | None:
        """Return the next probe to start; None if none is due, or enough are running."""
        if self._under_way >= AT_ONCE:
            return None
        self._forget_old()
        if not self._order or self._order[0][0] > now:
            return None
        _, _, probed = heapq.heappop(self._order)
        probed.asked = now
        self._under_way += 1
        return probed

    def wait(self, now: float) -> float | None:
        """Return the seconds until `take` may return a probe; None: not before `done` or `follow`."""
        self._forget_old()
        if self._under_way >= AT_ONCE or not self._order:
            return None
        return max(0.0, self._order[0][0] - now)

    def done(self, probed: Probed, failure: str | None, now: float) -> Change | None:
        """Take the outcome of a probe that was taken; return what it changes.

        An empty `failure` means success; None says nothing about the endpoint.
        """
        self._under_way -= 1
        if self._probed.get(probed.probe) is not probed:
            return None  # the endpoint has gone meanwhile
        before = probed.since
        changed = failure is not None and probed.report(failure, now)
        pause = probed.probe.check.interval * (1 - JITTER + 2 * JITTER * self._chance())
        self._put(probed, max(now, probed.asked + pause))
        if not changed:
            return None
        backends = tuple(sorted(probed.backends))
        return Change(probed.probe.address, probed.healthy, probed.reason, before, backends)

    def _set(self, key: BackendKey, probes: tuple[Probe, ...], now: float) -> bool:
        before = self._backends.get(key, ())
        if probes == before:
            return False
        was = self.unhealthy(key)
        for probe in probes:
            probed = self._probed.get(probe)
            if probed is None:
                probed = self._probed[probe] = Probed(probe, now, now)
                self._put(probed, now + probe.check.interval * self._chance())
            probed.backends.add(key)
        for probe in set(before).difference(probes):
            probed = self._probed[probe]
            probed.backends.discard(key)
            if not probed.backends:
                del self._probed[probe]
        if probes:
            self._backends[key] = probes
        else:
            self._backends.pop(key, None)
        return self.unhealthy(key) != was

    def _put(self, probed: Probed, due: float) -> None:
        self._number += 1
        probed.due = due
        heapq.heappush(self._order, (due, self._number, probed))

    def _forget_old(self) -> None:
        """Drop the next probes whose endpoints have gone."""
        order, probed = self._order, self._probed
        while order and probed.get(order[0][2].probe) is not order[0][2]:
            heapq.heappop(order)


def _probes_of(spec: BackendSpec) -> tuple[Probe, ...]:
    check = spec.health_check
    if check is None:
        return ()
    addresses = dict.fromkeys((one.address, one.port) for one in spec.endpoints)
    return tuple(Probe(address, check, spec.protocol) for address in addresses)
