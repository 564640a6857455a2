"""What `meshctl dns` shows, for people and for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from nodeagent.meshctl.clusterdns.change import Change, Installation
from nodeagent.meshctl.clusterdns.layout import NAMESPACE
from nodeagent.meshctl.clusterdns.verdict import Sight

State = Literal["installed", "made by hand", "missing or different"]


class PlaceState(msgspec.Struct, frozen=True):
    """How the stub is in one key of a ConfigMap."""

    namespace: str
    configmap: str
    key: str
    state: State


class DnsReport(msgspec.Struct, frozen=True):
    """Where the stub is, and what the pods of the cluster's DNS answer."""

    places: tuple[PlaceState, ...]
    pods: tuple[Sight, ...]

    @property
    def good(self) -> bool:
        """Whether the stub is everywhere, and every pod answers; one at least was asked."""
        everywhere = all(place.state != "missing or different" for place in self.places)
        return everywhere and bool(self.pods) and not any(pod.cluster or pod.mesh for pod in self.pods)


def report_on(plan: Installation, sights: Sequence[Sight]) -> DnsReport:
    """Return how the cluster's DNS is; `plan` says what installing would mean."""
    missing = {change.configmap for change in plan.changes}
    places = []
    for place in plan.places:
        state: State = "missing or different" if place.configmap in missing else "installed"
        if f"{NAMESPACE}/{place.workload}" in plan.by_hand:
            state = "made by hand"
        places.append(PlaceState(NAMESPACE, place.configmap, place.key, state))
    return DnsReport(tuple(places), tuple(sights))


def status_lines(report: DnsReport) -> Iterator[str]:
    """Yield the report for a person."""
    for place in report.places:
        yield f"ConfigMap {place.namespace}/{place.configmap} {place.key}: {place.state}"
    for pod in report.pods:
        yield f"pod {pod.pod}: {'; '.join(filter(None, (pod.cluster, pod.mesh))) or 'answers'}"


def status_document(report: DnsReport) -> dict[str, Any]:
    """Return the report as values that JSON can hold."""
    return {
        "good": report.good,
        "places": msgspec.to_builtins(report.places),
        "pods": [
            {"pod": pod.pod, "cluster": pod.cluster, "mesh": pod.mesh, "good": not (pod.cluster or pod.mesh)}
            for pod in report.pods
        ],
    }


def install_document(plan: Installation, *, changed: bool) -> dict[str, Any]:
    """Return what installing changes, or has changed, as values that JSON can hold."""
    return {
        "changed": changed,
        "changes": [_change(change) for change in plan.changes],
        "by_hand": list(plan.by_hand),
        "notices": [notice for place in plan.places for notice in place.notices],
    }


def remove_document(changes: Sequence[Change], *, changed: bool) -> dict[str, Any]:
    """Return what removing changes, or has changed, as values that JSON can hold."""
    return {"changed": changed, "changes": [_change(change) for change in changes]}


def _change(change: Change) -> dict[str, Any]:
    return {
        "namespace": NAMESPACE,
        "configmap": change.configmap,
        "key": change.key,
        "before": change.before,
        "after": change.after,
    }
