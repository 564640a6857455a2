"""The agents' DaemonSets: how many pods each wants and has, and why the API server refused to make some.

Pods that are refused, by Pod Security or a quota, do not exist: only the events of their DaemonSet tell.
Needs `list` on `daemonsets.apps` and on `events`; what may not be read is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from discovery.kube.commands.objects import Document, ObjectClient
from discovery.kube.failure import ApiError

FAILED_CREATE = "FailedCreate"
"""The reason of the event by which the DaemonSet controller says that a pod was refused."""


class DaemonSetState(msgspec.Struct, frozen=True):
    """A DaemonSet of agents, in numbers of pods."""

    namespace: str
    name: str
    wanted: int
    """Nodes that should have one."""
    present: int
    ready: int
    refusal: str = ""
    """Why the last pod was not made, where pods are missing."""

    @property
    def missing(self) -> int:
        """Pods that are wanted and do not exist."""
        return max(0, self.wanted - self.present)

    @property
    def complaint(self) -> str:
        """What is to be said of missing pods; empty if there are none."""
        if not self.missing:
            return ""
        why = f": {self.refusal}" if self.refusal else ""
        return f"{self.missing} of {self.wanted} pods of {self.namespace}/{self.name} do not exist{why}"


async def read_daemonsets(client: ObjectClient, namespace: str, selector: str) -> tuple[DaemonSetState, ...]:
    """Return the DaemonSets with these labels, of one namespace or (if it is empty) of all, by name.

    Raises:
        ApiError: they cannot be listed.
    """
    inside = f"/namespaces/{namespace}" if namespace else ""
    found = await client.items(f"/apis/apps/v1{inside}/daemonsets", labelSelector=selector) or []
    states = [read_daemonset(document) for document in found]
    return tuple(sorted([await _explained(client, state) for state in states], key=_key))


def read_daemonset(document: Document) -> DaemonSetState:
    """Read a DaemonSet; numbers that are missing are 0."""
    metadata, status = document.get("metadata") or {}, document.get("status") or {}
    return DaemonSetState(
        namespace=metadata.get("namespace") or "",
        name=metadata.get("name") or "",
        wanted=status.get("desiredNumberScheduled") or 0,
        present=status.get("currentNumberScheduled") or 0,
        ready=status.get("numberReady") or 0,
    )


async def _explained(client: ObjectClient, state: DaemonSetState) -> DaemonSetState:
    """Add why pods are missing, if any are and the events may be read."""
    if not state.missing:
        return state
    fields = f"involvedObject.kind=DaemonSet,involvedObject.name={state.name},reason={FAILED_CREATE}"
    try:
        events = await client.items(f"/api/v1/namespaces/{state.namespace}/events", fieldSelector=fields)
    except ApiError:
        return state
    return msgspec.structs.replace(state, refusal=last_refusal(events or []))


def last_refusal(events: list[Document]) -> str:
    """Return what the newest of these events says; empty if there is none."""
    newest = max(events, key=_moment, default=None)
    return " ".join(str((newest or {}).get("message") or "").split())


def _moment(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _key(state: DaemonSetState) -> tuple[str, str]:
    return (state.namespace, state.name)
