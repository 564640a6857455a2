"""Finds values in a stored snapshot that have the right types, but that no source ever yields and nobody can
serve.

Types are checked where the bytes are read. This is about what all readers of a source guarantee and all later
code relies on: names that are valid in DNS, ports from 1 to 65535, addresses in canonical form. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from discovery.address import canonical_address
from discovery.manifest.fields import LABEL, SUBDOMAIN
from discovery.model import NamespaceObject, PodObject, Service

LARGEST_VERSION = 2**53 - 1
"""The largest version of a snapshot: all programs that read JSON can tell it from its neighbours (RFC 8259
section 6)."""


def why_no_head(version: int, written: float) -> str:
    """Return why a snapshot cannot be of this version and time; empty if it can."""
    if not 0 <= version <= LARGEST_VERSION:
        return f"its version is {version}"
    return "" if math.isfinite(written) else f"it was written at {written}"


def why_no_service(service: Service) -> str:
    """Return why no source yields such a Service; empty if one may."""
    key = service.key
    for name in key:
        if not LABEL.fullmatch(name):
            return f"{name!r} is not the name of a Service or namespace"
    for port in _ports(service):
        if not 1 <= port <= 65535:
            return f"{key} has the port {port}"
    for name in service.endpoints:
        if name and not LABEL.fullmatch(name):
            return f"{key} has endpoints of a port {name!r}"
    if service.namespace is not None and service.namespace.key.name != key.namespace:
        return f"{key} is said to be in the Namespace {service.namespace.key.name!r}"
    addresses = (endpoint.address for endpoints in service.endpoints.values() for endpoint in endpoints)
    wrong = _first_wrong(addresses, "IPv4") or _first_wrong(service.object.cluster_ips, "")
    return f"{key} has the address {wrong!r}" if wrong is not None else ""


def why_no_pod(address: str, pod: PodObject) -> str:
    """Return why no source yields that this pod has this address; empty if one may."""
    if not (LABEL.fullmatch(pod.key.namespace) and SUBDOMAIN.fullmatch(pod.key.name)):
        return f"{'/'.join(pod.key)!r} is not the name of a Pod"
    return f"a Pod has the address {address!r}" if canonical_address(address) != address else ""


def why_no_namespace(namespace: NamespaceObject) -> str:
    """Return why no source yields such a Namespace; empty if one may."""
    name = namespace.key.name
    return "" if LABEL.fullmatch(name) else f"{name!r} is not the name of a Namespace"


def _ports(service: Service) -> Iterator[int]:
    for port in service.object.ports:
        yield port.port
    for endpoints in service.endpoints.values():
        for endpoint in endpoints:
            yield endpoint.port


def _first_wrong(addresses: Iterable[str], address_type: str) -> str | None:
    return next((one for one in addresses if canonical_address(one, address_type) != one), None)
