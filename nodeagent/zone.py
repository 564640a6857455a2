"""The DNS zone of a plan: every Service with a mesh address, its named ports as they are served here."""

from __future__ import annotations

from discovery.dns.zone import Zone, ZonePort, ZoneService
from nodeagent.config import Settings
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


def names_changed(old: NodePlan, new: NodePlan) -> bool:
    """Return whether the zones of two plans differ. Fast, and false for what changes most: endpoints."""
    before = old.services
    known = 0
    for key, plan in new.services.items():
        was = before.get(key)
        if was is None:
            if plan.address:
                return True
            continue
        known += 1
        if was is not plan and _zone_service(was) != _zone_service(plan):
            return True
    return known != len(before) and any(
        plan.address for key, plan in before.items() if key not in new.services
    )


def _zone_service(service: ServicePlan) -> ZoneService:
    key = service.source.key
    ports = tuple(
        ZonePort(route.port_name, "tcp", route.mesh_port) for route in service.routes if route.port_name
    )
    return ZoneService(key.namespace, key.name, service.address, ports)
