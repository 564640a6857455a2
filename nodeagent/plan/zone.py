"""The DNS zone of a plan: every Service with a mesh address, its named ports as they are served here."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from discovery.dns.zone import Zone, ZonePort, ZoneService
from discovery.model import ServiceKey
from nodeagent.plan.diff import ServiceChange
from nodeagent.plan.model import ServicePlan
from nodeagent.settings import Settings


def empty_zone(settings: Settings) -> Zone:
    """Return the zone before there is a plan."""
    loopback = settings.capture == "loopback"
    return Zone(
        origin=settings.zone,
        aliases=settings.alias_zones,
        serial=1,
        network=settings.mesh_range,
        nameserver=settings.dns_listen[0] if loopback else settings.dns_address,
        services={},
    )


def changed_zone(zone: Zone, changed: Iterable[ServiceChange]) -> tuple[Zone, set[ServiceKey]]:
    """Return the zone that has the changed Services as they are now, and those whose names differ in it.

    Endpoints, which change most, are no part of a zone: if names stay the same it is `zone` itself.
    """
    now = {change.key: _names(change.new) for change in changed}
    differ = {key: names for key, names in now.items() if names != zone.services.get(key)}
    if differ:
        services = dict(zone.services)
        for key, names in differ.items():
            if names is not None:
                services[key] = names
            else:
                del services[key]
        zone = msgspec.structs.replace(zone, serial=zone.serial + 1, services=services)
    return zone, set(differ)


def departures(changed: Iterable[ServiceChange]) -> list[ServiceChange]:
    """Return the changes that leave it at taking those out of the zone whose address is theirs no more."""
    return [
        change._replace(new=None)
        for change in changed
        if change.old is not None
        and change.old.address
        and (change.new is None or change.new.address != change.old.address)
    ]


def _names(service: ServicePlan | None) -> ZoneService | None:
    if service is None or not service.address:
        return None
    key = service.source.key
    ports = tuple(
        ZonePort(listener.port_name, "tcp", listener.mesh_port)
        for listener in service.listeners
        if listener.port_name
    )
    return ZoneService(key.namespace, key.name, service.address, ports)
