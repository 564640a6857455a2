"""The routes of one Service: which of its ports are carried, how, and to which endpoints.

Upstreams are the ready endpoints. If none is ready, those that still serve while they terminate are used, as
kube-proxy does, so that a Service of a single replica is not cut while it is rolled. Only IPv4 endpoints are
carried; one inside the mesh range would send connections in a circle and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from discovery.annotations import protocol_of
from discovery.model import Problem, Service, ServiceObject, ServicePort
from nodeagent.plan.addresses import AddressRange, parse_ipv4
from nodeagent.plan.effective import Resolution
from nodeagent.plan.model import LayerSpec, Protocol, Route, Upstream
from nodeagent.plan.problems import service_problem
from nodeagent.settings import LOW_PORT_SHIFT, Settings

MAX_PORT = 65535


def compile_routes(
    service: Service, address: str, resolution: Resolution, settings: Settings, addresses: AddressRange
) -> tuple[tuple[Route, ...], list[Problem]]:
    """Return the routes of a Service at its mesh address, in the order of its ports, and the problems."""
    problems: list[Problem] = []
    carried = _carried_ports(service.object, settings, problems)
    upstreams_of_name: dict[str, tuple[Upstream, ...]] = {}
    routes = []
    for port, mesh_port in carried:
        upstreams = upstreams_of_name.get(port.name)
        if upstreams is None:
            upstreams = _select_upstreams(service, port, addresses, problems)
            upstreams_of_name[port.name] = upstreams
        protocol: Protocol = protocol_of(port, resolution.annotations)
        layers: tuple[LayerSpec, ...] = resolution.layers if protocol == "http" else ()
        routes.append(
            Route(service.key, port.name, address, port.port, mesh_port, protocol, upstreams, layers)
        )
    return tuple(routes), problems


def _carried_ports(
    service: ServiceObject, settings: Settings, problems: list[Problem]
) -> list[tuple[ServicePort, int]]:
    """Return the TCP ports with the port of each at the mesh address; the others are reported."""
    carried: list[tuple[ServicePort, int]] = []
    taken = {p.port for p in service.ports if p.protocol == "TCP" and p.port >= settings.first_bindable_port}
    seen: set[int] = set()
    for index, port in enumerate(service.ports):
        field = f"spec.ports[{index}]"
        if port.protocol != "TCP":
            reason = f"{port.protocol} is not carried yet"
            expected = "a TCP port"
            effect = f"port {_label(port)} has no mesh address; the rest of the Service has"
            problems.append(
                service_problem(service, f"{field}.protocol", port.protocol, reason, expected, effect, "info")
            )
            continue
        mesh_port = port.port
        reason = ""
        if port.port in seen:
            reason = "stands twice in this Service"
        elif port.port < settings.first_bindable_port:
            mesh_port += LOW_PORT_SHIFT
            if mesh_port in taken or mesh_port > MAX_PORT:
                reason = f"needs privileges here, and {mesh_port}, which is used instead, is not free"
        seen.add(port.port)
        if reason:
            effect = f"port {_label(port)} is not served"
            problems.append(
                service_problem(service, f"{field}.port", str(port.port), reason, "a port of its own", effect)
            )
        else:
            carried.append((port, mesh_port))
    return carried


def _label(port: ServicePort) -> str:
    return f"{port.name} ({port.port}/{port.protocol})" if port.name else f"{port.port}/{port.protocol}"


def _select_upstreams(
    service: Service, port: ServicePort, addresses: AddressRange, problems: list[Problem]
) -> tuple[Upstream, ...]:
    endpoints = service.endpoints.get(port.name, ())
    usable = [e for e in endpoints if e.ready] or [e for e in endpoints if e.serving and e.terminating]
    upstreams: list[Upstream] = []
    circular: list[str] = []
    foreign: list[str] = []
    for endpoint in usable:
        number = parse_ipv4(endpoint.address)
        if number is None:
            foreign.append(endpoint.address)
        elif addresses.contains(number):
            circular.append(endpoint.address)
        else:
            upstreams.append(Upstream(endpoint.address, endpoint.port, endpoint.pod))
    if circular:
        reason = "lies in the mesh range: connections to it would come back to the mesh"
        problems.append(_endpoint_problem(service, port, circular, reason, bool(upstreams)))
    if foreign and not upstreams:
        reason = "is not an IPv4 address, and the mesh carries no other yet"
        problems.append(_endpoint_problem(service, port, foreign, reason, remaining=False))
    return tuple(upstreams)


def _endpoint_problem(
    service: Service, port: ServicePort, bad: Sequence[str], reason: str, remaining: bool
) -> Problem:
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    effect = (
        "it is left out" if remaining else f"port {_label(port)} has no endpoint: 503, or refused for tcp"
    )
    return service_problem(
        service.object,
        f"endpoints[{port.name or port.port}]",
        bad[0] + more,
        reason,
        "an IPv4 address outside the mesh range",
        effect,
    )
