"""Reads an EndpointSlice (discovery.k8s.io/v1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from discovery.address import canonical_address, is_unicast
from discovery.manifest.fields import LABEL, SUBDOMAIN, Fields, show
from discovery.model import ServiceKey, SliceEndpoint, SliceKey, SliceObject, SlicePort

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
ADDRESS_TYPES = ("IPv4", "IPv6", "FQDN")
MAX_SLICE_ENDPOINTS = 1000
"""Kubernetes takes no more in one slice."""
MAX_SLICE_PORTS = 256
MAX_HINTS = 8
"""Kubernetes takes no more for one endpoint."""


def read_slice(fields: Fields, version: str) -> SliceObject | None:
    """Return the slice, or None if it cannot be used at all; `version` is its `apiVersion`."""
    metadata = fields.identify(SUBDOMAIN)
    if metadata is None:
        return None
    left_out = "the slice is left out"
    if version != "discovery.k8s.io/v1":
        fields.report("apiVersion", version, "is no longer served", "discovery.k8s.io/v1", left_out)
        return None
    labels = fields.mapping(metadata, "labels", "metadata.labels")
    service = labels.get(SERVICE_NAME_LABEL)
    if not isinstance(service, str) or not LABEL.fullmatch(service):
        reason = "is missing" if service is None else "is not the name of a Service"
        field = f"metadata.labels[{SERVICE_NAME_LABEL}]"
        fields.report(field, service, reason, "the name of the Service it belongs to", left_out)
        return None
    address_type = fields.document.get("addressType")
    if address_type not in ADDRESS_TYPES:
        reason = "is missing" if address_type is None else "is not an address type"
        fields.report("addressType", address_type, reason, "IPv4", left_out)
        return None
    return SliceObject(
        key=SliceKey(fields.namespace, fields.name),
        service=ServiceKey(fields.namespace, service),
        address_type=address_type,
        ports=_ports(fields),
        endpoints=tuple(_endpoints(fields, address_type)),
        origin=fields.origin,
        lines=fields.lines(),
    )


def _ports(fields: Fields) -> tuple[SlicePort, ...]:
    ports: dict[str, SlicePort] = {}
    items = fields.items(fields.document, "ports", "ports")
    for field, item in fields.mappings(fields.first(items, MAX_SLICE_PORTS, "ports", "ports"), "ports"):
        read = fields.port(item, field)
        if read is None:
            continue
        if read[0] in ports:
            fields.report(f"{field}.name", read[0], "is used twice", "another name", "the port is left out")
        else:
            ports[read[0]] = SlicePort(*read)
    return tuple(ports.values())


def _endpoints(fields: Fields, address_type: str) -> Iterator[SliceEndpoint]:
    items = fields.items(fields.document, "endpoints", "endpoints")
    items = fields.first(items, MAX_SLICE_ENDPOINTS, "endpoints", "endpoints")
    for field, item in fields.mappings(items, "endpoints"):
        address = _endpoint_address(fields, item, field, address_type)
        if address is None:
            continue
        ready, serving, terminating = _conditions(fields, item, field)
        yield SliceEndpoint(
            address=address,
            ready=ready,
            serving=serving,
            terminating=terminating,
            zone=fields.text(item, "zone", f"{field}.zone"),
            hints=_hints(fields, item, field) if "hints" in item else (),
            node=fields.text(item, "nodeName", f"{field}.nodeName"),
            pod=_pod_name(fields, item, field) if "targetRef" in item else "",
        )


def _endpoint_address(fields: Fields, item: Mapping[str, Any], field: str, address_type: str) -> str | None:
    """Only the first address has a meaning (Kubernetes API reference, `Endpoint.addresses`)."""
    addresses = fields.items(item, "addresses", f"{field}.addresses")
    left_out = "the endpoint is left out"
    if not addresses:
        fields.report(f"{field}.addresses", None, "is empty", "one address", left_out)
        return None
    value = addresses[0]
    if address_type == "FQDN":
        if isinstance(value, str) and value:
            return value.removesuffix(".").lower()
        usable, reason = None, "is not a host name"
    else:
        usable = canonical_address(value, address_type)
        reason = f"is not an {address_type} address"
        if usable is not None and not is_unicast(usable):
            usable, reason = None, "is not the address of one host"
    if usable is None:
        fields.report(f"{field}.addresses[0]", value, reason, "", left_out)
    return usable


def _conditions(fields: Fields, item: Mapping[str, Any], field: str) -> tuple[bool, bool, bool]:
    """Read ready, serving and terminating. An unreadable condition takes the endpoint out of use."""
    if item.get("conditions") is None:
        return True, True, False
    path = f"{field}.conditions"
    conditions = fields.mapping(item, "conditions", path)
    ready = _condition(fields, conditions, "ready", path, absent=True, unreadable=False)
    serving = _condition(fields, conditions, "serving", path, absent=ready, unreadable=False)
    terminating = _condition(fields, conditions, "terminating", path, absent=False, unreadable=True)
    return ready, serving, terminating


def _condition(
    fields: Fields, conditions: Mapping[str, Any], name: str, path: str, *, absent: bool, unreadable: bool
) -> bool:
    value = conditions.get(name)
    if value is None:
        return absent
    if isinstance(value, bool):
        return value
    effect = f"it counts as {show(unreadable)}"
    fields.report(f"{path}.{name}", value, "is not a boolean", "true or false", effect)
    return unreadable


def _hints(fields: Fields, item: Mapping[str, Any], field: str) -> tuple[str, ...]:
    hints = fields.mapping(item, "hints", f"{field}.hints")
    path = f"{field}.hints.forZones"
    items = fields.first(fields.items(hints, "forZones", path), MAX_HINTS, path, "zones")
    zones = fields.mappings(items, path)
    return tuple(name for at, zone in zones if (name := fields.text(zone, "name", f"{at}.name")))


def _pod_name(fields: Fields, item: Mapping[str, Any], field: str) -> str:
    reference = fields.mapping(item, "targetRef", f"{field}.targetRef")
    if reference.get("kind") != "Pod":
        return ""
    return fields.text(reference, "name", f"{field}.targetRef.name")
