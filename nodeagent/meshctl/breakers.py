"""The circuit breakers of one Service on one node, from that agent's metrics. Pure."""

from __future__ import annotations

from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

METRIC: Final = "svcmesh_circuit_breaker_state"
STATES: Final = {0: "closed", 1: "recovering", 2: "open"}


class Breaker(msgspec.Struct, frozen=True):
    """The circuit breaker of a port, as it was at its last request."""

    port: int
    state: str


def read_breakers(metrics: str, service: str) -> list[Breaker]:
    """Return the circuit breakers of a Service, `namespace/name`, by port.

    Raises:
        ValueError: it is no page of metrics.
    """
    lines = "\n".join(line for line in metrics.splitlines() if line.startswith(METRIC))
    found = []
    for family in text_string_to_metric_families(lines + "\n"):
        for sample in family.samples:
            labels = sample.labels
            port = labels.get("port", "")
            if f"{labels.get('namespace')}/{labels.get('service')}" == service and port.isdecimal():
                found.append(Breaker(int(port), STATES.get(int(sample.value), f"unknown ({sample.value:g})")))
    return sorted(found, key=lambda one: one.port)
