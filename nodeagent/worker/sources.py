"""Which client an address belongs to: the one place that decides, for all that a worker counts and tells.

The agent tells the pods of this node by address. What is not one of them is the node itself if the address is
local to it (the node's own programs and pods on the host's network share it), and else unknown: a pod of
another node, or one too new to be known. Nothing that a client says of itself counts.

A connection is asked about again after every change. If its address was another pod's when it was asked
about first, it is unknown: a connection outlives its pod for a while, and the pod that has the address now
did not open it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from nodeagent.control.messages import SourcePod, Sources
from nodeagent.stats.identity import NODE, UNKNOWN, Identity

_REMEMBERED: Final = 1024
"""Addresses that are no pod's, and of which it is known whether they are local."""

GONE: Final = Identity(UNKNOWN.workload, pod="gone")
"""Unknown, and it stays so: the pod of the connection has lost the address."""


def is_local(address: str) -> bool:
    """Ask the kernel whether this machine has an address: no other can be bound to."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


class SourcePods:
    """The pods of this node by address, as the agent last said."""

    def __init__(self, is_local: Callable[[str], bool] = is_local) -> None:
        self._pods: dict[str, SourcePod] = {}
        self._identities: dict[str, Identity] = {}
        self._names: dict[str, tuple[str, str]] = {}
        self._is_local = is_local
        self._others: dict[str, Identity] = {}
        """The node's own addresses and strangers, until pods change."""

    def change(self, message: Sources) -> None:
        """Take over what the agent tells."""
        for address in message.removed:
            self._pods.pop(address, None)
            self._identities.pop(address, None)
            self._names.pop(address, None)
        self._pods.update(message.upserted)
        for address, pod in message.upserted.items():
            self._identities[address] = _identity(pod)
            self._names[address] = (f"{pod.namespace}/{pod.name}", f"{pod.namespace}/{pod.workload}")
        self._others.clear()

    def names(self, address: str) -> tuple[str, str] | None:
        """Return pod and workload, as lines name them, of the pod with this address; None: it is the node's
        own, a stranger's, or too new.
        """
        return self._names.get(address)

    def workload(self, address: str) -> str:
        """Return what the pod with this address belongs to, `namespace/deployment/name`; empty: unknown."""
        pod = self._pods.get(address)
        return f"{pod.namespace}/{pod.workload}" if pod is not None and pod.workload else ""

    def identify(self, address: str, before: Identity | None = None) -> Identity:
        """Return who the client with this address is; `before` is what its connection was told last."""
        found = self._identities.get(address) or self._others.get(address) or self._look(address)
        if before is None or not before.pod:
            return found
        same = (before.namespace, before.pod) == (found.namespace, found.pod)
        return found if same else GONE

    def _look(self, address: str) -> Identity:
        if len(self._others) >= _REMEMBERED:
            self._others.clear()
        found = self._others[address] = NODE if self._is_local(address) else UNKNOWN
        return found


def _identity(pod: SourcePod) -> Identity:
    return Identity(pod.workload or f"pod/{pod.name}", pod.namespace, pod.name, pod.service_account)
