"""The listeners and backends of one Service: which of its ports are carried, how, and to which endpoints.

A backend has the ready endpoints. If none is ready, those that still serve while they terminate are used, as
kube-proxy does, so that a Service of a single replica is not cut while it is rolled. Only IPv4 endpoints are
carried; one inside the mesh range would send connections in a circle and is refused. The endpoints that an
annotation gives a port take the place of all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from discovery.annotations import (
    declared_endpoints,
    endpoints_annotation,
    protocol_of,
    upstream_protocol_of,
)
from discovery.bounds import MOST_PROBLEMS
from discovery.model import Endpoint, Problem, Service, ServiceKey, ServiceObject, ServicePort, Unbacked
from middleware.contract import Middleware
from nodeagent.plan.addresses import AddressRange, parse_ipv4
from nodeagent.plan.effective import Resolution
from nodeagent.plan.failover import FAILOVER
from nodeagent.plan.model import (
    BackendKey,
    BackendSpec,
    LayerSpec,
    Listener,
    Protocol,
    Rule,
    ServicePlan,
    Weighted,
)
from nodeagent.plan.objective import objectives_of
from nodeagent.plan.problems import service_problem
from nodeagent.settings import LOW_PORT_SHIFT, Settings

MAX_PORT = 65535
UNBACKED = "endpoints"
"""The field of the problem that says that nothing in the files gives a Service endpoints."""
DEFAULT_RULE = "all"
"""The name of the rule that takes every request and sends it to the Service's own endpoints."""


class Ports:
    """The carried ports of one Service as they are compiled: `listeners`, `backends`, and what was wrong."""

    def __init__(
        self, service: Service, resolution: Resolution, settings: Settings, addresses: AddressRange
    ) -> None:
        self.service = service
        self.resolution = resolution
        self.problems: list[Problem] = []
        self.carried = _carried_ports(service.object, settings, self.problems)
        self._addresses = addresses
        self._endpoints: dict[str, tuple[Endpoint, ...]] = {}

    def endpoints(self, port: ServicePort) -> tuple[Endpoint, ...]:
        """Return those of a port that may be used."""
        found = self._endpoints.get(port.name)
        if found is None:
            written = self.service.endpoints.get(port.name, ())
            declared = self.declared(port)
            if declared and written:
                self.problems.append(_passed_over(self.service.object, port, len(written)))
            found = _usable_endpoints(self.service, port, declared or written, self._addresses, self.problems)
            self._endpoints[port.name] = found
        return found

    def declared(self, port: ServicePort) -> tuple[Endpoint, ...]:
        """Return those that an annotation in force gives a port."""
        return declared_endpoints(port, self.resolution.annotations)

    def note_unbacked(self) -> None:
        """Report the ports that nothing in the files gives endpoints."""
        without = [port for port, _ in self.carried if not self.declared(port)]
        if without and self.service.object.unbacked is not None:
            self.problems.append(_unbacked(self.service.object, self.service.object.unbacked, without))


def compile_ports(
    service: Service,
    address: str,
    resolution: Resolution,
    settings: Settings,
    addresses: AddressRange,
    middlewares: Mapping[str, Middleware],
    others: Mapping[ServiceKey, Service],
) -> ServicePlan:
    """Return the plan of a Service at its mesh address: listeners and backends in the order of its ports.

    `others` are all Services of the mesh, which its layers may name as backends.
    """
    ports = Ports(service, resolution, settings, addresses)
    scopes = {name: middleware.scope for name, middleware in middlewares.items()}
    named = _named_services([*resolution.layers, *chain(*resolution.port_layers.values())], middlewares)
    balancing = resolution.balancing
    listeners, backends = [], []
    refers = {_key_of(service, name) for name, _ in named}
    for port, mesh_port in ports.carried:
        protocol: Protocol = protocol_of(port, resolution.annotations)
        http = protocol == "http"
        key = BackendKey(service.key, port.port)
        own = resolution.layers_of(port)

        def layers(
            *wanted: str, http: bool = http, own: tuple[LayerSpec, ...] = own
        ) -> tuple[LayerSpec, ...]:
            return tuple(
                layer
                for layer in own
                if scopes[layer.name] in wanted and (http or scopes[layer.name] == "connection")
            )

        listeners.append(
            Listener(
                service.key,
                port.name,
                address,
                port.port,
                mesh_port,
                protocol,
                (Rule(DEFAULT_RULE, (Weighted(key),), layers=layers("rule", "try")),),
                layers("connection", "request", "listener"),
                _named_backends(service, port, _named_services(own, middlewares), others, ports.problems)
                if http
                else (),
                http and resolution.connections.trailers,
                resolution.access_log.of(port),
            )
        )
        standby = failover_of(service, port, resolution.failover.of(port), others, ports.problems)
        if standby is not None:
            refers.add(standby.service)
        backends.append(
            BackendSpec(
                key,
                ports.endpoints(port),
                max_connections=resolution.connections.most if http else 0,
                layers=layers("backend"),
                protocol=upstream_protocol_of(port, resolution.annotations) if http else "http1",
                health_check=resolution.health_checks.of(port),
                balance=balancing.balance_of(port),
                affinity=balancing.affinity_of(service.key, port, service.object.uid) if http else None,
                outlier_detection=resolution.outlier_detection.of(port),
                locality=resolution.locality.of(port),
                failover=standby,
            )
        )
    ports.note_unbacked()
    spoken = [(port, listener.protocol) for (port, _), listener in zip(ports.carried, listeners, strict=True)]
    objectives = objectives_of(
        service.object, spoken, resolution.objective, resolution.annotations, ports.problems
    )
    return ServicePlan(
        service,
        address,
        tuple(listeners),
        tuple(backends),
        resolution.annotations,
        tuple(dict.fromkeys(ports.problems)),
        address,
        tuple(sorted(refers - {service.key})),
        resolution.origins,
        objectives,
    )


def _named_services(
    layers: Sequence[LayerSpec], middlewares: Mapping[str, Middleware]
) -> list[tuple[str, str]]:
    """Return the Services that layers may send to, by name, each with the annotation that named it."""
    named: dict[str, str] = {}
    for layer in layers:
        middleware = middlewares[layer.name]
        if middleware.backends is not None:
            for name in middleware.backends(layer.options):
                named.setdefault(name, middleware.backends_by or middleware.annotations[0].name)
    return sorted(named.items())


def _named_backends(
    service: Service,
    port: ServicePort,
    named: Sequence[tuple[str, str]],
    others: Mapping[ServiceKey, Service],
    problems: list[Problem],
) -> tuple[tuple[str, BackendKey], ...]:
    """Return the backend of each named Service for requests to this port."""
    backends = []
    for name, annotation in named:
        key = _key_of(service, name)
        other = service if key == service.key else others.get(key)
        found = _port_like(port, other.object) if other is not None and _opted_in(other) else None
        # Kept in any case: the layer may choose it, and then learns that it has no endpoint.
        backends.append((name, BackendKey(key, found.port if found is not None else port.port)))
        if found is None:
            reason = "is not in the mesh" if other is None or not _opted_in(other) else "has no such port"
            problems.append(
                service_problem(
                    service.object,
                    annotation,
                    name,
                    f"{key} {reason}",
                    f'svc.mesh/enabled: "true" on {key}, and a port {port.name or port.port} there',
                    f"requests that {annotation} sends to it are answered with 503",
                )
            )
    return tuple(backends)


def failover_of(
    service: Service,
    port: ServicePort,
    name: str | None,
    others: Mapping[ServiceKey, Service],
    problems: list[Problem],
) -> BackendKey | None:
    """Return the backend that a port fails over to, of a Service `name` or `name.namespace`."""
    if name is None:
        return None
    other_name, _, namespace = name.partition(".")
    key = ServiceKey(namespace or service.key.namespace, other_name)
    other = others.get(key)
    found = _port_like(port, other.object) if other is not None and _opted_in(other) else None
    reason = ""
    if key == service.key:
        reason = f"{key} is this Service itself"
    elif found is None:
        absent = other is None or not _opted_in(other)
        reason = f"{key} is not in the mesh" if absent else f"{key} has no such port"
    if reason:
        problems.append(
            service_problem(
                service.object,
                FAILOVER,
                name,
                reason,
                f'another Service with svc.mesh/enabled: "true" and a port {port.name or port.port}',
                f"port {_label(port)} does not fail over",
                severity="error" if key == service.key else "warning",
            )
        )
    # Kept although it may not be there yet: it comes into use with it, and until then has no endpoint.
    return BackendKey(key, found.port if found is not None else port.port) if key != service.key else None


def _key_of(service: Service, name: str) -> ServiceKey:
    """Return which Service a layer means by `name` or `name.namespace`."""
    own, _, namespace = name.partition(".")
    return ServiceKey(namespace or service.key.namespace, own)


def _opted_in(service: Service) -> bool:
    return service.object.annotations.get("svc.mesh/enabled") == "true"


def _port_like(port: ServicePort, other: ServiceObject) -> ServicePort | None:
    """Return the port of another Service that stands for this one: by number, by name, or the only one."""
    ports = [one for one in other.ports if one.protocol == "TCP"]
    for one in ports:
        if one.port == port.port:
            return one
    for one in ports:
        if port.name and one.name == port.name:
            return one
    return ports[0] if len(ports) == 1 else None


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
            reason = "is listed twice in this Service"
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


def _usable_endpoints(
    service: Service,
    port: ServicePort,
    endpoints: Sequence[Endpoint],
    addresses: AddressRange,
    problems: list[Problem],
) -> tuple[Endpoint, ...]:
    usable = [e for e in endpoints if e.ready] or [e for e in endpoints if e.serving and e.terminating]
    carried: list[Endpoint] = []
    circular: list[str] = []
    foreign: list[str] = []
    for endpoint in usable:
        number = parse_ipv4(endpoint.address)
        if number is None:
            foreign.append(endpoint.address)
        elif addresses.contains(number):
            circular.append(endpoint.address)
        else:
            carried.append(endpoint)
    if circular:
        reason = "lies in the mesh range: connections to it would come back to the mesh"
        problems.append(_endpoint_problem(service, port, circular, reason, bool(carried)))
    if foreign and not carried:
        reason = "is not an IPv4 address, and the mesh does not carry others yet"
        problems.append(_endpoint_problem(service, port, foreign, reason, remaining=False))
    return tuple(carried)


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


def _passed_over(service: ServiceObject, port: ServicePort, others: int) -> Problem:
    name = endpoints_annotation(service, port)
    return service_problem(
        service,
        name,
        service.annotations.get(name, ""),
        f"takes precedence over {_count(others)} that objects in the files give port {_label(port)}",
        "",
        "those are not used",
        severity="info",
    )


def _unbacked(service: ServiceObject, unbacked: Unbacked, without: Sequence[ServicePort]) -> Problem:
    """Say that requests will fail, and what to write; a Service in a cluster is never told this."""
    first = without[0]
    place = f"127.0.0.1:{unbacked.targets.get(first.name, first.port)}"
    ports = ", ".join(map(_label, without[:MOST_PROBLEMS]))
    return service_problem(
        service,
        UNBACKED,
        "",
        unbacked.reason,
        f"the annotation {endpoints_annotation(service, first)}: {place}, say; or an EndpointSlice",
        f"without a cluster nobody serves port {ports}: 503, or refused for tcp",
        severity="warning",
    )


def _count(endpoints: int) -> str:
    return "1 endpoint" if endpoints == 1 else f"{endpoints} endpoints"
