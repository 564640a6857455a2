"""`--endpoints web.shop:http=127.0.0.1:8080`: endpoints from the command line, as if they were annotations.

They go before what is written in the files. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from discovery.annotations import ENDPOINTS, ENDPOINTS_OF_PORT
from discovery.bounds import MOST_PROBLEMS, bounded
from discovery.model import Problem, ServiceKey, ServiceObject, ServicePort

FLAG = "--endpoints"


class Override(msgspec.Struct, frozen=True):
    """One use of the flag."""

    service: ServiceKey
    port: str
    """Name or number; empty: the only TCP port."""
    places: str
    """As `svc.mesh/endpoints` has them; read already, and right."""

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{self.service.name}.{self.service.namespace}{port}={self.places}"


def override_service(service: ServiceObject, overrides: Iterable[Override]) -> ServiceObject:
    """Return the Service with the annotations that these of its overrides stand for, if it is meshed."""
    if not service.meshed:
        return service
    annotations = dict(service.annotations)
    for override in overrides:
        port = _port_of(service, override)
        if port is None:
            continue
        for selector in ("", f".{port.name}", f".{port.port}"):
            annotations.pop(f"{ENDPOINTS}{selector}", None)
        annotations[f"{ENDPOINTS_OF_PORT}{port.name or port.port}"] = override.places
    return msgspec.structs.replace(service, annotations=annotations)


def override_problems(
    overrides: Iterable[Override], services: Collection[ServiceObject]
) -> tuple[Problem, ...]:
    """Return what is wrong with overrides, given all Services that there are."""
    by_key = {service.key: service for service in services}
    found = []
    for override in overrides:
        service = by_key.get(override.service)
        if service is None:
            reason, expected = (
                f"there is no Service {override.service} in the files",
                _others(override, by_key),
            )
        elif not service.meshed:
            reason, expected = f"{override.service} is not in the mesh", 'svc.mesh/enabled: "true" on it'
        elif _port_of(service, override) is None:
            reason, expected = _why_no_port(service, override)
        else:
            continue
        found.append(_problem(override, reason, expected))
    return bounded(found)


def _port_of(service: ServiceObject, override: Override) -> ServicePort | None:
    ports = [port for port in service.ports if port.protocol == "TCP"]
    if not override.port:
        return ports[0] if len(ports) == 1 else None
    wanted = [port for port in ports if override.port in (port.name, str(port.port))]
    return wanted[0] if wanted else None


def _why_no_port(service: ServiceObject, override: Override) -> tuple[str, str]:
    names = [port.name or str(port.port) for port in service.ports if port.protocol == "TCP"]
    key, places = override.service, override.places
    if not names:
        return f"{key} has no TCP port", "a Service with one"
    forms = " or ".join(f"{key.name}.{key.namespace}:{name}={places}" for name in names[:MOST_PROBLEMS])
    if override.port:
        return f"{key} has no TCP port {override.port!r}", forms
    return f"{key} has {len(names)} TCP ports, and this says not which", forms


def _others(override: Override, services: Collection[ServiceKey]) -> str:
    """Return the names that may have been meant: the same in another namespace, else any."""
    alike = sorted(key for key in services if key.name == override.service.name) or sorted(services)
    named = ", ".join(f"{key.name}.{key.namespace}" for key in alike[:MOST_PROBLEMS])
    return f"NAME.NAMESPACE of a Service in the files: {named or 'there is none yet'}"


def _problem(override: Override, reason: str, expected: str) -> Problem:
    effect = "it is not used, and looked at again whenever the files change"
    return Problem("", FLAG, "", str(override), reason, expected, effect, "Flag")
