"""Who a client is: the value that the data plane counts by and that logs and pages show.

Which client it is, `nodeagent.worker.sources` decides from the address of the connection, and nobody else.
"""

from __future__ import annotations

from typing import Final

import msgspec

NODE_NAME: Final = "node"
UNKNOWN_NAME: Final = "unknown"
OTHER_NAME: Final = "other"
"""In place of a workload: the node itself or a pod on its network; a client that cannot be known; several
clients that are counted together. A workload has a slash in its name, so that none is called like this."""


class Identity(msgspec.Struct, frozen=True):
    """A client: a pod of this node, the node itself (`NODE`), or nobody known (`UNKNOWN`)."""

    workload: str
    """`deployment/web` in `namespace`, or one of the names above."""
    namespace: str = ""
    pod: str = ""
    service_account: str = ""

    @property
    def source(self) -> str:
        """The workload with its namespace, as counters are named: `shop/deployment/web`, or `/node`."""
        return f"{self.namespace}/{self.workload}"


NODE: Final = Identity(NODE_NAME)
UNKNOWN: Final = Identity(UNKNOWN_NAME)


def workload_of(source: str) -> tuple[str, str]:
    """Return namespace and workload of what `Identity.source` has returned."""
    namespace, _, workload = source.partition("/")
    return namespace, workload
