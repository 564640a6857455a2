"""The explanation of one request, as values that JSON can hold."""

from __future__ import annotations

from typing import Final

import msgspec

NOBODY: Final = "0.0.0.0"
"""The address of a client of which nothing is known."""


class Unexplained(Exception):
    """There is nothing to explain: the request does not come to the mesh. The message says why."""


class Question(msgspec.Struct, frozen=True):
    """A request that nobody has sent."""

    url: str
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    source: str = NOBODY
    """The client's address."""


class Cause(msgspec.Struct, frozen=True):
    """An annotation in force, and who says it."""

    annotation: str
    value: str
    where: str
    """`Service shop/catalog`, or `svc.mesh/default.timeout of Namespace shop`."""


class RuleView(msgspec.Struct, frozen=True):
    """A rule that was looked at."""

    name: str
    takes: bool
    why: str


class Step(msgspec.Struct, frozen=True):
    """What one middleware does with the request, from the outside in."""

    name: str
    scope: str
    says: str
    status: int = 0
    """Of its own answer; 0: the request goes on."""
    perhaps: tuple[int, ...] = ()
    """Statuses that it may answer with, as running state or chance has it."""
    causes: tuple[Cause, ...] = ()
    backend: str = ""
    """Of the scope `backend`: which one it belongs to."""


class EndpointView(msgspec.Struct, frozen=True):
    """An endpoint of a backend."""

    address: str
    state: str
    """`in use`, or why it gets no requests."""
    share: float | None = None
    """Of the requests; None: it gets none, or the load decides."""
    pod: str = ""
    zone: str = ""
    node: str = ""


class BackendView(msgspec.Struct, frozen=True):
    """A backend that may get the request."""

    backend: str
    """`namespace/name:port`."""
    share: float
    """Of the requests; 0: it gets one only where running state has it so."""
    balance: str
    how: str
    """How the endpoint is chosen: by a key, a cookie, the load, or in turn."""
    endpoints: tuple[EndpointView, ...]
    chosen: str = ""
    """The endpoint, where it is certain."""
    possible: tuple[str, ...] = ()
    """The endpoints of which one gets the request; empty: there is none."""
    failed_over: bool = False
    """It stands in for another Service that has no healthy endpoint."""
    causes: tuple[Cause, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """A response that the mesh gives by itself, whatever endpoints would say."""

    status: int
    """Of HTTP; a gRPC call gets `grpc_status` in its place."""
    by: str
    """The middleware, or `mesh`."""
    reason: str
    fields: tuple[tuple[str, str], ...] = ()
    grpc_status: str = ""
    """Of a gRPC call, such as `UNAVAILABLE`."""


class Sent(msgspec.Struct, frozen=True):
    """The request as an endpoint gets it, without the fields that every hop makes for itself."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]


class Explanation(msgspec.Struct, frozen=True):
    """All that is known of one request."""

    url: str
    method: str
    source: str
    service: str
    """`namespace/name`."""
    address: str
    """The mesh address and port."""
    port: int
    port_name: str
    protocol: str
    because: str
    """Why it is this protocol."""
    upstream: str
    """The protocol that is used to endpoints; empty for tcp."""
    rules: tuple[RuleView, ...] = ()
    steps: tuple[Step, ...] = ()
    sent: Sent | None = None
    """None: nothing is sent, or it is a tcp connection."""
    backends: tuple[BackendView, ...] = ()
    answer: Answer | None = None
    """None: an endpoint answers, unless one of `perhaps` comes true."""
    perhaps: tuple[int, ...] = ()
    """Statuses with which the mesh may answer instead: those of steps, and 503 where one of several backends
    has no endpoint."""
    perhaps_grpc: tuple[str, ...] = ()
    """Of a gRPC call: what it gets in place of `perhaps`, such as `UNAVAILABLE`."""
    unknown: tuple[str, ...] = ()
    """Middlewares that cannot say what they would do."""
    problems: tuple[str, ...] = ()
    """What is wrong with the Service's settings."""
