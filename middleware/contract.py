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
once for each new connection of any protocol.

Running state (an open breaker, a budget) lives in the layer and is kept as long as service, port and
options stay equal, so a change of anything else does not touch it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from middleware.grpc import GrpcStatus

Fault = Literal["client", "mesh", "upstream"]

Scope = Literal["connection", "listener", "rule", "backend", "try"]
"""Where a middleware stands, from the outside in: at each connection; around everything that a port is
asked; around what one of its rules takes; around what is sent to one backend, whichever rule or port chose
it; around each single try."""


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
    final: bool = False
    """Whether the request itself is over, so that no further try can help: its own time is up, say."""

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


class GatewayTimeout(ExchangeError):
    """An endpoint did not answer in the time it had, or nothing moved (504). Subclass it to give a reason."""

    fault: Fault = "upstream"
    status = 504
    proxy_error = "http_response_timeout"
    reason = "response_timeout"


class Headers(Protocol):
    """The end-to-end header fields of a message; names are compared without regard to case.

    What is changed here is what goes on. Fields that frame the message or end at this hop (`Connection`,
    `Content-Length`, `Transfer-Encoding`, ...) are the data plane's: changing one raises ValueError, and so
    does a name or value that cannot stand in a head.
    """

    def get(self, name: str) -> str | None:
        """Return the first value of this name, or None."""
        ...

    def get_all(self, name: str) -> list[str]:
        """Return all values of this name, in order."""
        ...

    def set(self, name: str, value: str) -> None:
        """Replace all fields of this name by one."""
        ...

    def add(self, name: str, value: str) -> None:
        """Add one more field."""
        ...

    def remove(self, name: str) -> None:
        """Remove all fields of this name."""
        ...

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Go through all fields in order: their names, as they were sent, and values."""
        ...

    def has_any(self, names: frozenset[str]) -> bool:
        """Return whether a field of one of these names, in lower case, is there, by one search for all."""
        ...


class Deadline(Protocol):
    """A limit that runs; see `Request.within`."""

    def cancel(self) -> None:
        """Take the limit back; nothing happens if it has passed."""
        ...


class Ended(msgspec.Struct, frozen=True):
    """What became of an exchange. Times in seconds, sizes in bytes."""

    service: str
    """`namespace/name` of the Service that was asked."""
    port: int
    source: str
    """The client's address."""
    method: str
    target: str
    status: int
    """What the client got; 0 if it left before a response."""
    endpoint: str
    """`address:port` of the last endpoint tried; empty if there was none."""
    took: float
    received: int
    sent: int
    error: ExchangeError | None
    """Why there was no response, or not all of it."""
    protocol: str = "HTTP/1.1"
    grpc_status: GrpcStatus | None = None
    """What the caller got, if it was a call of gRPC."""
    source_port: int = 0
    """The client's port."""
    reply_reason: str = ""
    """Of a response that a middleware made by itself (`Reply.reason`); empty: it is an endpoint's, or the
    mesh's answer to `error`."""


class Request(Protocol):
    """A request on its way to an endpoint. The body is streamed beside it and is not seen by layers."""

    method: str
    """`GET`. May be set until the request is sent."""
    target: str
    """In origin form: `/path?query`. May be set until the request is sent; ValueError if the new value is not
    valid."""
    backend: str
    """The Service of the same namespace whose endpoints get the request, by name; empty: the Service that was
    asked. May be set to a name that the middleware's `backends` gave, until the request is sent."""

    @property
    def headers(self) -> Headers:
        """The header fields."""
        ...

    @property
    def grpc(self) -> bool:
        """Whether it is a gRPC call, which ends with its own status (`middleware.grpc`)."""
        ...

    @property
    def source(self) -> str:
        """The address of the client's pod."""
        ...

    @property
    def head_only(self) -> bool:
        """Whether it is nothing but its head: there is no body, and no change of protocols is asked for."""
        ...

    @property
    def workload(self) -> str:
        """What the client's pod belongs to: `namespace/deployment/name`.

        Empty if it is not known, as of a pod that has just begun, or of the node itself.
        """
        ...

    @property
    def replayable(self) -> bool:
        """True while the request can be sent again: all of its body so far is kept."""
        ...

    @property
    def completed(self) -> float | None:
        """When the last byte of the request came, as of `Context.now`; None: it has not yet."""
        ...

    def within(self, seconds: float, error: Callable[[], ExchangeError]) -> Deadline:
        """Set a time limit from now on: when it passes, the request ends with `error()`.

        Set above `retry` and left alone, it is the limit of the whole request: it stays in force until the
        response's last byte (give the error `final`). Cancelled when the next handler has returned, it is
        that of one try. After the response's head, the response can only be broken off. `error` may also be
        called before, to learn whether it is `final`: an endpoint of gRPC is told of such a limit.
        """
        ...

    def race(self, seconds: float, permit: Callable[[], bool]) -> Deadline:
        """Send the request to another endpoint as well if there is no response's head after this time.

        `permit` is asked first, if a second try is possible: the request is complete and kept, switches no
        protocol, and there is an endpoint that was not tried. The head that comes first is the response; if
        one of the tries fails, the other decides. Set it before the next handler is called, and cancel it
        when that has returned or raised: this gives up the try that was too late.
        """
        ...

    def at_end(self, call: Callable[[Ended], None]) -> None:
        """Have `call` called when the exchange has ended: with its last byte, or when it was broken off."""
        ...

    def aside(self, backend: str, seconds: float, done: Callable[[int], None]) -> bool:
        """Send a copy of the request to a backend that the middleware's `backends` gave, beside the request.

        Nobody waits for it, and its response is thrown away; after `seconds` it is given up. `done` is called
        later with the response's status, 0 if there was none. To be called when the next handler has returned
        or raised: False, and nothing happens, if the body has not come whole, or is too large to be kept.
        """
        ...

    def apart(self, serve: Handler) -> None:
        """Have `serve` called at once with a copy of this request's head that belongs to no client.

        It may send that on, and goes on when this request has ended. Nobody gets the response, nor hears of
        an error; the request is not counted. Give it a limit with the copy's `within`: it has no other.
        """
        ...


class Response(Protocol):
    """The head of a response; the body follows it, streamed, once a layer has returned it."""

    @property
    def status(self) -> int:
        """The status code, 200 to 599."""
        ...

    @property
    def headers(self) -> Headers:
        """The end-to-end header fields."""
        ...

    @property
    def length(self) -> int | None:
        """The size of the body in bytes, if its head says so."""
        ...

    @property
    def grpc_status(self) -> GrpcStatus | None:
        """The status of a gRPC call, if it is known. Nearly always it comes after the last message, and is in
        what `Request.at_end` gets. None for all other requests.
        """
        ...

    async def early_status(self, seconds: float) -> GrpcStatus | None:
        """Wait for the first byte of a message, or for the end, and return `grpc_status`.

        So a call that fails before its first message is known to have failed while it can still be sent
        again. Waits for at most `seconds`, and not at all if it is not a gRPC call. Raises `ExchangeError`.
        """
        ...

    def discard(self) -> None:
        """Throw this response away, body and all, so that the request can be sent again."""
        ...

    async def read(self, limit: int) -> bytes | None:
        """Wait for the whole body and return it; None if it has more than `limit` bytes.

        The response can be returned afterwards as before: nothing of it is lost.
        """
        ...

    def collect(self, limit: int, done: Callable[[bytes | None], None]) -> None:
        """Have `done` called with the whole body once all of it has passed to the client, None if it has more
        than `limit` bytes. Nothing waits for that; return the response as usual.

        `done` is not called if the response is broken off or not returned: `Request.at_end` tells of both.
        """
        ...


class ReplyHeaders:
    """The header fields of a `Reply`. Implements `Headers`."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._fields = list(fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def get(self, name: str) -> str | None:
        """Return the first value of this name, or None."""
        return next(iter(self.get_all(name)), None)

    def get_all(self, name: str) -> list[str]:
        """Return all values of this name, in order."""
        return [value for known, value in self._fields if known.lower() == name.lower()]

    def set(self, name: str, value: str) -> None:
        """Replace all fields of this name by one."""
        self.remove(name)
        self.add(name, value)

    def add(self, name: str, value: str) -> None:
        """Add one more field."""
        check_field(name, value)
        self._fields.append((name, value))

    def has_any(self, names: frozenset[str]) -> bool:
        """Return whether a field of one of these names is there."""
        return any(name.lower() in names for name, _ in self._fields)

    def remove(self, name: str) -> None:
        """Remove all fields of this name."""
        self._fields = [field for field in self._fields if field[0].lower() != name.lower()]


class Reply:
    """A complete response that a layer makes itself. Implements `Response`.

    `Content-Length` is added. The data plane says who answered in `Proxy-Status` (RFC 9209), with `reason`.
    """

    def __init__(
        self, status: int, fields: Iterable[tuple[str, str]] = (), body: bytes = b"", reason: str = "reply"
    ) -> None:
        if not 200 <= status <= 599:
            raise ValueError(f"a reply's status is 200 to 599, not {status}")
        self.status = status
        self.headers = ReplyHeaders(fields)
        self.body = body
        self.reason = reason

    @property
    def length(self) -> int:
        """The size of the body."""
        return len(self.body)

    @property
    def grpc_status(self) -> GrpcStatus | None:
        """The status for callers of gRPC; None: the one that corresponds to `status`."""
        return None

    async def early_status(self, seconds: float) -> GrpcStatus | None:
        """Return None."""
        return None

    def discard(self) -> None:
        """Nothing is kept anywhere."""

    async def read(self, limit: int) -> bytes | None:
        """Return the body."""
        return self.body if len(self.body) <= limit else None

    def collect(self, limit: int, done: Callable[[bytes | None], None]) -> None:
        """Give the body at once: it is there."""
        done(self.body if len(self.body) <= limit else None)


_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
OWN_FIELDS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Header fields that are the data plane's, in lower case."""


@functools.lru_cache(maxsize=4096)
def check_field(name: str, value: str) -> None:
    """Check that a layer may put this field into a head.

    Raises:
        ValueError: it says why not.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:64]!r} is not the name of a header field (RFC 9110 section 5.1)")
    if name.lower() in OWN_FIELDS:
        raise ValueError(
            f"{name} is set by the mesh alone: it frames the message, or is for one connection only"
        )
    if not _VALUE.fullmatch(value):
        raise ValueError(f"{value[:64]!r} cannot be the value of a header field (RFC 9110 section 5.5)")


Handler = Callable[[Request], Awaitable[Response]]
"""Sends a request on; raises `ExchangeError`. Called again with the same request it uses another endpoint."""

Layer = Callable[[Handler], Handler]


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


class Grant(msgspec.Struct, frozen=True):
    """What a `TokenStore` gives: some tokens, or none and the seconds until there is one."""

    count: int
    wait: float


class TokenStore(Protocol):
    """Limits that all nodes of the cluster share, kept outside of them."""

    def take(
        self, key: str, interval: float, burst: int, most: int, answered: Callable[[Grant | None], None]
    ) -> None:
        """Take up to `most` tokens of a limit of one token each `interval` seconds, `burst` after a pause.

        `answered` is called once, maybe at once, with None if the store cannot be reached.
        """
        ...


WINDOW_SECONDS: Final = 10
"""How far back a `NodeWindow` reaches."""
MOST_COUNTERS: Final = 31
"""Of one `NodeWindow`."""


class NodeWindow(Protocol):
    """Counters over the last `WINDOW_SECONDS`, summed over all workers of the node, and a moment they share.

    The moment is when something began for the whole node, such as a breaker's opening. It is in nanoseconds
    of `Context.now`, 0 if there was none yet; any worker may set it, and the others see it at once. What
    was counted up to it is forgotten.

    Counting costs an addition for each counter, no lock and no system call. Seconds are forgotten as a whole,
    so the window reaches back between `WINDOW_SECONDS - 1` and `WINDOW_SECONDS`. A window that no worker has
    used for a minute may be forgotten, its moment included.
    """

    def moment(self) -> int:
        """Return the moment."""
        ...

    def begin(self, now: float, seen: int) -> bool:
        """Make `now` the moment if that is still `seen`; return whether it was, for one worker of several.

        What is counted within the same second is forgotten, too.
        """
        ...

    def reach(self, moment: int, stage: int) -> bool:
        """Return True to the first worker that says that this stage (1, 2, ...) after the moment is reached.

        False if another has said so of this stage or a later one, or if the moment is another by now.
        """
        ...

    def add(self, now: float, indices: Iterable[int], moment: int) -> bool:
        """Add 1 to the counters of these numbers (from 0), unless the moment is another than `moment` by now.

        `moment` is as it was when what is counted began, so that what began before is not counted after.
        Returns whether it was counted.
        """
        ...

    def sums(self, now: float) -> Sequence[int]:
        """Return every counter's sum over the window."""
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

    @property
    def tokens(self) -> TokenStore | None:
        """Limits that all nodes share; None: the agent has no store for them."""
        ...

    def window(self, name: str, counters: int) -> NodeWindow:
        """Return a window with this number of counters, at most `MOST_COUNTERS`, that the node's workers
        share.

        Start its name with the middleware's, and say in it all that makes the counts comparable, such as the
        options: windows of equal name, counters, service, port and rule are one and the same.

        Raises:
            ValueError: a window has not that many counters.
        """
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
    build: Callable[[Any, Context], Any]
    """`build(options, context) -> Layer`, or `Gate` for the scope `"connection"`: called once for each port
    that uses it."""
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
