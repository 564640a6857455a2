"""What is read of objects in files alone: there, nobody else has worked out which endpoints a Service has.

In a cluster controllers make EndpointSlices of selectors, Pods and Endpoints, and the mesh reads those. The
types extend what the mesh knows of such an object by what `discovery.files.backing` needs to do the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from discovery.address import canonical_address, is_unicast
from discovery.manifest.fields import LABEL, SUBDOMAIN, Fields, describe_type
from discovery.model import PodObject, ServiceObject, ServicePort, SliceObject
from discovery.position import Lines

WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"})
"""Kinds of `apps` that make Pods."""
MAX_CONTAINER_PORTS = 256
MAX_LABELS = 256


class EndpointsKey(NamedTuple):
    """The identity of an Endpoints object: that of its Service."""

    namespace: str
    name: str


class WorkloadKey(NamedTuple):
    """The identity of what makes Pods."""

    namespace: str
    name: str
    kind: str


class WrittenService(ServiceObject, frozen=True):
    """A Service in a file."""

    selector: Mapping[str, str] = {}
    targets: Mapping[str, int | str] = {}
    """By the name of the port: where Pods listen, as a number or the name of a container's port."""
    publishes_not_ready: bool = False


class ContainerPort(NamedTuple):
    """A named port of a Pod."""

    name: str
    port: int
    protocol: str


class WrittenPod(PodObject, frozen=True):
    """A Pod in a file."""

    labels: Mapping[str, str] = {}
    address: str = ""
    """Where it serves; it may be its node's."""
    ports: tuple[ContainerPort, ...] = ()
    ready: bool = True
    terminating: bool = False
    node: str = ""


class WrittenEndpoints(msgspec.Struct, frozen=True):
    """An Endpoints object (v1), as the EndpointSlices that it means."""

    key: EndpointsKey
    slices: tuple[SliceObject, ...] = ()
    origin: str = ""
    lines: Lines = ()


class WrittenWorkload(msgspec.Struct, frozen=True):
    """A Deployment or the like: its Pods exist in a cluster only."""

    key: WorkloadKey
    labels: Mapping[str, str] = {}
    """Of its Pods."""
    origin: str = ""
    lines: Lines = ()


FileOnly = WrittenEndpoints | WrittenWorkload
"""What is no object of the mesh."""
FileOnlyKey = EndpointsKey | WorkloadKey


def extend_service(fields: Fields, found: ServiceObject) -> WrittenService:
    """Return a Service that was read, with its selector and where its Pods listen."""
    spec = fields.mapping(fields.document, "spec", "spec")
    return WrittenService(
        **_fields_of(found),
        selector=_labels(fields, spec, "selector", "spec.selector"),
        targets=dict(_targets(fields, spec, found.ports)),
        publishes_not_ready=spec.get("publishNotReadyAddresses") is True,
    )


def extend_pod(fields: Fields, found: PodObject) -> WrittenPod:
    """Return a Pod that was read, with all that makes it an endpoint."""
    metadata = fields.mapping(fields.document, "metadata", "metadata")
    spec = fields.mapping(fields.document, "spec", "spec")
    status = fields.mapping(fields.document, "status", "status")
    phase = status.get("phase")
    return WrittenPod(
        **_fields_of(found),
        labels=_labels(fields, metadata, "labels", "metadata.labels"),
        address="" if phase in ("Succeeded", "Failed") else _first_ipv4(status),
        ports=tuple(_container_ports(fields, spec)),
        ready=_is_ready(fields, status, phase),
        terminating=metadata.get("deletionTimestamp") is not None,
        node=fields.text(spec, "nodeName", "spec.nodeName"),
    )


def read_workload(
    document: Mapping[str, Any], kind: str, origin: str, lines: Lines
) -> WrittenWorkload | None:
    """Return what makes Pods with these labels, None without a name; nothing of it is judged."""
    metadata, labels = document.get("metadata"), _at(document, "spec", "template", "metadata", "labels")
    name = _at(metadata, "name")
    namespace = _at(metadata, "namespace") or "default"
    if not (isinstance(name, str) and isinstance(namespace, str)):
        return None
    if not (SUBDOMAIN.fullmatch(name) and LABEL.fullmatch(namespace)):
        return None
    key = WorkloadKey(namespace, name, kind)
    return WrittenWorkload(key, _text_pairs(labels), origin, lines)


def _fields_of(found: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__struct_fields__}


def _at(value: object, *path: str) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _text_pairs(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    pairs = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, str)}
    return dict(list(pairs.items())[:MAX_LABELS])


def _labels(fields: Fields, parent: Mapping[str, Any], name: str, field: str) -> Mapping[str, str]:
    written = fields.mapping(parent, name, field)
    for label, value in written.items():
        if not isinstance(value, str):
            reason = f"is {describe_type(value)}, and Kubernetes takes only strings"
            fields.report(f"{field}[{label}]", value, reason, "a string, in quotes", "the label is ignored")
    return _text_pairs(written)


def _targets(
    fields: Fields, spec: Mapping[str, Any], ports: tuple[ServicePort, ...]
) -> Iterator[tuple[str, int | str]]:
    known = {(port.name, port.port) for port in ports}
    items = spec.get("ports")
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if not isinstance(item, Mapping):
            continue
        name, number, target = item.get("name") or "", item.get("port"), item.get("targetPort")
        if not isinstance(number, int) or (name, number) not in known:
            continue  # the port was left out
        known.discard((name, number))
        if target in (None, 0, ""):
            yield name, number
        elif _is_target(target):
            yield name, target
        else:
            expected = "a number from 1 to 65535, or the name of a container's port"
            field, effect = f"spec.ports[{index}].targetPort", f"{number} is in force"
            fields.report(field, target, "is no port", expected, effect)
            yield name, number


def _is_target(target: object) -> bool:
    if isinstance(target, str):
        return LABEL.fullmatch(target) is not None and not target.isdecimal()
    return isinstance(target, int) and not isinstance(target, bool) and 1 <= target <= 65535


def _container_ports(fields: Fields, spec: Mapping[str, Any]) -> Iterator[ContainerPort]:
    """Yield the named ports; a name that no port has is told where a Service asks for it."""
    found = 0
    for container in fields.items(spec, "containers", "spec.containers"):
        ports = container.get("ports") if isinstance(container, Mapping) else None
        for port in ports if isinstance(ports, list) else ():
            name, number = _at(port, "name"), _at(port, "containerPort")
            if isinstance(name, str) and isinstance(number, int) and 1 <= number <= 65535:
                yield ContainerPort(name, number, str(_at(port, "protocol") or "TCP"))
                found += 1
                if found == MAX_CONTAINER_PORTS:
                    return


def _first_ipv4(status: Mapping[str, Any]) -> str:
    """Return the first IPv4 address; what is wrong with the others was reported when the Pod was read."""
    several = status.get("podIPs")
    written = [_at(item, "ip") for item in several] if isinstance(several, list) else []
    for value in [*written, status.get("podIP")]:
        address = canonical_address(value, "IPv4")
        if address is not None and is_unicast(address):
            return address
    return ""


def _is_ready(fields: Fields, status: Mapping[str, Any], phase: object) -> bool:
    """Whether the Pod says that it is ready; one that says nothing at all was written by hand, and is."""
    conditions = fields.items(status, "conditions", "status.conditions")
    said = [_at(one, "status") for one in conditions if _at(one, "type") == "Ready"]
    return said[-1] == "True" if said else phase in (None, "", "Running")
