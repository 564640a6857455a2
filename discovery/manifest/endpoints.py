"""Reads Endpoints (v1), which EndpointSlices have replaced: of files only, where people still have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from discovery.address import canonical_address, is_unicast
from discovery.manifest.fields import SUBDOMAIN, Fields
from discovery.manifest.written import EndpointsKey, WrittenEndpoints
from discovery.model import ServiceKey, SliceEndpoint, SliceKey, SliceObject, SlicePort

MAX_ADDRESSES = 1000
"""Kubernetes puts no more into one Endpoints object."""
MAX_SUBSETS = 256
MAX_PORTS = 256
_LISTS = (("addresses", True), ("notReadyAddresses", False))


def read_endpoints(fields: Fields) -> WrittenEndpoints | None:
    """Return what an Endpoints object means, or None if it has no usable name."""
    if fields.identify(SUBDOMAIN) is None:
        return None
    slices: list[SliceObject] = []
    subsets = fields.items(fields.document, "subsets", "subsets")
    for field, subset in fields.mappings(fields.first(subsets, MAX_SUBSETS, "subsets", "ones"), "subsets"):
        slices += _read_subset(fields, subset, field)
    key = EndpointsKey(fields.namespace, fields.name)
    return WrittenEndpoints(key, tuple(slices), fields.origin, fields.lines())


def _read_subset(fields: Fields, subset: Mapping[str, Any], field: str) -> Iterator[SliceObject]:
    """Yield one slice for each address family of a subset."""
    ports = tuple(_ports(fields, subset, f"{field}.ports"))
    by_family: dict[str, list[SliceEndpoint]] = {}
    for name, ready in _LISTS:
        path = f"{field}.{name}"
        items = fields.first(fields.items(subset, name, path), MAX_ADDRESSES, path, "addresses")
        for at, item in fields.mappings(items, path):
            address = canonical_address(item.get("ip"))
            if address is None or not is_unicast(address):
                reason = "is not an IP address" if address is None else "is not the address of one host"
                fields.report(f"{at}.ip", item.get("ip"), reason, "10.1.2.3", "the endpoint is left out")
                continue
            node = fields.text(item, "nodeName", f"{at}.nodeName")
            family = "IPv6" if ":" in address else "IPv4"
            endpoint = SliceEndpoint(address, ready, ready, node=node, pod=_pod_name(fields, item, at))
            by_family.setdefault(family, []).append(endpoint)
    for family, endpoints in by_family.items():
        yield SliceObject(
            # No object has such a name: it has a slash.
            key=SliceKey(fields.namespace, f"{fields.name}/{field}/{family}"),
            service=ServiceKey(fields.namespace, fields.name),
            address_type=family,
            ports=ports,
            endpoints=tuple(endpoints),
            origin=fields.origin,
            lines=fields.lines(),
        )


def _ports(fields: Fields, subset: Mapping[str, Any], path: str) -> Iterator[SlicePort]:
    items = fields.first(fields.items(subset, "ports", path), MAX_PORTS, path, "ports")
    names: set[str] = set()
    for at, item in fields.mappings(items, path):
        read = fields.port(item, at)
        if read is None:
            continue
        if read[0] in names:
            fields.report(f"{at}.name", read[0], "is used twice", "another name", "the port is left out")
            continue
        names.add(read[0])
        yield SlicePort(*read)


def _pod_name(fields: Fields, item: Mapping[str, Any], at: str) -> str:
    reference = fields.mapping(item, "targetRef", f"{at}.targetRef")
    return fields.text(reference, "name", f"{at}.targetRef.name") if reference.get("kind") == "Pod" else ""
