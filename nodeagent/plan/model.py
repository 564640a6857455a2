"""The plan of a node: what this agent does about the cluster, as values only.

`nodeagent.plan.compile` makes it from a `MeshSnapshot`; workers, the kernel map and DNS are made equal to it.
A part that did not change between two plans is the *same object* in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from discovery.model import Changes, Problem, Service, ServiceKey

Protocol = Literal["http", "tcp"]
Transport = Literal["TCP", "UDP"]


class Upstream(msgspec.Struct, frozen=True):
    """An endpoint as the data plane needs it. `pod` names it for people, where known."""

    address: str
    port: int
    pod: str = ""

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


class LayerSpec(msgspec.Struct, frozen=True):
    """A middleware that a route uses, with its options (a Struct of the middleware's own)."""

    name: str
    options: Any


class Route(msgspec.Struct, frozen=True):
    """What happens to connections to one mesh address and port."""

    service: ServiceKey
    port_name: str
    address: str
    """The mesh address."""
    port: int
    """The Service's port."""
    mesh_port: int
    """The port at the mesh address: `port`, but for low ports in loopback capture without privileges."""
    protocol: Protocol
    upstreams: tuple[Upstream, ...]
    """Ready endpoints in address order; may be empty."""
    layers: tuple[LayerSpec, ...] = ()
    """In the order of `middleware.registry`; always empty for tcp."""

    @property
    def key(self) -> RouteKey:
        """Mesh address and port, as a connection shows them."""
        return (self.address, self.mesh_port)


RouteKey = tuple[str, int]


class ServicePlan(msgspec.Struct, frozen=True):
    """What this node does for one Service. `source` is the value it was made from."""

    source: Service
    address: str
    """The mesh address; empty if the Service cannot be meshed (then `problems` say why)."""
    routes: tuple[Route, ...]
    effective: Mapping[str, str]
    """The annotations in force, the last good values in place of bad ones."""
    problems: tuple[Problem, ...] = ()
    claim: str = ""
    """The mesh address it asks for: differs from `address` only where two Services ask for the same."""


class NodePlan(msgspec.Struct, frozen=True):
    """What this node does. `problems` are those of no single Service; see `all_problems`."""

    version: int
    services: Mapping[ServiceKey, ServicePlan]
    problems: tuple[Problem, ...] = ()
    changes: Changes | None = None
    """Since the plan that this one was compiled after, where that is known."""

    def routes(self) -> Iterator[Route]:
        """Yield every route, Services in the order of the mapping."""
        for service in self.services.values():
            yield from service.routes

    def all_problems(self) -> list[Problem]:
        """Every problem of the plan, sorted."""
        return sorted([*self.problems, *(p for s in self.services.values() for p in s.problems)])


EMPTY_PLAN = NodePlan(version=0, services={})
