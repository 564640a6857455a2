"""`svc.mesh/circuit-breaker: NetworkErrorRatio() > 0.5`: stop sending to a Service that fails anyway.

The breaker works like that of vulcand/oxy, which Traefik uses. It belongs to one port of a Service on one
node: the workers of the node count together, and a decision of one of them is in force for all.

- *closed*: every request passes. When a response comes, but at most every 100 ms, the condition is checked
  for the outcomes of the last ten seconds, if there are at least `FEWEST_OUTCOMES`.
- *open*: for ten seconds every request is answered with 503 and `Retry-After`, and nothing is sent; or
  another Service gets it.
- *recovering*: for ten more seconds a share of the requests passes that grows evenly from none to all. The
  condition is checked as before, from the first outcome on; if it is true, the breaker opens again.

The owner may set these times and numbers, or force the breaker open or closed.

Workers share no state but the moment of the last opening (`NodeWindow.moment`): state follows from it and
from the clock, which is the same for all of them, so a breaker that was not used for a minute is closed. When
it opens, all outcomes are forgotten, and a late response to a request from before does not count: a state is
judged by the requests that were sent in it.

What counts as an outcome: every response, and every error that is the endpoints' fault. Requests that the
mesh refused, for which there was no endpoint, or that failed because of the client, do not count. A request
that the client gave up counts as a 499 if all of it had been sent. Slow clients are not slow endpoints:
latency runs from the request's last byte.

A gRPC call counts when its status is known, which is nearly always at its end. It counts as the HTTP status
code with the same meaning (`middleware.grpc.http_code`), so that expressions apply to calls too.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from math import ceil
from typing import Final

import structlog

from middleware.circuit_breaker_options import ANNOTATIONS, FALLBACK, FORCE, Options, compile_condition, parse
from middleware.circuit_breaker_states import Change, CircuitBreaker, State, latency
from middleware.contract import (
    AskedHere,
    Context,
    Decision,
    Ended,
    ExchangeError,
    Handler,
    Layer,
    Metric,
    Middleware,
    NoEndpoint,
    Rejected,
    Request,
    Response,
)
from middleware.grpc import GrpcStatus, http_code

log = structlog.get_logger()

CLIENT_CLOSED_REQUEST: Final = 499
"""The status, as nginx and Traefik count it, of a request that the client gave up."""

STATE = Metric(
    "svcmesh_circuit_breaker_state",
    "State of the circuit breaker at its last request: 0 closed, 1 recovering, 2 open.",
    "gauge",
)
OPENED = Metric("svcmesh_circuit_breaker_opened", "Times that the circuit breaker opened.")
REJECTED = Metric(
    "svcmesh_circuit_breaker_rejected", "Requests that a circuit breaker refused, open or recovering."
)
FALLEN_BACK = Metric(
    "svcmesh_circuit_breaker_fallback",
    "Requests that a circuit breaker, open or recovering, sent to the fallback Service.",
)


class CircuitOpen(Rejected):
    """The Service fails so often that its circuit breaker lets nothing, or not everything, through (503).

    Its owner may have set another status, or have forced it open.
    """

    proxy_error = "destination_unavailable"
    reason = "circuit_open"


class _Calls:
    """Counts gRPC calls, nearly all of them when they have ended; their latency is that of the head."""

    def __init__(
        self,
        breaker: CircuitBreaker,
        announce: Callable[[Change], None],
        now: Callable[[], float],
        timed: bool,
    ) -> None:
        self._breaker = breaker
        self._announce = announce
        self._now = now
        self._timed = timed

    def answered(self, request: Request, response: Response, started: float, opened: int) -> None:
        """Take note of a response's head."""
        now = self._now()
        took = latency(now, started, request.completed) if self._timed else 0.0
        if response.status == 200 and response.grpc_status is None:
            request.at_end(functools.partial(self._ended, request, took, opened))
        else:
            self._count(now, took, opened, http_code(response.status, response.grpc_status), False)

    def _ended(self, request: Request, took: float, opened: int, ended: Ended) -> None:
        if ended.error is not None:
            if ended.error.fault == "upstream":
                self._count(self._now(), took, opened, ended.error.status, True)
        elif ended.grpc_status is not GrpcStatus.CANCELLED or request.completed is not None:
            status = http_code(ended.status, ended.grpc_status) if ended.status else CLIENT_CLOSED_REQUEST
            self._count(self._now(), took, opened, status, False)

    def _count(self, now: float, took: float, opened: int, status: int, network_error: bool) -> None:
        change = self._breaker.record(now, opened, took, status, network_error)
        if change is not None:
            self._announce(change)


def build(options: Options, context: Context) -> Layer:
    """Return the layer for one port of a Service.

    Raises:
        ExpressionError: the options were not made by `parse`.
    """
    refusals = _Refusals(options, context)
    if options.force:
        context.gauge(STATE)(State[options.force.upper()])
        return refusals.layer if options.force == "open" else lambda handler: handler
    condition = compile_condition(options.expression)
    window = context.window(f"circuit_breaker|{options.expression}", condition.counters)
    breaker = CircuitBreaker(condition, window, options)
    moment, timed = window.moment, condition.timed
    now, refuse = context.now, refusals.refuse
    announce = _announcer(options, context)

    def passes(started: float, opened: int) -> bool:
        for change in breaker.advance(started, opened):
            announce(change)
        return breaker.admit(started)

    def record(
        request: Request, started: float, opened: int, status: int, network_error: bool = False
    ) -> None:
        ended = now()
        took = latency(ended, started, request.completed) if timed else 0.0
        change = breaker.record(ended, opened, took, status, network_error)
        if change is not None:
            announce(change)

    calls = _Calls(breaker, announce, now, timed)

    def layer(handler: Handler) -> Handler:
        async def break_circuit(request: Request) -> Response:
            started = now()
            opened = moment()
            if opened != breaker.settled and not passes(started, opened):
                detail = f"the circuit breaker is {breaker.state.name.lower()}: {options.expression}"
                return await refuse(handler, request, detail, breaker.retry_after(started))
            try:
                response = await handler(request)
            except ExchangeError as error:
                if error.fault == "upstream" and not isinstance(error, NoEndpoint):
                    record(request, started, opened, error.status, network_error=True)
                raise
            except (GeneratorExit, asyncio.CancelledError):
                if request.completed is not None:
                    record(request, started, opened, CLIENT_CLOSED_REQUEST)
                raise
            if request.grpc:
                calls.answered(request, response, started, opened)
            else:
                record(request, started, opened, response.status)
            return response

        return break_circuit

    return layer


class _Refusals:
    """What becomes of requests that do not pass: another Service gets them, or they are refused."""

    def __init__(self, options: Options, context: Context) -> None:
        self._fallback = fallback_of(options, context.service)
        self._status = options.status
        self._rejected, self._fallen_back = context.counter(REJECTED), context.counter(FALLEN_BACK)

    async def refuse(
        self, handler: Handler, request: Request, detail: str, seconds: float | None = None
    ) -> Response:
        """Send the request to the fallback Service, or refuse it, for these seconds if that is known."""
        if self._fallback:
            self._fallen_back(1)
            request.backend = self._fallback
            return await handler(request)
        self._rejected(1)
        again = () if seconds is None else (("Retry-After", str(max(1, ceil(seconds)))),)
        error = CircuitOpen(detail, again)
        error.status = self._status
        raise error

    def layer(self, handler: Handler) -> Handler:
        """The layer of a breaker that is forced open."""

        async def refuse_all(request: Request) -> Response:
            return await self.refuse(handler, request, f"the circuit breaker is open: {FORCE}: open")

        return refuse_all


def _announcer(options: Options, context: Context) -> Callable[[Change], None]:
    """Return what tells metrics of a change, and people if no other worker has."""
    state, opened = context.gauge(STATE), context.counter(OPENED)
    state(State.CLOSED)
    bound = log.bind(service=context.service, port=context.port, expression=options.expression)

    def announce(change: Change) -> None:
        state(change.state)
        if not change.first:
            return
        seen = {"requests": change.outcomes, "figures": change.figures}
        if change.state is State.OPEN:
            opened(1)
            bound.warning("circuit_breaker_opened", open_ms=round(options.open_for * 1000), **seen)
        elif change.state is State.RECOVERING:
            bound.info("circuit_breaker_recovering", recovery_ms=round(options.recovery * 1000))
        else:
            bound.info("circuit_breaker_closed", **seen)

    return announce


def fallback_of(options: Options, service: str) -> str:
    """Return the Service that gets what does not pass; empty: none, as it cannot stand in for itself."""
    return options.fallback if options.fallback != service.partition("/")[2] else ""


def explain(options: Options, asked: AskedHere) -> Decision:
    """Say when the request does not pass, and what becomes of it then."""
    fallback = fallback_of(options, asked.service)
    otherwise = f"goes to {fallback}" if fallback else f"is answered with {options.status}"
    if options.force == "closed":
        return Decision("passes: it is forced closed")
    if options.force == "open":
        if fallback:
            asked.backend = fallback
            return Decision(f"{otherwise}: it is forced open")
        return Decision(f"{otherwise}: it is forced open", options.status, reason=CircuitOpen.reason)
    return Decision(
        f"passes while it is closed; {otherwise} while it is open, which it is after {options.expression}",
        perhaps=() if fallback else (options.status,),
        otherwise=fallback,
    )


MIDDLEWARE = Middleware(
    name="circuit-breaker",
    annotations=ANNOTATIONS,
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    metrics=(STATE, OPENED, REJECTED, FALLEN_BACK),
    backends=lambda options: (options.fallback,) if options.fallback else (),
    backends_by=FALLBACK,
)
