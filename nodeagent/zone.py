"""The DNS zone of a plan: every Service with a mesh address, its named ports as they are served here."""

from __future__ import annotations

from collections.abc import Iterable

from discovery.dns.zone import Zone, ZonePort, ZoneService
from discovery.model import ServiceKey
from nodeagent.config import Settings
from nodeagent.delta import ServiceChange
from nodeagent.plan import NodePlan, ServicePlan


def zone_of(plan: NodePlan, settings: Settings, serial: int) -> Zone:
    """Return the zone that makes every name of the plan resolvable, and no other."""
    services = {
        (key.namespace, key.name): _zone_service(service)
        for key, service in plan.services.items()
        if service.address
    }
    loopback = settings.capture == "loopback"
    return Zone(
        origin=settings.zone,
        aliases=settings.alias_zones,
        serial=serial,
        network=settings.mesh_range,
        nameserver=settings.dns_listen[0] if loopback else settings.dns_address,
        services=services,
    )


def names_changed(changed: Iterable[ServiceChange]) -> bool:
    """Return whether these changes are any to the zone: false for what changes most, endpoints."""
    return any(_name(was) != _name(now) for was, now in changed)


def services_gone(changed: Iterable[ServiceChange]) -> set[ServiceKey]:
    """Return the Services whose address is not theirs any more: they leave the zone ahead of all else."""
    return {
        was.source.key
        for was, now in changed
        if was is not None and was.address and (now is None or now.address != was.address)
    }


def _name(service: ServicePlan | None) -> ZoneService | None:
    return _zone_service(service) if service is not None and service.address else None


def _zone_service(service: ServicePlan) -> ZoneService:
    key = service.source.key
    ports = tuple(
        ZonePort(route.port_name, "tcp", route.mesh_port) for route in service.routes if route.port_name
    )
    return ZoneService(key.namespace, key.name, service.address, ports)
