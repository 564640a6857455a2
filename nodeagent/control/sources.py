"""Which pods the workers know: those of this node, by address. Workers are told what changes.

Bounded, because a folder of files may hold the pods of a whole cluster: after `MAX_SOURCES` addresses,
further ones are left out, and those that are known stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from discovery.model import PodObject
from nodeagent.control.messages import SourcePod, Sources

log = structlog.get_logger()

MAX_SOURCES: Final = 4096
"""Addresses. A node has at most 110 pods, unless somebody raises that limit, each with one or two
addresses."""


def choose_sources(
    pods: Mapping[str, PodObject], before: Mapping[str, SourcePod], limit: int = MAX_SOURCES
) -> dict[str, SourcePod]:
    """Return the pods to tell workers about, at most `limit`; if there are more, those in `before` come
    first.
    """
    addresses = list(pods)
    if len(addresses) > limit:
        addresses.sort(key=lambda address: address not in before)
    return {address: _source_pod(pods[address], before.get(address)) for address in addresses[:limit]}


def diff_sources(old: Mapping[str, SourcePod], new: Mapping[str, SourcePod]) -> Sources:
    """Return the change from the pods `old` to the pods `new`."""
    upserted = {address: pod for address, pod in new.items() if old.get(address) != pod}
    return Sources(upserted, tuple(address for address in old if address not in new))


def _source_pod(pod: PodObject, before: SourcePod | None) -> SourcePod:
    now = SourcePod(pod.key.namespace, pod.key.name, pod.workload, pod.service_account)
    return before if before == now else now


class SourceTable:
    """The pods that the workers have been told of."""

    def __init__(self, limit: int = MAX_SOURCES) -> None:
        self._limit = limit
        self._seen: Mapping[str, PodObject] = {}
        self._told: Mapping[str, SourcePod] = {}
        self._full = False

    def change(self, pods: Mapping[str, PodObject]) -> Sources:
        """Remember these pods, and return what to tell workers that know the ones before.

        If it is the same object as last time, nothing has changed.
        """
        if pods is self._seen:
            return Sources({})
        self._seen = pods
        before, self._told = self._told, choose_sources(pods, self._told, self._limit)
        full = len(pods) > self._limit
        if full and not self._full:
            log.warning("sources_left_out", addresses=len(pods), told=self._limit)
        self._full = full
        return diff_sources(before, self._told)

    def find(self, address: str) -> SourcePod | None:
        """Return the pod with this address; None if it is no pod's that workers know."""
        return self._told.get(address)

    def everything(self) -> Sources:
        """Return what to tell a worker that knows nothing yet."""
        return Sources(self._told)
