"""The EndpointSlice that a Service lacks, as YAML to paste. Pure."""

from __future__ import annotations

from discovery.manifest import SERVICE_NAME_LABEL
from discovery.model import ServiceObject

ADDRESS = "127.0.0.1"
"""Stands for the real one: on a laptop it mostly is."""


def slice_to_paste(service: ServiceObject) -> str:
    """Return a slice with all TCP ports of the Service, by the numbers at which its Pods would listen."""
    targets = service.unbacked.targets if service.unbacked is not None else {}
    lines = [
        "---",
        "apiVersion: discovery.k8s.io/v1",
        "kind: EndpointSlice",
        "metadata:",
        f"  name: {service.key.name}-1",
        f"  namespace: {service.key.namespace}",
        "  labels:",
        f"    {SERVICE_NAME_LABEL}: {service.key.name}",
        "addressType: IPv4",
        "ports:",
    ]
    for port in service.ports:
        if port.protocol == "TCP":
            name = f'name: "{port.name}", ' if port.name else ""
            lines.append(f"  - {{{name}port: {targets.get(port.name, port.port)}}}")
    lines += ["endpoints:", f"  - addresses: [{ADDRESS}]"]
    return "\n".join(lines) + "\n"
