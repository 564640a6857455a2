"""Reads a Service (v1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from discovery.compat import PREFIXES, Compat, translate
from discovery.manifest.fields import LABEL, Fields, describe_type, show
from discovery.model import ANNOTATION_PREFIX, ServiceKey, ServiceObject, ServicePort

SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")


def read_service(fields: Fields, compat: Compat | None) -> ServiceObject | None:
    """Return the Service, or None if it has no usable name; with `compat` its foreign annotations count."""
    metadata = fields.identify(LABEL)
    if metadata is None:
        return None
    spec = fields.mapping(fields.document, "spec", "spec")
    service_type = fields.choice(spec, "type", "spec.type", SERVICE_TYPES, "ClusterIP")
    external = service_type == "ExternalName"
    written = fields.mapping(metadata, "annotations", "metadata.annotations")
    own, _ = _annotations(fields, written, (ANNOTATION_PREFIX,))
    service = ServiceObject(
        key=ServiceKey(fields.namespace, fields.name),
        annotations=own,
        type=service_type,
        cluster_ips=() if external else _cluster_ips(fields, spec),
        external_name=_external_name(fields, spec) if external else "",
        ports=_ports(fields, spec),
        origin=fields.origin,
        uid=fields.text(metadata, "uid", "metadata.uid"),
    )
    if compat is not None:
        service = _translate(fields, service, *_annotations(fields, written, PREFIXES))
    return service


def _translate(
    fields: Fields, service: ServiceObject, foreign: Mapping[str, str], unreadable: Mapping[str, str]
) -> ServiceObject:
    if not foreign:
        return service
    translation = translate({**foreign, **service.annotations}, unreadable)
    for note in translation.notes:
        fields.report(
            note.annotation, note.value, note.reason, note.expected, note.effect, severity=note.severity
        )
    return msgspec.structs.replace(
        service,
        annotations=translation.annotations,
        foreign=foreign,
        translated=translation.origins,
        unread=translation.unread,
    )


def _annotations(
    fields: Fields, written: Mapping[Any, Any], prefixes: tuple[str, ...]
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the annotations below these prefixes, and those that are no strings with what stands there."""
    kept: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for name, value in written.items():
        if not isinstance(name, str) or not name.startswith(prefixes):
            continue
        if isinstance(value, str):
            kept[name] = value
            continue
        unreadable[name] = show(value)
        quoted = isinstance(value, bool | int | float)
        expected = f'"{show(value)}", in quotes' if quoted else "a string"
        reason = f"is {describe_type(value)}, and Kubernetes takes only strings"
        fields.report(name, value, reason, expected, "the annotation is ignored")
    return kept, unreadable


def _cluster_ips(fields: Fields, spec: Mapping[str, Any]) -> tuple[str, ...]:
    several = fields.items(spec, "clusterIPs", "spec.clusterIPs")
    found = [(f"spec.clusterIPs[{i}]", value) for i, value in enumerate(several)]
    if not found and spec.get("clusterIP") is not None:
        found = [("spec.clusterIP", spec["clusterIP"])]
    return fields.addresses((one for one in found if one[1] not in ("None", "")), example="10.96.0.10")


def _external_name(fields: Fields, spec: Mapping[str, Any]) -> str:
    name = fields.text(spec, "externalName", "spec.externalName")
    if not name and spec.get("externalName") in (None, ""):
        fields.report("spec.externalName", None, "is missing", "db.example.com", "it leads nowhere")
    return name.removesuffix(".")


def _ports(fields: Fields, spec: Mapping[str, Any]) -> tuple[ServicePort, ...]:
    items = fields.items(spec, "ports", "spec.ports")
    ports: list[ServicePort] = []
    names: set[str] = set()
    numbers: set[tuple[int, str]] = set()
    for field, item in fields.mappings(items, "spec.ports"):
        read = fields.port(item, field)
        if read is None:
            continue
        name, number, protocol = read
        if not name and len(items) > 1:
            reason = "is missing, and a Service with several ports must name them"
            fields.report(f"{field}.name", None, reason, "http", "the port is left out")
        elif name in names:
            fields.report(f"{field}.name", name, "is used twice", "another name", "the port is left out")
        elif (number, protocol) in numbers:
            fields.report(
                f"{field}.port", number, f"is used twice for {protocol}", "", "the port is left out"
            )
        else:
            names.add(name)
            numbers.add((number, protocol))
            app_protocol = fields.text(item, "appProtocol", f"{field}.appProtocol")
            ports.append(ServicePort(name, number, protocol, app_protocol))
    return tuple(ports)
