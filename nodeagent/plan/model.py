"""The plan of a node: what this agent does about the cluster, as values only.

`nodeagent.plan.compile` makes it from a `MeshSnapshot`; workers, the kernel map and DNS are made equal to it.
A part that did not change between two plans is the *same object* in both.

A `Listener` is a port at a mesh address; its rules say which backend gets what. A `BackendSpec` has the
endpoints of one Service port and travels apart, so that a change of endpoints touches no rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from discovery.model import Changes, Endpoint, Problem, Service, ServiceKey
from middleware.values import Seconds

Protocol = Literal["http", "tcp"]
UpstreamProtocol = Literal["http1", "http2"]
Transport = Literal["TCP", "UDP"]

ListenerKey = tuple[str, int]
"""Mesh address and port, as a connection shows them."""


class BackendKey(NamedTuple):
    """A Service and its port."""

    service: ServiceKey
    port: int


class LayerSpec(msgspec.Struct, frozen=True):
    """A middleware in use, with its options (a Struct of the middleware's own)."""

    name: str
    options: Any


class HealthCheck(msgspec.Struct, frozen=True):
    """How the agent asks endpoints whether they are well."""

    kind: Literal["grpc", "http", "tcp"]
    interval: Seconds = 10.0
    timeout: Seconds = 1.0
    healthy: int = 1
    """Probes in a row that must pass before one that is unhealthy is used again."""
    unhealthy: int = 3
    """Probes in a row that must fail before one that is healthy is not used any more."""
    path: str = "/"
    """Of the kind `"http"`."""
    service: str = ""
    """Of the kind `"grpc"`: the service whose status is asked for; empty: the whole server."""


class OutlierDetection(msgspec.Struct, frozen=True):
    """How workers find the endpoints that do worse than the others, and for how long these are ejected."""

    failures: tuple[str, ...]
    """What counts: `connect-failure`, `reset`, `timeout`, `5xx`, `gateway-error`."""
    consecutive: int = 5
    """Failures in a row after which an endpoint is ejected."""
    success_rate: int = 50
    """Percent: an endpoint of which fewer requests succeeded in an interval is ejected."""
    requests: int = 20
    """The fewest in an interval that a success rate is made of."""
    interval: Seconds = 10.0
    ejection: Seconds = 30.0
    """The first one; the second one is twice as long, the third one three times."""
    longest: Seconds = 300.0
    share: int = 50
    """Percent of the endpoints that may be ejected at once, rounded down."""


class Locality(msgspec.Struct, frozen=True):
    """Whether endpoints in the client's zone go before others."""

    kind: Literal["prefer", "strict"]
    healthy: int = 70
    """Of the kind `"prefer"`: percent of the zone's endpoints; if fewer are healthy, all zones are used."""


class HashKey(msgspec.Struct, frozen=True):
    """What of a request says which endpoint it belongs to."""

    place: Literal["source", "header", "cookie", "query"]
    name: str = ""
    """Of the header, cookie or parameter."""


class Balance(msgspec.Struct, frozen=True):
    """How the next endpoint is chosen."""

    policy: str = "round-robin"
    """The name of a balancer (`nodeagent.proxy.balance`)."""
    key: HashKey | None = None
    """Of `consistent-hash`."""
    factor: int = 0
    """Of `consistent-hash`: what one endpoint may have under way, in per cent of the mean; 0: any number."""
    decay: Seconds = 10.0
    """Of `ewma`: after this time a latency counts for 1/e."""
    slow_start: Seconds = 0.0
    """How long a new endpoint takes to get its whole share."""
    slow_start_recovered: bool = False
    """Whether one that is healthy again takes as long."""


class Affinity(msgspec.Struct, frozen=True):
    """The cookie that keeps a client with its endpoint."""

    name: str
    max_age: Seconds = 0.0
    """0: as long as the browser runs."""
    salt: str = ""
    """Makes the cookie's values what nobody outside of the cluster can guess; not shown anywhere."""


class BackendSpec(msgspec.Struct, frozen=True):
    """The endpoints of one Service port, and how they are used; all rules that send to them share it."""

    key: BackendKey
    endpoints: tuple[Endpoint, ...]
    """Those that may be used, in address order; may be empty."""
    balance: Balance = Balance()
    max_connections: int = 0
    """To each endpoint, for each worker; 0: `Limits.upstream_connections`."""
    layers: tuple[LayerSpec, ...] = ()
    """Of the scope `"backend"`."""
    protocol: UpstreamProtocol = "http1"
    """What requests are sent in; the bytes of a tcp port pass as they are."""
    health_check: HealthCheck | None = None
    """None: endpoints are not checked."""
    affinity: Affinity | None = None
    """None: a client's requests go to any endpoint."""
    outlier_detection: OutlierDetection | None = None
    """None: `nodeagent.proxy.health` alone judges by requests."""
    locality: Locality | None = None
    """None: zones make no difference."""
    failover: BackendKey | None = None
    """Where requests go while none of the endpoints is healthy."""


class LineChoice(msgspec.Struct, frozen=True):
    """Which requests and connections have a line in the access log; with nothing set, none."""

    all: bool = False
    errors: bool = False
    """Those that failed."""
    slow: Seconds = 0.0
    """Those that took at least so long; 0: no other because of its time."""
    share: int = 0
    """Hundredths of a per cent of the others, at random."""

    @property
    def none(self) -> bool:
        """Whether there is no line at all."""
        return not (self.all or self.errors or self.slow or self.share)

    def takes(self, failed: bool, took: float, chance: float) -> bool:
        """Return whether one that ended so has a line; `chance` is a random number from 0 to below 1."""
        return (
            self.all
            or (self.errors and failed)
            or bool(self.slow and took >= self.slow)
            or chance * 10_000 < self.share
        )


class Objective(msgspec.Struct, frozen=True):
    """What the callers of a port may rely on. Shares are thousandths of a per cent: 99900 is 99.9 %."""

    available: int
    """The share of requests that shall not fail."""
    within: Seconds = 0.0
    """One of the bounds of the duration histogram; 0: any time will do."""
    fast: int = 0
    """The share of requests that shall take no longer than that."""


class Match(msgspec.Struct, frozen=True):
    """Which requests a rule takes: those for which all of this holds; an empty field holds for all."""

    path: str = ""
    """A prefix of whole segments; with `exact` the whole path."""
    exact: bool = False
    method: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()

    @property
    def restricts(self) -> bool:
        """Whether there is a request that it does not take."""
        return bool(self.path or self.method or self.headers or self.query)


class Weighted(msgspec.Struct, frozen=True):
    """A backend and its share of a rule's requests."""

    backend: BackendKey
    weight: int = 1


class Rule(msgspec.Struct, frozen=True):
    """What happens to the requests that match. `name` is for people, and unique in its listener."""

    name: str
    backends: tuple[Weighted, ...]
    match: Match = Match()
    layers: tuple[LayerSpec, ...] = ()
    """Of the scopes `"rule"` and `"try"`, in the order of `middleware.registry`."""


class Listener(msgspec.Struct, frozen=True):
    """What happens with connections to one mesh address and port."""

    service: ServiceKey
    port_name: str
    address: str
    """The mesh address."""
    port: int
    """The Service's port."""
    mesh_port: int
    """The port at the mesh address: `port`, but for low ports in loopback capture without privileges."""
    protocol: Protocol
    rules: tuple[Rule, ...]
    """The first one that matches gets the request; a tcp port has exactly one."""
    layers: tuple[LayerSpec, ...] = ()
    """Of the scopes `"connection"`, `"request"` and `"listener"`, in the order of `middleware.registry`."""
    backends: tuple[tuple[str, BackendKey], ...] = ()
    """Further backends, by name, that its layers may choose."""
    trailers: bool = False
    """Whether trailers of requests are passed on where the client says `TE: trailers`."""
    access_log: LineChoice | None = None
    """Which lines it has in the access log; None: those that the agent's `--access-log` says."""

    @property
    def key(self) -> ListenerKey:
        """Mesh address and port, as a connection shows them."""
        return (self.address, self.mesh_port)

    @property
    def all_layers(self) -> tuple[LayerSpec, ...]:
        """Every middleware in use here."""
        return (*self.layers, *(layer for rule in self.rules for layer in rule.layers))


class ServicePlan(msgspec.Struct, frozen=True):
    """What this node does for one Service. `source` is the value it was made from."""

    source: Service
    address: str
    """The mesh address; empty if the Service cannot be meshed (then `problems` say why)."""
    listeners: tuple[Listener, ...]
    backends: tuple[BackendSpec, ...]
    """One for each port that is served."""
    effective: Mapping[str, str]
    """The annotations in force, the last good values in place of bad ones."""
    problems: tuple[Problem, ...] = ()
    claim: str = ""
    """The mesh address it asks for: differs from `address` only where two Services ask for the same."""
    refers: tuple[ServiceKey, ...] = ()
    """Other Services that its layers may send to: it is compiled again when these change."""
    origins: Mapping[str, str] = {}
    """Where those of `effective` come from that the owner has not written, or not so."""
    objectives: Mapping[int, Objective] = {}
    """By the Service's port. Workers do not get them: the agent compares with them what workers count."""


class NodePlan(msgspec.Struct, frozen=True):
    """What this node does. `problems` are those of no single Service; see `all_problems`."""

    version: int
    services: Mapping[ServiceKey, ServicePlan]
    problems: tuple[Problem, ...] = ()
    changes: Changes | None = None
    """Since the plan that this one was compiled after, where that is known."""
    referrers: Mapping[ServiceKey, frozenset[ServiceKey]] = {}
    """By Service: which Services may send to it; see `ServicePlan.refers`."""

    def listeners(self) -> Iterator[Listener]:
        """Yield every listener, Services in the order of the mapping."""
        for service in self.services.values():
            yield from service.listeners

    def all_problems(self) -> list[Problem]:
        """Every problem of the plan, sorted."""
        return sorted([*self.problems, *(p for s in self.services.values() for p in s.problems)])


EMPTY_PLAN = NodePlan(version=0, services={})
