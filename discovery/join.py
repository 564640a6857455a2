"""Joins one Service with its EndpointSlices, as Kubernetes means them.

A port of a slice belongs to the Service's port of the same name and protocol; its number may differ from
slice to slice. The mesh speaks IPv4 so far, so slices of other address types give no endpoints. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from socket import inet_aton

from discovery.model import Endpoint, Problem, Service, ServiceObject, ServicePort, SliceEndpoint, SliceObject


def join_service(
    service: ServiceObject, slices: Sequence[SliceObject], problems: tuple[Problem, ...] = ()
) -> Service:
    """Return the Service with its endpoints; `problems` and what is wrong with the slices go along."""
    usable = [slice_ for slice_ in slices if slice_.address_type == "IPv4"]
    found = [*problems]
    if slices and not usable:
        found.append(_other_family(service, slices))
    endpoints = {}
    for index, port in enumerate(service.ports):
        endpoints[port.name] = _join_port(port, usable)
        if not endpoints[port.name] and (mismatch := _mismatch(service, index, port, usable)):
            found.append(mismatch)
    return Service(service, endpoints, tuple(found))


def _join_port(port: ServicePort, slices: Sequence[SliceObject]) -> tuple[Endpoint, ...]:
    merged: dict[tuple[bytes, int], Endpoint] = {}
    for slice_ in slices:
        for target in slice_.ports:
            if target.name != port.name or target.protocol != port.protocol:
                continue
            for endpoint in slice_.endpoints:
                place = (inet_aton(endpoint.address), target.port)
                new = _to_endpoint(endpoint, target.port)
                old = merged.get(place)
                if old is None or _preference(new) < _preference(old):
                    merged[place] = new
    return tuple(merged[place] for place in sorted(merged))


def _to_endpoint(found: SliceEndpoint, port: int) -> Endpoint:
    return Endpoint(
        found.address,
        port,
        found.ready,
        found.serving,
        found.terminating,
        found.zone,
        found.hints,
        found.node,
        found.pod,
    )


def _preference(endpoint: Endpoint) -> tuple[bool, bool, bool, str, tuple[str, ...], str, str]:
    """The readiest first; what follows only makes the choice independent of order.

    While a pod moves from one slice to another it is in both for a moment (KEP-752).
    """
    return (
        not endpoint.ready,
        not endpoint.serving,
        endpoint.terminating,
        endpoint.zone,
        endpoint.hints,
        endpoint.node,
        endpoint.pod,
    )


def _other_family(service: ServiceObject, slices: Sequence[SliceObject]) -> Problem:
    types = ", ".join(sorted({slice_.address_type for slice_ in slices}))
    return Problem(
        namespace=service.key.namespace,
        name=service.key.name,
        field="EndpointSlice addressType",
        value=types,
        reason="no IPv4 endpoints",
        expected="EndpointSlices of address type IPv4",
        effect="the Service has no endpoints in the mesh",
        origin=service.origin,
    )


def _mismatch(
    service: ServiceObject, index: int, port: ServicePort, slices: Sequence[SliceObject]
) -> Problem | None:
    """Say so where endpoints exist but no slice has the port; without endpoints slices name no ports."""
    populated = [slice_ for slice_ in slices if slice_.endpoints]
    offered = {(target.name, target.protocol) for slice_ in populated for target in slice_.ports}
    if not populated or (port.name, port.protocol) in offered:
        return None
    names = ", ".join(sorted(f"{name or '(unnamed)'}/{protocol}" for name, protocol in offered)) or "none"
    return Problem(
        namespace=service.key.namespace,
        name=service.key.name,
        field=f"spec.ports[{index}].name",
        value=port.name,
        reason=f"no EndpointSlice has a port of this name and protocol ({port.protocol})",
        expected=f"the name of a port of its EndpointSlices: {names}",
        effect="the port has no endpoints",
        origin=service.origin,
    )
