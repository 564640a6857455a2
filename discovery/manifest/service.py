"""Reads a Service (v1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from discovery.annotations import ENABLED
from discovery.compat import PREFIXES, Compat, is_foreign, translate
from discovery.manifest.annotations import hold_too_much, read_annotations
from discovery.manifest.fields import LABEL, MAX_ADDRESSES, Fields
from discovery.model import ANNOTATION_PREFIX, ServiceKey, ServiceObject, ServicePort

SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
MAX_PORTS = 256
_OVERLONG = "those that were last in force stay so; if there are none, the Service is not meshed"


def read_service(fields: Fields, compat: Compat | None) -> ServiceObject | None:
    """Return the Service, or None if it has no usable name; with `compat` its foreign annotations count."""
    metadata = fields.identify(LABEL)
    if metadata is None:
        return None
    spec = fields.mapping(fields.document, "spec", "spec")
    service_type = fields.choice(spec, "type", "spec.type", SERVICE_TYPES, "ClusterIP")
    external = service_type == "ExternalName"
    written = fields.mapping(metadata, "annotations", "metadata.annotations")
    prefixes = (ANNOTATION_PREFIX, *(PREFIXES if compat is not None else ()))
    overlong = hold_too_much(fields, written, prefixes, _OVERLONG)
    if overlong:
        written = _without_most(written, compat)
    own, _ = read_annotations(fields, written, (ANNOTATION_PREFIX,))
    service = ServiceObject(
        key=ServiceKey(fields.namespace, fields.name),
        annotations=own,
        type=service_type,
        cluster_ips=() if external else _cluster_ips(fields, spec),
        external_name=_external_name(fields, spec) if external else "",
        ports=_ports(fields, spec),
        origin=fields.origin,
        uid=fields.text(metadata, "uid", "metadata.uid"),
        overlong=overlong,
        lines=fields.lines(),
    )
    if compat is not None:
        service = _translate(fields, service, *read_annotations(fields, written, PREFIXES))
    return service


def _without_most(written: Mapping[Any, Any], compat: Compat | None) -> Mapping[Any, Any]:
    """Return what is read of too many annotations: whether the mesh is wanted."""
    if ENABLED in written:
        return {ENABLED: written[ENABLED]}
    foreign = compat is not None and any(isinstance(name, str) and is_foreign(name) for name in written)
    return {ENABLED: "true"} if foreign else {}


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


def _cluster_ips(fields: Fields, spec: Mapping[str, Any]) -> tuple[str, ...]:
    items = fields.items(spec, "clusterIPs", "spec.clusterIPs")
    several = fields.first(items, MAX_ADDRESSES, "spec.clusterIPs", "ones")
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
    items = fields.first(fields.items(spec, "ports", "spec.ports"), MAX_PORTS, "spec.ports", "ports")
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
