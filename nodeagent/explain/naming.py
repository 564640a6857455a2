"""From a host and a port to the listener that a connection comes to, as the mesh's DNS has it."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

import dns.exception
import dns.name

from discovery.dns.index import TYPE_A, ZoneIndex
from discovery.model import ServiceKey
from nodeagent.explain.model import Unexplained
from nodeagent.plan.diff import ServiceChange
from nodeagent.plan.model import Listener, NodePlan, ServicePlan
from nodeagent.plan.zone import changed_zone, empty_zone
from nodeagent.settings import Settings


class Place(NamedTuple):
    """Where a connection comes to."""

    service: ServicePlan
    listener: Listener


def find_listener(plan: NodePlan, settings: Settings, host: str, port: int) -> Place:
    """Return the listener of a host, which is a mesh name or a mesh address, and a port.

    Raises:
        Unexplained: there is none; the message says what is wrong.
    """
    service = _service_of(plan, settings, host.lower().removesuffix("."))
    key = service.source.key
    listener = next((one for one in service.listeners if one.mesh_port == port), None)
    if listener is None:
        ports = ", ".join(str(one.mesh_port) for one in service.listeners) or "none"
        why = "".join(f"; {one.field} {one.reason}" for one in service.problems if "spec.ports" in one.field)
        raise Unexplained(f"{key} has no port {port} in the mesh; it has {ports}{why}")
    return Place(service, listener)


def _service_of(plan: NodePlan, settings: Settings, host: str) -> ServicePlan:
    try:
        address = str(ipaddress.IPv4Address(host))
    except ValueError:
        return _service_named(plan, settings, host)
    if ipaddress.ip_address(address) not in ipaddress.ip_network(settings.mesh_range):
        raise Unexplained(f"{address} is no mesh address: connections to it do not pass through the mesh")
    found = next((one for one in plan.services.values() if one.address == address), None)
    if found is None:
        raise Unexplained(f"{address} is in the mesh range {settings.mesh_range}, and no Service has it")
    return found


def _service_named(plan: NodePlan, settings: Settings, host: str) -> ServicePlan:
    zones = (settings.zone, *settings.alias_zones)
    zone = next((one for one in zones if host == one or host.endswith(f".{one}")), None)
    if zone is None:
        raise Unexplained(
            f"{host} is not a name of the mesh, whose zones are {', '.join(zones)}: requests to it do not "
            f"pass through the mesh. A mesh name is SERVICE.NAMESPACE.{zones[0]}"
        )
    labels = host.removesuffix(zone).rstrip(".").split(".")
    if len(labels) != 2 or not all(labels):
        raise Unexplained(f"{host} is not the name of a Service: that is SERVICE.NAMESPACE.{zone}")
    key = ServiceKey(labels[1], labels[0])
    service = plan.services.get(key)
    if service is None:
        raise Unexplained(
            f'{key} is not in the mesh: there is no such Service, or it has no svc.mesh/enabled: "true"'
        )
    if not service.address:
        why = "; ".join(f"{one.field} {one.value} {one.reason}".strip() for one in service.problems)
        raise Unexplained(f"{key} is not meshed: {why}")
    if _resolve(settings, service, host) != service.address:
        raise Unexplained(f"the mesh's DNS does not answer for {host}: the name is reserved or too long")
    return service


def _resolve(settings: Settings, service: ServicePlan, host: str) -> str:
    """Return what the mesh's DNS answers; empty: nothing."""
    zone, _ = changed_zone(empty_zone(settings), [ServiceChange(service.source.key, None, service)])
    try:
        found = ZoneIndex(zone).find(dns.name.from_text(host).to_digestable())
    except (ValueError, dns.exception.DNSException):
        return ""
    packed = found.records.get(TYPE_A) if found is not None and found.records is not None else None
    return str(ipaddress.IPv4Address(packed)) if packed is not None else ""
