"""Joins one Service with its EndpointSlices, as Kubernetes means them.

A port of a slice belongs to the Service's port of the same name and protocol; its number may differ from
slice to slice. The mesh speaks IPv4 so far, so slices of other address types give no endpoints. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from socket import inet_aton

from discovery.annotations import says_endpoints
from discovery.bounds import MOST_PROBLEMS, bounded
from discovery.model import (
    Endpoint,
    NamespaceObject,
    Problem,
    Service,
    ServiceObject,
    ServicePort,
    SliceEndpoint,
    SliceObject,
)

MAX_ENDPOINTS = 20_000
"""Of one Service, all its ports together; each of its ports has an equal share of them."""

_Targets = Mapping[tuple[str, str], Sequence[tuple[SliceObject, int]]]
"""Slices and the number that a port has in each, by the port's name and protocol."""


def join_service(
    service: ServiceObject,
    slices: Sequence[SliceObject],
    problems: tuple[Problem, ...] = (),
    namespace: NamespaceObject | None = None,
) -> Service:
    """Return the Service with its endpoints; `problems` and what is wrong with the slices go along."""
    usable = [slice_ for slice_ in slices if slice_.address_type == "IPv4"]
    found = [*problems]
    if slices and not usable:
        found.append(_other_family(service, slices))
    targets = _targets(usable)
    offered = _targets([slice_ for slice_ in usable if slice_.endpoints]).keys()
    share = max(1, MAX_ENDPOINTS // max(1, len(service.ports)))
    endpoints = {}
    left_out = 0
    for index, port in enumerate(service.ports):
        endpoints[port.name], beyond = _join_port(port, targets, share)
        left_out += beyond
        # Without endpoints slices name no ports.
        missing = not endpoints[port.name] and not says_endpoints(port, service.annotations)
        if missing and offered and (port.name, port.protocol) not in offered:
            found.append(_mismatch(service, index, port, offered))
    if left_out:
        found.append(_too_many(service, left_out))
    return Service(service, endpoints, bounded(found), namespace)


def _targets(slices: Iterable[SliceObject]) -> _Targets:
    targets: defaultdict[tuple[str, str], list[tuple[SliceObject, int]]] = defaultdict(list)
    for slice_ in slices:
        for port in slice_.ports:
            targets[port.name, port.protocol].append((slice_, port.port))
    return targets


def _join_port(port: ServicePort, targets: _Targets, share: int) -> tuple[tuple[Endpoint, ...], int]:
    """Return the endpoints of a port, at most `share` as slices have them, and how many are left out."""
    merged: dict[tuple[bytes, int], Endpoint] = {}
    seen = 0
    for slice_, number in targets.get((port.name, port.protocol), ()):
        for endpoint in slice_.endpoints[: max(0, share - seen)]:
            place = (inet_aton(endpoint.address), number)
            new = _to_endpoint(endpoint, number)
            old = merged.get(place)
            if old is None or _preference(new) < _preference(old):
                merged[place] = new
        seen += len(slice_.endpoints)
    return tuple(merged[place] for place in sorted(merged)), max(0, seen - share)


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
    """The one that is ready first; the rest only makes the choice independent of the order.

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
    service: ServiceObject, index: int, port: ServicePort, offered: Iterable[tuple[str, str]]
) -> Problem:
    """Say that endpoints exist but no slice has the port."""
    shown = sorted(offered)[:MOST_PROBLEMS]
    names = ", ".join(f"{name or '(unnamed)'}/{protocol}" for name, protocol in shown) or "none"
    return Problem(
        namespace=service.key.namespace,
        name=service.key.name,
        field=f"spec.ports[{index}].name",
        value=port.name,
        reason=f"no EndpointSlice has a port of this name and protocol ({port.protocol})",
        expected=f"the name of a port of its EndpointSlices: {names}",
        effect="the port has no endpoints",
        origin=service.place(f"spec.ports[{index}].name"),
    )


def _too_many(service: ServiceObject, left_out: int) -> Problem:
    return Problem(
        namespace=service.key.namespace,
        name=service.key.name,
        field="EndpointSlice endpoints",
        value="",
        reason=f"there are more than the {MAX_ENDPOINTS:,} that are used of one Service",
        expected="fewer ports, or several Services",
        effect=f"{left_out:,} are left out",
        origin=service.origin,
    )
