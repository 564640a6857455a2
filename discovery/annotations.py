"""The annotations that say whether a Service is in the mesh and which protocol its ports use.

The other annotations below `svc.mesh/` belong to middleware. Nothing is guessed from traffic: the protocol of
a port is what its owner declared, by annotation, `appProtocol` or the prefix of the port's name, else http.
Everything that is not HTTP for the mesh (TLS, a database) passes through as plain TCP.

Clients of an http port may use HTTP/1.1 or HTTP/2, which their first bytes show reliably. To the endpoints
the mesh uses what was declared: HTTP/2 for grpc, h2c and http2, else HTTP/1.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final, Literal

import msgspec

from discovery.bounds import MOST_PROBLEMS, shorten
from discovery.model import ANNOTATION_PREFIX, Endpoint, Problem, ServiceObject, ServicePort, Severity
from discovery.places import InvalidPlaces, parse_places

PortProtocol = Literal["http", "tcp"]
UpstreamProtocol = Literal["http1", "http2"]

ENABLED: Final = f"{ANNOTATION_PREFIX}enabled"
PROTOCOL: Final = f"{ANNOTATION_PREFIX}protocol"
PROTOCOL_OF_PORT: Final = f"{ANNOTATION_PREFIX}protocol."
UPSTREAM_PROTOCOL: Final = f"{ANNOTATION_PREFIX}upstream-protocol"
UPSTREAM_PROTOCOL_OF_PORT: Final = f"{ANNOTATION_PREFIX}upstream-protocol."
ENDPOINTS: Final = f"{ANNOTATION_PREFIX}endpoints"
ENDPOINTS_OF_PORT: Final = f"{ANNOTATION_PREFIX}endpoints."
OF_PORT: Final = (PROTOCOL_OF_PORT, UPSTREAM_PROTOCOL_OF_PORT, ENDPOINTS_OF_PORT)
"""How the names of annotations for a single port begin; the port's name or number follows."""

_HTTP2 = frozenset({"grpc", "h2c", "http2"})
"""Annotation values, and prefixes of a port's name, that mean HTTP/2 without TLS."""

_HTTP1_APP_PROTOCOLS = frozenset({"grpc-web", "http", "http/1.1", "kubernetes.io/ws", "ws"})
_HTTP2_APP_PROTOCOLS = frozenset({"grpc", "h2c", "http2", "kubernetes.io/h2c"})
"""`appProtocol` in lower case; every other declared value is passed through as tcp."""

_OPAQUE_PREFIXES = frozenset({"https", "mongo", "mysql", "postgres", "redis", "tcp", "tls"})
"""Prefixes of a port's name, up to the first `-` (or the whole name), that mean tcp."""

_LATER_PROTOCOLS = frozenset({"h2", "https", "tls"})
"""Annotation values with a clear meaning that the mesh cannot look into yet: passed through as tcp."""
_PROTOCOLS: Final = "http, http2, h2c, grpc or tcp"


class Annotation(msgspec.Struct, frozen=True):
    """The documentation of one annotation, written where it is parsed; `docs/annotations.md` shows it."""

    name: str
    """The full name, `svc.mesh/...`."""
    values: str
    """The values that are allowed, in a few words."""
    default: str
    summary: str
    example: str


ANNOTATIONS: Final[tuple[Annotation, ...]] = (
    Annotation(
        name=ENABLED,
        values='"true" or "false"',
        default="false",
        summary="Puts the Service into the mesh, with a name and an address. Without it no other annotation "
        "is read.",
        example='svc.mesh/enabled: "true"',
    ),
    Annotation(
        name=PROTOCOL,
        values=_PROTOCOLS,
        default="each port's appProtocol, else the prefix of its name (http-, tcp-, grpc-, ...), else http",
        summary=(
            "The protocol of all ports of the Service. http: clients may use HTTP/1.1 or HTTP/2, and the "
            "mesh uses HTTP/1.1 to the endpoints. http2, h2c and grpc: the same, but with HTTP/2 without "
            "TLS to the endpoints. tcp: the bytes are passed through unchanged."
        ),
        example="svc.mesh/protocol: tcp",
    ),
    Annotation(
        name=f"{PROTOCOL_OF_PORT}<port name or number>",
        values=_PROTOCOLS,
        default="svc.mesh/protocol",
        summary="The protocol of this one port; takes precedence over svc.mesh/protocol.",
        example="svc.mesh/protocol.admin: http",
    ),
    Annotation(
        name=UPSTREAM_PROTOCOL,
        values="http1 or http2",
        default="what each port's protocol says: http2 for http2, h2c and grpc, else http1",
        summary=(
            "The protocol that the mesh uses to the endpoints, on all ports that are not tcp, whatever "
            "the clients use: HTTP/1.1, or HTTP/2 without TLS with many requests on one connection. "
            "WebSockets go over HTTP/2 to endpoints that announce it (RFC 8441); other endpoints need "
            "http1 for them."
        ),
        example="svc.mesh/upstream-protocol: http2",
    ),
    Annotation(
        name=f"{UPSTREAM_PROTOCOL_OF_PORT}<port name or number>",
        values="http1 or http2",
        default="svc.mesh/upstream-protocol",
        summary=(
            "The protocol that the mesh uses to the endpoints of this one port; takes precedence over "
            "svc.mesh/upstream-protocol. It has no effect on a tcp port."
        ),
        example="svc.mesh/upstream-protocol.grpc: http2",
    ),
    Annotation(
        name=ENDPOINTS,
        values="ADDR:PORT, or several with commas between",
        default="those of its EndpointSlices, Endpoints or Pods",
        summary=(
            "The endpoints of a Service that has one TCP port, in place of all others. In files only"
            " (`--source file:PATH`): a cluster says with EndpointSlices where a Service's endpoints are. See"
            " [The file source](file-source.md)."
        ),
        example="svc.mesh/endpoints: 127.0.0.1:8080,127.0.0.1:8081",
    ),
    Annotation(
        name=f"{ENDPOINTS_OF_PORT}<port name or number>",
        values="as svc.mesh/endpoints",
        default="svc.mesh/endpoints",
        summary="The endpoints of this one port; takes precedence over svc.mesh/endpoints. In files only.",
        example="svc.mesh/endpoints.admin: 127.0.0.1:9090",
    ),
)


def is_enabled(annotations: Mapping[str, str]) -> bool:
    """Return whether the annotations opt in; a malformed value does not."""
    return annotations.get(ENABLED) == "true"


def protocol_of(port: ServicePort, annotations: Mapping[str, str]) -> PortProtocol:
    """Return the protocol of a TCP port; malformed annotations must have been taken out
    (`check_annotations`).

    The first that says anything decides: `svc.mesh/protocol.<name>`, `svc.mesh/protocol.<number>`,
    `svc.mesh/protocol`, `appProtocol`, the prefix of the port's name; then http.
    """
    declared = _said(port, annotations, PROTOCOL)
    if declared:
        return "http" if declared == "http" or declared in _HTTP2 else "tcp"
    if port.app_protocol:
        named = port.app_protocol.lower()
        return "http" if named in _HTTP1_APP_PROTOCOLS or named in _HTTP2_APP_PROTOCOLS else "tcp"
    return "tcp" if port.name.partition("-")[0] in _OPAQUE_PREFIXES else "http"


def upstream_protocol_of(port: ServicePort, annotations: Mapping[str, str]) -> UpstreamProtocol:
    """Return the protocol that is used to the endpoints of an http port.

    `svc.mesh/upstream-protocol.<name>`, `svc.mesh/upstream-protocol.<number>` and
    `svc.mesh/upstream-protocol` decide, else what decides in `protocol_of`.
    """
    asked = _said(port, annotations, UPSTREAM_PROTOCOL)
    if asked:
        return "http2" if asked == "http2" else "http1"
    declared = _said(port, annotations, PROTOCOL)
    if declared:
        return "http2" if declared in _HTTP2 else "http1"
    if port.app_protocol:
        return "http2" if port.app_protocol.lower() in _HTTP2_APP_PROTOCOLS else "http1"
    if port.name == "grpc-web" or port.name.startswith("grpc-web-"):
        return "http1"  # made for clients that cannot speak HTTP/2, and mostly served in HTTP/1.1
    return "http2" if port.name.partition("-")[0] in _HTTP2 else "http1"


def protocol_reason(port: ServicePort, annotations: Mapping[str, str]) -> str:
    """Return what decides in `protocol_of`: the annotation, a field, or that nothing says anything."""
    for name in (f"{PROTOCOL}.{port.name}" if port.name else "", f"{PROTOCOL}.{port.port}", PROTOCOL):
        if annotations.get(name):
            return f"{name}: {annotations[name]}"
    if port.app_protocol:
        return f"appProtocol: {port.app_protocol}"
    if port.name.partition("-")[0] in _OPAQUE_PREFIXES:
        return f"the prefix of the port's name, {port.name}"
    return "nothing says otherwise"


def _said(port: ServicePort, annotations: Mapping[str, str], name: str) -> str:
    """Return what this annotation says of a port: under the port's name, its number, or of all ports."""
    return (
        (port.name and annotations.get(f"{name}.{port.name}"))
        or annotations.get(f"{name}.{port.port}")
        or annotations.get(name)
        or ""
    )


def declared_endpoints(port: ServicePort, annotations: Mapping[str, str]) -> tuple[Endpoint, ...]:
    """Return the endpoints that annotations give a port; none if they say nothing that can be used."""
    said = _said(port, annotations, ENDPOINTS)
    try:
        return parse_places(said) if said and port.protocol == "TCP" else ()
    except InvalidPlaces:
        return ()


def says_endpoints(port: ServicePort, annotations: Mapping[str, str]) -> bool:
    """Return whether annotations say anything about the endpoints of a port, right or wrong."""
    return bool(_said(port, annotations, ENDPOINTS))


def endpoints_annotation(service: ServiceObject, port: ServicePort) -> str:
    """Return the name of the annotation that gives this port its endpoints, whether it is there or not."""
    for selector in (port.name, str(port.port)):
        if f"{ENDPOINTS_OF_PORT}{selector}" in service.annotations:
            return f"{ENDPOINTS_OF_PORT}{selector}"
    alone = len(_tcp_ports(service)) == 1
    return ENDPOINTS if alone else f"{ENDPOINTS_OF_PORT}{port.name or port.port}"


def _tcp_ports(service: ServiceObject) -> list[ServicePort]:
    return [port for port in service.ports if port.protocol == "TCP"]


def check_annotations(service: ServiceObject) -> list[Problem]:
    """Return what is wrong with this module's annotations of a Service, in the order of their names.

    `effect` is left empty: what is in force instead depends on what was in force before. Annotations with an
    `info` problem stay in force themselves.
    """
    problems = []
    selectors = {selector for port in service.ports for selector in (port.name, str(port.port)) if selector}
    for name in sorted(service.annotations):
        value = service.annotations[name]
        if name == ENABLED:
            problem = _check_enabled(service, value)
        elif name == PROTOCOL:
            problem = _check_protocol(service, name, value)
        elif name == UPSTREAM_PROTOCOL:
            problem = _check_upstream(service, name, value)
        elif name.startswith(PROTOCOL_OF_PORT):
            problem = _check_port(service, name, selectors) or _check_protocol(service, name, value)
        elif name.startswith(UPSTREAM_PROTOCOL_OF_PORT):
            problem = _check_port(service, name, selectors) or _check_upstream(service, name, value)
        elif name == ENDPOINTS:
            problem = _check_endpoints(service, name, value) or _check_only_port(service)
        elif name.startswith(ENDPOINTS_OF_PORT):
            problem = _check_port(service, name, selectors) or _check_endpoints(service, name, value)
        else:
            problem = None
        if problem is not None:
            problems.append(problem)
    return problems


def _check_enabled(service: ServiceObject, value: str) -> Problem | None:
    if value in ("true", "false"):
        return None
    return _problem(service, ENABLED, "is neither true nor false", '"true" or "false"')


def _check_port(service: ServiceObject, name: str, selectors: Set[str]) -> Problem | None:
    selector = name.removeprefix(ANNOTATION_PREFIX).partition(".")[2]
    if selector in selectors:
        return None
    known = ", ".join(port.name or str(port.port) for port in service.ports[:MOST_PROBLEMS]) or "none"
    return _problem(
        service, name, f"the Service has no port {shorten(selector)!r}", f"a port of this Service: {known}"
    )


def _check_protocol(service: ServiceObject, name: str, value: str) -> Problem | None:
    if value in ("http", "tcp") or value in _HTTP2:
        return None
    if value in _LATER_PROTOCOLS:
        reason = f"{value} is passed through as tcp: the mesh does not look into it yet"
        return _problem(service, name, reason, _PROTOCOLS, "info")
    return _problem(service, name, "is not a protocol that the mesh carries", f"{_PROTOCOLS}, in lower case")


def _check_upstream(service: ServiceObject, name: str, value: str) -> Problem | None:
    if value in ("http1", "http2"):
        return None
    return _problem(service, name, "is neither http1 nor http2", "http1 or http2, in lower case")


def _check_endpoints(service: ServiceObject, name: str, value: str) -> Problem | None:
    if not service.from_file:
        reason = "is read of files only (--source file:PATH): a cluster has EndpointSlices for it"
        return _problem(service, name, reason, "a selector, or an EndpointSlice of the Service")
    try:
        parse_places(value)
    except InvalidPlaces as invalid:
        return _problem(service, name, invalid.reason, invalid.expected)
    return None


def _check_only_port(service: ServiceObject) -> Problem | None:
    ports = _tcp_ports(service)
    if len(ports) <= 1:
        return None
    reason = f"says not which of the {len(ports)} TCP ports has these endpoints"
    known = ", ".join(f"{ENDPOINTS_OF_PORT}{port.name or port.port}" for port in ports[:MOST_PROBLEMS])
    return _problem(service, ENDPOINTS, reason, f"an annotation for each port: {known}")


def _problem(
    service: ServiceObject,
    name: str,
    reason: str,
    expected: str,
    severity: Severity = "error",
) -> Problem:
    return Problem(
        namespace=service.key.namespace,
        name=service.key.name,
        field=name,
        value=service.annotations[name],
        reason=reason,
        expected=expected,
        origin=service.place(service.written_as(name)[0]),
        severity=severity,
    )
