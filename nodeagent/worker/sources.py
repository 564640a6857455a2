"""Which pod a client's address belongs to, as the agent says; for all parts of a worker that name clients."""

from __future__ import annotations

from nodeagent.control.messages import SourcePod, Sources


class SourcePods:
    """The pods of this node by address, as the agent last said."""

    def __init__(self) -> None:
        self._pods: dict[str, SourcePod] = {}

    def change(self, message: Sources) -> None:
        """Take over what the agent tells."""
        for address in message.removed:
            self._pods.pop(address, None)
        self._pods.update(message.upserted)

    def find(self, address: str) -> SourcePod | None:
        """Return the pod with this address; None if it is the node's own, a stranger's, or too new."""
        return self._pods.get(address)

    def workload(self, address: str) -> str:
        """Return what the pod with this address belongs to, `namespace/deployment/name`; empty: unknown."""
        pod = self._pods.get(address)
        return f"{pod.namespace}/{pod.workload}" if pod is not None and pod.workload else ""
