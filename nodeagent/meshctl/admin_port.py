"""The port of an agent's admin page, from the pod that runs it."""

from __future__ import annotations

from typing import Final

from discovery.kube.commands.agents import AgentPod
from nodeagent.cli.flags import ADMIN_PORT

ADMIN_LISTEN: Final = "SVCMESH_ADMIN_LISTEN"
"""Where a pod's own setting of --admin-listen stands."""


def admin_port(pod: AgentPod) -> int:
    """Return the port that a pod's own setting names; if it has none, or an unusual one, the default."""
    port = pod.environment.get(ADMIN_LISTEN, "").rpartition(":")[2]
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    return number if 1 <= number <= 65535 else ADMIN_PORT
