"""The contract between a middleware and the data plane.

A middleware module has frozen `Options`, `parse(annotations)`, a pure policy class that takes `now` as an
argument, and a thin layer; it offers them as one `Middleware` value that `middleware.registry` lists.

A `Layer` wraps the next `Handler`. It may pass the request on as it is, change it first, answer it by itself
with a `Reply`, send it again, set a deadline, choose the backend, change the response, and hear of the end.
Layers are plain `async def`. They run on a worker's loop, one coroutine a request, started eagerly and
resumed directly, and *not inside an asyncio.Task*: awaiting the next handler, futures and `asyncio.sleep`
works, `asyncio.timeout` and `asyncio.current_task` do not. `middleware.testing` has what authors need to test
a layer.

Where a middleware stands is its `scope`. A `"connection"` one is a `Gate`: a plain function that is called
once for each new connection of any protocol. A `"request"` one is an `OnRequest`: a plain function that is
called at the beginning of each request.

Running state (an open breaker, a budget) lives in the layer and is kept as long as service, port and
options stay equal, so a change of anything else does not touch it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from middleware.context import (
    MOST_COUNTERS,
    WINDOW_SECONDS,
    Context,
    Grant,
    Metric,
    NodeWindow,
    SharedTable,
    TokenStore,
)
from middleware.errors import (
    ConnectFailed,
    ExchangeError,
    Fault,
    GatewayTimeout,
    NoEndpoint,
    Rejected,
    UpstreamProtocolError,
    UpstreamReset,
)
from middleware.exchange import (
    Asked,
    Deadline,
    Ended,
    Handler,
    Layer,
    Request,
    Response,
)
from middleware.explaining import AskedHere, Decision
from middleware.journey import Journey, Stage, StageKind
from middleware.messages import (
    OWN_FIELDS,
    Headers,
    Reply,
    ReplyHeaders,
    check_field,
)
from middleware.traces import TracedRequest, TraceSink

__all__ = [
    "MOST_COUNTERS",
    "OWN_FIELDS",
    "WINDOW_SECONDS",
    "Annotation",
    "Asked",
    "AskedHere",
    "ConnectFailed",
    "Connection",
    "Context",
    "Deadline",
    "Decision",
    "Ended",
    "ExchangeError",
    "Fault",
    "Gate",
    "GatewayTimeout",
    "Grant",
    "Handler",
    "Headers",
    "Journey",
    "Layer",
    "Metric",
    "Middleware",
    "NoEndpoint",
    "NodeWindow",
    "OnRequest",
    "Problem",
    "Rejected",
    "Reply",
    "ReplyHeaders",
    "Request",
    "Response",
    "Scope",
    "SharedTable",
    "Stage",
    "StageKind",
    "TokenStore",
    "TraceSink",
    "TracedRequest",
    "UpstreamProtocolError",
    "UpstreamReset",
    "check_field",
]

Scope = Literal["connection", "request", "listener", "rule", "backend", "try"]
"""Where a middleware stands, from the outside in: at each connection; at the beginning of each request, which
it cannot hold up; around everything that a port is asked; around what one of its rules takes; around what is
sent to one backend, whichever rule or port chose it; around each single try."""


class Limit(msgspec.Struct, frozen=True):
    """The number of an annotation that a platform team may hold down for whole namespaces or the cluster."""

    read: Callable[[str], float]
    """Reads such a number, and the limit itself; raises a ValueError with `reason` and `expected`."""
    absent: float = 0.0
    """The number that counts where nobody sets the annotation."""
    setting: str = ""
    """The setting of the value, `setting=NUMBER`, that the limit is for where the value does not begin with a
    number."""
    unset: float = 0.0
    """The number that counts where the value has no such setting."""


class Annotation(msgspec.Struct, frozen=True):
    """The documentation of one annotation, written where it is parsed; `docs/annotations.md` shows it."""

    name: str
    """The full name, `svc.mesh/...`."""
    values: str
    """What may stand there, in a few words."""
    default: str
    summary: str
    example: str
    limit: Limit | None = None
    """None: nobody can set a limit for it."""
    individual: bool = False
    """It says what only the owner of one Service can know, so there is no default of it for others."""


class Problem(msgspec.Struct, frozen=True):
    """An annotation that cannot be used, and what would be right."""

    annotation: str
    value: str
    reason: str
    expected: str
    incomplete: bool = False
    """The value can be used beside another annotation, which is missing."""


class Connection(Protocol):
    """A client's new connection, as a `Gate` sees it. Times in seconds."""

    source: str
    """The client's address."""
    connect_time: float
    """How long connecting to an endpoint may take for it."""
    idle_time: float | None
    """How long nothing may move in a tcp connection, or in an exchange; None: the defaults."""


Gate = Callable[[Connection], None]
"""Decides on a new connection, at once: raises `Rejected` to have it reset, and may set its times."""

OnRequest = Callable[[Request], None]
"""Is shown each request to a port, at once and before any layer, and those as well that no layer sees, as no
rule takes them or the worker has no memory for them. It may change header fields, and follow the request
(`at_end`, `follow_journey`). It costs less than a layer, since it cannot wait or answer. If it raises, the
request ends with that error."""


class Middleware(msgspec.Struct, frozen=True):
    """One middleware, as the registry lists it."""

    name: str
    """As in the documentation and in plans: `retry`."""
    annotations: tuple[Annotation, ...]
    options: type[msgspec.Struct]
    """A frozen Struct that msgspec can write and read back: it travels to the workers."""
    parse: Callable[[Mapping[str, str]], Any]
    """`parse(annotations) -> options | Problem | None`: None where the Service does not use it."""
    build: Callable[[Any, Context], Any]
    """`build(options, context) -> Layer`, for the scope `"connection"` a `Gate`, for `"request"` an
    `OnRequest`: called once for each port that uses it."""
    renew: Callable[[Any, Any], bool] | None = None
    """`renew(layer, options)`: has a layer that is running go by other options and returns True, or returns
    False and changes nothing: then another one is built in its place. None: always another one."""
    metrics: tuple[Metric, ...] = ()
    scope: Scope = "rule"
    backends: Callable[[Any], tuple[str, ...]] | None = None
    """`backends(options)`: the other Services, by `name` or `name.namespace`, that its layer may choose as
    `Request.backend`, or send copies to. Those that are not in the mesh are reported."""
    backends_by: str = ""
    """The annotation in which an owner names those Services; empty: the first of `annotations`."""
    page: str = ""
    """Its page in `docs/middleware/`; empty: the one of its name."""
    custom: bool = False
    """Set by the registry: it is a user's, and takes part only where `svc.mesh/middleware` names it."""
    budget: float = 0.05
    """Of a user's: for how many seconds its layer or gate may hold the loop without a pause."""
    explain: Callable[[Any, AskedHere], Decision] | None = None
    """`explain(options, asked)`: what it would do with a request (`middleware.explaining`). None: an
    explanation only names it."""
