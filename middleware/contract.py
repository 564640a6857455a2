"""The contract between a middleware and the data plane.

A middleware module has frozen `Options`, `parse(annotations)`, a pure policy class that takes `now` as an
argument, and a thin `Layer` around the next `Handler`; it offers them as one `Middleware` value that
`middleware.registry` lists. Layers are plain `async def`. They run on a worker's loop, one coroutine a
request, started eagerly and resumed directly, and *not inside an asyncio.Task*: awaiting the next handler,
futures and `asyncio.sleep` works, `asyncio.timeout` and `asyncio.current_task` do not.

Running state (an open breaker, a budget) lives in the layer and is kept as long as service, port and
options stay equal, so a change of anything else does not touch it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

Fault = Literal["client", "mesh", "upstream"]


class Annotation(msgspec.Struct, frozen=True):
    """The documentation of one annotation, written where it is parsed; `docs/annotations.md` shows it."""

    name: str
    """The full name, `svc.mesh/...`."""
    values: str
    """What may stand there, in a few words."""
    default: str
    summary: str
    example: str


class Problem(msgspec.Struct, frozen=True):
    """An annotation that cannot be used, and what would be right."""

    annotation: str
    value: str
    reason: str
    expected: str


class ExchangeError(Exception):
    """An exchange that brought no response. Subclasses say who failed and whether it may be sent again.

    `proxy_error` is the error type of RFC 9209 section 2.3 that the `Proxy-Status` header shows; `reason` is
    the stable word of logs and metrics.
    """

    fault: Fault = "mesh"
    status: int = 500
    proxy_error: str = "proxy_internal_error"
    reason: str = "internal_error"
    processed: bool = True
    """Whether the far side may have acted on the request."""

    def __init__(self, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers
        """Further headers of the response that tells the client."""


class NoEndpoint(ExchangeError):
    """The Service has no endpoint that may be used (503)."""

    fault: Fault = "upstream"
    status = 503
    proxy_error = "destination_unavailable"
    reason = "no_endpoint"
    processed = False


class ConnectFailed(ExchangeError):
    """No endpoint accepted a connection; nothing was sent (503)."""

    fault: Fault = "upstream"
    status = 503
    proxy_error = "connection_refused"
    reason = "connect_failed"
    processed = False


class UpstreamReset(ExchangeError):
    """The connection ended before a whole response head came; the request may have been processed (502)."""

    fault: Fault = "upstream"
    status = 502
    proxy_error = "connection_terminated"
    reason = "upstream_reset"


class UpstreamProtocolError(ExchangeError):
    """The endpoint answered something that is not HTTP/1.1 as RFC 9112 means it (502)."""

    fault: Fault = "upstream"
    status = 502
    proxy_error = "http_protocol_error"
    reason = "upstream_protocol_error"


class Rejected(ExchangeError):
    """A middleware refuses the request; nothing was sent. Subclass it to give status and reason."""

    fault: Fault = "mesh"
    status = 503
    proxy_error = "http_request_denied"
    reason = "rejected"
    processed = False


class Headers(Protocol):
    """The header fields of a message; names are compared without regard to case."""

    def get(self, name: str) -> str | None:
        """Return the first value of this name, or None."""
        ...

    def get_all(self, name: str) -> list[str]:
        """Return all values of this name, in order."""
        ...


class Request(Protocol):
    """A request on its way to an endpoint. The body is streamed beside it and is not seen by layers."""

    @property
    def method(self) -> str:
        """The method, as sent: `GET`."""
        ...

    @property
    def target(self) -> str:
        """The request target in origin form: `/path?query`."""
        ...

    @property
    def headers(self) -> Headers:
        """The header fields as the client sent them."""
        ...

    @property
    def source(self) -> str:
        """The address of the client's pod."""
        ...

    @property
    def replayable(self) -> bool:
        """True while the request can be sent once more: all of its body so far is kept."""
        ...


class Response(Protocol):
    """The head of an endpoint's response; the body follows it, streamed, once a layer has returned it."""

    @property
    def status(self) -> int:
        """The status code, 200 to 599."""
        ...

    @property
    def headers(self) -> Headers:
        """The header fields as the endpoint sent them."""
        ...

    def discard(self) -> None:
        """Throw this response away, body and all, so that the request can be sent again."""
        ...


Handler = Callable[[Request], Awaitable[Response]]
"""Sends a request on; raises `ExchangeError`. Called again with the same request it uses another endpoint."""

Layer = Callable[[Handler], Handler]


class Metric(msgspec.Struct, frozen=True):
    """A number a middleware keeps for each service and port; workers' numbers are merged by `kind`.

    Counters are summed over the workers; of gauges the greatest is shown.
    """

    name: str
    """As exposed, without the `_total` of counters: `svcmesh_retries`."""
    help: str
    kind: Literal["counter", "gauge"] = "counter"


class SharedTable(Protocol):
    """Numbers that all workers of the node share: a bounded table of int64 by key."""

    def update(self, key: bytes, change: Callable[[int], int | None]) -> None:
        """Call `change` with the number stored under `key` (0 if none) and store what it returns.

        No other worker runs a change on the same number meanwhile; `None` leaves it as it is. When the
        table is full, an entry that has not been written for long makes room.
        """
        ...


class Context(Protocol):
    """What the data plane gives to a layer when it is built for one port of one Service."""

    @property
    def service(self) -> str:
        """`namespace/name`."""
        ...

    @property
    def port(self) -> int:
        """The Service's port."""
        ...

    @property
    def shared(self) -> SharedTable:
        """Numbers shared by the node's workers; start keys with the middleware's name, service and port."""
        ...

    def now(self) -> float:
        """The monotonic clock, in seconds; the same for all workers of the node."""
        ...

    def counter(self, metric: Metric) -> Callable[[int], None]:
        """Return a function that adds to this metric."""
        ...

    def gauge(self, metric: Metric) -> Callable[[int], None]:
        """Return a function that sets this metric."""
        ...


class Middleware(msgspec.Struct, frozen=True):
    """One middleware, as the registry lists it."""

    name: str
    """As in the documentation and in plans: `retry`."""
    annotations: tuple[Annotation, ...]
    options: type[msgspec.Struct]
    """A frozen Struct that msgspec can write and read back: it travels to the workers."""
    parse: Callable[[Mapping[str, str]], Any]
    """`parse(annotations) -> options | Problem | None`: None where the Service does not use it."""
    build: Callable[[Any, Context], Layer]
    """`build(options, context) -> Layer`: called once for each port that uses it."""
    metrics: tuple[Metric, ...] = ()
