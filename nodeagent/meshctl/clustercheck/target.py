"""What is to be checked: which installation, with which settings."""

from __future__ import annotations

import msgspec

from nodeagent.meshctl.clusterdns.stub import Stub
from nodeagent.settings import NFTABLES_RANGE

NAMESPACE = "svcmesh"
"""Where the mesh is installed unless somebody says otherwise."""
SELECTOR = "app.kubernetes.io/name=svcmesh,app.kubernetes.io/component=agent"
"""The labels of agents, and of their DaemonSet, in whatever namespace they are."""
PLACEHOLDER = "svcmesh-agent"
"""An image for a pod that is never made."""


class Target(msgspec.Struct, frozen=True):
    """An installation, made or to be made."""

    namespace: str = ""
    """Before an install where it shall be; after it the only one that is looked at, or (empty) all."""
    stub: Stub = Stub(("svc.mesh",), "240.0.0.53")
    mesh_range: str = NFTABLES_RANGE
    image: str = ""
    probe_nodes: bool = False
    admin_port: int = 15000
    version: str = ""
    """Of this program."""

    @property
    def zone(self) -> str:
        """The mesh zone."""
        return self.stub.zones[0]
