"""`svc.mesh/timeout: 5s` and three more: how long things may take.

A request has a limit for all of it, from its head to the last byte of the response, and one for each of its
tries, up to the response's head. A connection of any protocol has one for connecting to an endpoint and one
for how long nothing may move.

Whose fault it is that a limit has passed is decided as Envoy does it: while the client has not sent all of
its request, it is the one that was slow, and gets a 408; else the endpoint was, and the client gets a 504.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable, Mapping
from typing import Final

import msgspec

from middleware.contract import (
    Annotation,
    Asked,
    Connection,
    Context,
    Decision,
    ExchangeError,
    Gate,
    GatewayTimeout,
    Handler,
    Layer,
    Limit,
    Middleware,
    Problem,
    Request,
    Response,
)
from middleware.values import InvalidValue, Seconds, format_duration, parse_duration, problem

TIMEOUT: Final = "svc.mesh/timeout"
PER_TRY_TIMEOUT: Final = "svc.mesh/per-try-timeout"
CONNECT_TIMEOUT: Final = "svc.mesh/connect-timeout"
IDLE_TIMEOUT: Final = "svc.mesh/idle-timeout"

BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    TIMEOUT: (0.001, 86400.0),
    PER_TRY_TIMEOUT: (0.001, 86400.0),
    CONNECT_TIMEOUT: (0.001, 60.0),
    IDLE_TIMEOUT: (1.0, 86400.0),
}
"""The least and the most of each, in seconds."""


class RequestTimedOut(GatewayTimeout):
    """The time of the whole request is up (504)."""

    reason = "request_timeout"
    final = True


class TryTimedOut(GatewayTimeout):
    """The endpoint did not answer in the time of one try (504)."""

    reason = "try_timeout"


class Options(msgspec.Struct, frozen=True):
    """A limit of requests, or of their tries."""

    limit: Seconds


class ConnectionTimes(msgspec.Struct, frozen=True):
    """The limits of connections, in seconds; None: the mesh's own."""

    connect: float | None
    idle: float | None


def parse_timeout(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/timeout`."""
    seconds = _read(annotations, TIMEOUT)
    return Options(seconds) if isinstance(seconds, float) else seconds


def parse_per_try(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/per-try-timeout`, which is not longer than `svc.mesh/timeout`."""
    seconds, whole = _read(annotations, PER_TRY_TIMEOUT), _read(annotations, TIMEOUT)
    if not isinstance(seconds, float):
        return seconds
    if isinstance(whole, float) and seconds > whole:
        reason = f"{seconds:g}s is longer than {TIMEOUT}: {whole:g}s, which ends first"
        return Problem(
            PER_TRY_TIMEOUT, annotations[PER_TRY_TIMEOUT], reason, f"a duration of at most {whole:g}s"
        )
    return Options(seconds)


def parse_connection_times(annotations: Mapping[str, str]) -> ConnectionTimes | Problem | None:
    """Read `svc.mesh/connect-timeout` and `svc.mesh/idle-timeout`."""
    connect, idle = _read(annotations, CONNECT_TIMEOUT), _read(annotations, IDLE_TIMEOUT)
    if isinstance(connect, Problem):
        return connect
    if isinstance(idle, Problem):
        return idle
    return None if connect is None and idle is None else ConnectionTimes(connect, idle)


def _read(annotations: Mapping[str, str], name: str) -> float | Problem | None:
    text = annotations.get(name)
    if text is None:
        return None
    least, most = BOUNDS[name]
    try:
        return parse_duration(text, least=least, most=most)
    except InvalidValue as invalid:
        return problem(name, text, invalid)


def _limit(name: str, absent: float) -> Limit:
    least, most = BOUNDS[name]
    return Limit(functools.partial(parse_duration, least=least, most=most), absent)


def _passed(error: type[GatewayTimeout], detail: str, request: Request) -> ExchangeError:
    """Return the error of a limit that has passed; it blames the side that the other one had to wait for."""
    if request.completed is not None:
        return error(detail)
    slow = error(f"{detail}; the request had not arrived completely")
    slow.fault, slow.status, slow.proxy_error = "client", 408, "http_request_error"
    return slow


def build_timeout(options: Options, _context: Context) -> Layer:
    """Return the layer that limits whole requests; the limit outlasts it, to the response's last byte."""
    seconds = options.limit
    passed = functools.partial(
        _passed, RequestTimedOut, f"no complete response within {TIMEOUT}: {seconds:g}s"
    )

    def layer(handler: Handler) -> Handler:
        def limit_request(request: Request) -> Awaitable[Response]:
            request.within(seconds, functools.partial(passed, request))
            return handler(request)  # the limit outlasts this layer, so there is nothing to wait for here

        return limit_request

    return layer


def build_per_try(options: Options, _context: Context) -> Layer:
    """Return the layer that limits each try."""
    seconds = options.limit
    passed = functools.partial(_passed, TryTimedOut, f"no response within {PER_TRY_TIMEOUT}: {seconds:g}s")

    def layer(handler: Handler) -> Handler:
        async def limit_try(request: Request) -> Response:
            limit = request.within(seconds, functools.partial(passed, request))
            try:
                return await handler(request)
            finally:
                limit.cancel()

        return limit_try

    return layer


def build_connection_times(options: ConnectionTimes, _context: Context) -> Gate:
    """Return the gate that sets the times of new connections."""
    connect, idle = options.connect, options.idle

    def set_times(connection: Connection) -> None:
        if connect is not None:
            connection.connect_time = connect
        if idle is not None:
            connection.idle_time = idle

    return set_times


def explain_timeout(options: Options, _asked: Asked) -> Decision:
    """Say how long the request may take."""
    limit = format_duration(options.limit)
    return Decision(f"it may take {limit}, with all its tries; then it gets a 504", perhaps=(504, 408))


def explain_per_try(options: Options, _asked: Asked) -> Decision:
    """Say how long each try may take."""
    return Decision(f"each try may take {format_duration(options.limit)}", perhaps=(504, 408))


def explain_connection_times(options: ConnectionTimes, _asked: Asked) -> Decision:
    """Say what the connection's times are."""
    said = []
    if options.connect is not None:
        said.append(f"connecting to an endpoint may take {format_duration(options.connect)}")
    if options.idle is not None:
        said.append(f"nothing may move for {format_duration(options.idle)}")
    return Decision("; ".join(said), perhaps=(504, 408) if options.idle is not None else ())


MIDDLEWARE = Middleware(
    name="timeout",
    annotations=(
        Annotation(
            name=TIMEOUT,
            values="a duration from 1ms to 24h",
            default="no limit",
            summary=(
                "How long a request may take, with all its tries, from its head to the last byte of the"
                " response; then the client gets a 504."
            ),
            example="svc.mesh/timeout: 5s",
            limit=_limit(TIMEOUT, math.inf),
        ),
    ),
    options=Options,
    parse=parse_timeout,
    build=build_timeout,
    explain=explain_timeout,
)

PER_TRY = Middleware(
    name="per-try-timeout",
    annotations=(
        Annotation(
            name=PER_TRY_TIMEOUT,
            values="a duration from 1ms to 24h, not longer than svc.mesh/timeout",
            default="no limit",
            summary=(
                "How long an endpoint may take to answer one try of a request, up to the response's head;"
                " then the request is tried again as the retries allow, or the client gets a 504."
            ),
            example="svc.mesh/per-try-timeout: 1s",
        ),
    ),
    options=Options,
    parse=parse_per_try,
    build=build_per_try,
    explain=explain_per_try,
    scope="try",
    page="timeout",
)

CONNECTION_TIMES = Middleware(
    name="connection-times",
    annotations=(
        Annotation(
            name=CONNECT_TIMEOUT,
            values="a duration from 1ms to 1m",
            default="3s",
            summary="How long connecting to an endpoint may take, on ports of any protocol.",
            example="svc.mesh/connect-timeout: 500ms",
            limit=_limit(CONNECT_TIMEOUT, 3.0),
        ),
        Annotation(
            name=IDLE_TIMEOUT,
            values="a duration from 1s to 24h",
            default="no limit, except 1m for a body that stalls",
            summary="How long nothing may move in a tcp connection, or in an http request and its response.",
            example="svc.mesh/idle-timeout: 5m",
            limit=_limit(IDLE_TIMEOUT, math.inf),
        ),
    ),
    options=ConnectionTimes,
    parse=parse_connection_times,
    build=build_connection_times,
    explain=explain_connection_times,
    scope="connection",
    page="timeout",
)
