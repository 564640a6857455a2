"""How a metric family is declared: once, for the page of metrics, its documentation and the tests.

Names follow Prometheus' conventions: base units, `_total` for counters.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram"]

Group = Literal[
    "requests",
    "connections",
    "grpc",
    "objectives",
    "endpoints",
    "middleware",
    "refused",
    "dns",
    "plan",
    "source",
    "workers",
    "agent",
]
"""Which section of docs/metrics.md has the family."""

PORT_LABELS = ("service", "namespace", "port")
SOURCE_LABELS = ("source_namespace", "source_workload")
"""Of the client: after those of the port."""

UNITS = ("seconds", "bytes")


class Family(msgspec.Struct, frozen=True):
    """One family of `/metrics`."""

    name: str
    """As exposed: that of a counter ends with `_total`."""
    kind: Kind
    help: str
    group: Group
    labels: tuple[str, ...] = ()
    use: str = ""
    """What its reader learns from it, and does about it."""
    shown: str = "always"
    """When it has samples."""

    @property
    def base(self) -> str:
        """The name without the `_total` of a counter: what OpenMetrics calls the family."""
        return self.name.removesuffix("_total") if self.kind == "counter" else self.name

    @property
    def unit(self) -> str:
        """The unit that the name tells; empty: it counts things."""
        return next((unit for unit in UNITS if self.base.endswith(f"_{unit}")), "")
