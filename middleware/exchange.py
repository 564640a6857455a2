"""A request on its way, its response and its end, as layers see them.

Part of `middleware.contract`, where authors import it from.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from middleware.errors import ExchangeError
from middleware.grpc import GrpcStatus
from middleware.journey import Journey, StageKind
from middleware.messages import Headers


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
    http_version: str = "1.1"
    """Of HTTP as the client speaks it: `1.0`, `1.1` or `2`."""
    grpc_status: GrpcStatus | None = None
    """What the caller got, if it was a call of gRPC."""
    source_port: int = 0
    """The client's port."""
    reply_reason: str = ""
    """Of a response that a middleware made by itself (`Reply.reason`); empty: it is an endpoint's, or the
    mesh's answer to `error`."""
    journey: Journey | None = None
    """How it spent its time; None: nobody has asked for it (a layer does so by `Request.follow_journey`)."""
    trace_id: str = ""
    """Of the trace that the request names, for the access log; empty: it names none, or nobody has asked."""


class Asked(Protocol):
    """The part of a request that layers decide by before it is sent."""

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


class Request(Asked, Protocol):
    """A request on its way to an endpoint. The body is streamed beside it and is not seen by layers."""

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

    def waited(self, kind: StageKind, start: float) -> None:
        """Tell what the request has waited for from `start` (as of `Context.now`) until now.

        It is then shown as a stage of this kind of its journey, if anybody wants that, and not as
        `middleware`.
        """
        ...

    def follow_journey(self) -> Callable[[], Journey]:
        """Have the stages of this request noted, and return what tells those until it is called.

        To be called before the next handler: what happens before it is called is told as `middleware`. A
        stage that is under way is told as if it ended now, and a try's has `answered` once its head has come.
        """
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

    def trailer(self, name: str) -> str | None:
        """Return the first value of a field that a gRPC call has ended with: in its trailers, or in a head
        that is all of its response. None: it is not there, or not known yet (see `grpc_status`).
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


Handler = Callable[[Request], Awaitable[Response]]
"""Sends a request on; raises `ExchangeError`. Called again with the same request it uses another endpoint."""

Layer = Callable[[Handler], Handler]
