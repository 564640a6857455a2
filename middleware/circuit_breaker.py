"""`svc.mesh/circuit-breaker: NetworkErrorRatio() > 0.5`: stop sending to a Service that fails anyway.

The breaker is that of vulcand/oxy, which users of Traefik have, for one port of a Service in one worker:

- *closed*: every request passes. Every 100 ms at most, when a response comes, the condition is asked of the
  outcomes of the last ten seconds, once these are at least ten: the first failure of a quiet Service is no
  ratio.
- *open*: for ten seconds every request is answered 503 with `Retry-After`; nothing is sent.
- *recovering*: for ten more seconds a share of the requests passes that grows evenly from none to all. The
  condition is asked as before; if it holds, the breaker opens again.

Opening forgets all outcomes, and what is answered later to a request from before does not count: a state is
judged by what was sent in it. States end by the clock, so a breaker that nobody asked for a minute is closed.

What counts as an outcome: every response, and every error that is the endpoints' fault. What the mesh itself
refused or had no endpoint for does not, nor what the client spoilt. A request that the client gave up counts
as a 499 if it had sent all of it. Slow clients are not slow endpoints: latency runs from the request's last
byte.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterator, Mapping
from math import ceil
from typing import Final

import msgspec
import structlog

from middleware.contract import (
    Annotation,
    Context,
    ExchangeError,
    Handler,
    Layer,
    Metric,
    Middleware,
    NoEndpoint,
    Problem,
    Rejected,
    Request,
    Response,
)
from middleware.expression import Expression, LatencyAtQuantile, figures, holds
from middleware.expression_parser import ExpressionError, parse_expression
from middleware.outcomes import Outcomes

log = structlog.get_logger()

CIRCUIT_BREAKER: Final = "svc.mesh/circuit-breaker"
CHECK_INTERVAL: Final = 0.1
OPEN_TIME: Final = 10.0
RECOVERY_TIME: Final = 10.0
FEWEST_OUTCOMES: Final = 10
"""In the window, before the condition is asked at all."""
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


class CircuitOpen(Rejected):
    """The Service fails so often that its circuit breaker lets nothing, or not everything, through (503)."""

    proxy_error = "destination_unavailable"
    reason = "circuit_open"


class Options(msgspec.Struct, frozen=True):
    """When to open."""

    expression: str
    """As `middleware.expression_parser` reads it."""


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/circuit-breaker`."""
    value = annotations.get(CIRCUIT_BREAKER)
    if value is None:
        return None
    text = value.strip()
    try:
        parse_expression(text)
    except ExpressionError as error:
        reason = f"at column {error.column}: {error.reason}"
        return Problem(CIRCUIT_BREAKER, value, reason, f"{error.expected}, as in NetworkErrorRatio() > 0.5")
    return Options(text)


class State(enum.IntEnum):
    """As the metric shows it."""

    CLOSED = 0
    RECOVERING = 1
    OPEN = 2


class Event(enum.Enum):
    """What ends a state."""

    CONDITION_HOLDS = enum.auto()
    TIME_IS_UP = enum.auto()


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.CLOSED, Event.CONDITION_HOLDS): State.OPEN,
    (State.OPEN, Event.TIME_IS_UP): State.RECOVERING,
    (State.RECOVERING, Event.CONDITION_HOLDS): State.OPEN,
    (State.RECOVERING, Event.TIME_IS_UP): State.CLOSED,
}
"""What is not in the table does not change the state."""

DURATIONS: Final = {State.CLOSED: float("inf"), State.OPEN: OPEN_TIME, State.RECOVERING: RECOVERY_TIME}


class Change(msgspec.Struct, frozen=True):
    """The breaker has entered a state; the figures are those it was decided by, or stood at."""

    state: State
    outcomes: int
    figures: str
    """`NetworkErrorRatio()=0.62`, for every figure of the expression."""


class CircuitBreaker:
    """The policy: pure but for its own state; `now` in seconds never goes back."""

    def __init__(self, expression: Expression) -> None:
        self._expression = expression
        wanted = tuple(dict.fromkeys(figures(expression)))
        self._figures = wanted
        self._outcomes = Outcomes(latencies=any(isinstance(figure, LatencyAtQuantile) for figure in wanted))
        self.state = State.CLOSED
        self._since = 0.0
        """When the state began; being closed has no end, so its beginning does not matter."""
        self._opened = float("-inf")
        self._next_check = float("-inf")
        self._credit = 0.0
        """Requests that may pass in recovery, the whole part of it."""

    def advance(self, now: float) -> Iterator[Change]:
        """Leave every state whose time is up; yield the changes."""
        while now >= (ends := self._since + DURATIONS[self.state]):
            yield self._enter(TRANSITIONS[self.state, Event.TIME_IS_UP], ends, now)

    def admit(self, now: float) -> bool:
        """Decide on a request, after `advance`."""
        if self.state is State.CLOSED:
            return True
        if self.state is State.OPEN:
            return False
        # A share that grows with time, spent a whole request at a time: even at one request a second.
        self._credit += (now - self._since) / RECOVERY_TIME
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def record(
        self, now: float, started: float, latency: float, status: int, network_error: bool = False
    ) -> Change | None:
        """Count what became of a request that was admitted at `started`; opens the breaker if that is due."""
        if started < self._opened or self.state is State.OPEN:
            return None
        self._outcomes.record(now, latency, status, network_error)
        if now < self._next_check:
            return None
        self._next_check = now + CHECK_INTERVAL
        if self._outcomes.total(now) < FEWEST_OUTCOMES or not holds(self._expression, self._outcomes, now):
            return None
        self._opened = now
        return self._enter(TRANSITIONS[self.state, Event.CONDITION_HOLDS], now, now)

    def retry_after(self, now: float) -> float:
        """Return the seconds until requests may pass (again, or all of them)."""
        return max(self._since + DURATIONS[self.state] - now, 0.0)

    def _enter(self, state: State, since: float, now: float) -> Change:
        outcomes = self._outcomes
        shown = ", ".join(f"{figure}={figure.value(outcomes, now):.3g}" for figure in self._figures)
        change = Change(state, outcomes.total(now), shown)
        if state is State.OPEN:
            outcomes.clear()
        self.state, self._since, self._credit = state, since, 0.0
        return change


def latency(now: float, started: float, completed: float | None) -> float:
    """Return how long the endpoints took for a request that came to the breaker at `started`.

    Its last byte came at `completed`; None: it has not come yet, so they were not waited for.
    """
    return now - max(started, completed) if completed is not None else 0.0


def build(options: Options, context: Context) -> Layer:
    """Return the layer for one port of a Service.

    Raises:
        ExpressionError: the options were not made by `parse`.
    """
    breaker = CircuitBreaker(parse_expression(options.expression))
    now, rejected = context.now, context.counter(REJECTED)
    announce = _announcer(options, context)

    def check(started: float) -> None:
        for change in breaker.advance(started):
            announce(change)
        if not breaker.admit(started):
            rejected(1)
            seconds = max(1, ceil(breaker.retry_after(started)))
            detail = f"the circuit breaker is {breaker.state.name.lower()}: {options.expression}"
            raise CircuitOpen(detail, (("Retry-After", str(seconds)),))

    def record(request: Request, started: float, status: int, network_error: bool = False) -> None:
        ended = now()
        took = latency(ended, started, request.completed)
        change = breaker.record(ended, started, took, status, network_error)
        if change is not None:
            announce(change)

    def layer(handler: Handler) -> Handler:
        async def break_circuit(request: Request) -> Response:
            started = now()
            if breaker.state is not State.CLOSED:
                check(started)
            try:
                response = await handler(request)
            except ExchangeError as error:
                if error.fault == "upstream" and not isinstance(error, NoEndpoint):
                    record(request, started, error.status, network_error=True)
                raise
            except (GeneratorExit, asyncio.CancelledError):
                if request.completed is not None:
                    record(request, started, CLIENT_CLOSED_REQUEST)
                raise
            record(request, started, response.status)
            return response

        return break_circuit

    return layer


def _announcer(options: Options, context: Context) -> Callable[[Change], None]:
    """Return what tells people and metrics of a change."""
    state, opened = context.gauge(STATE), context.counter(OPENED)
    state(State.CLOSED)
    bound = log.bind(service=context.service, port=context.port, expression=options.expression)

    def announce(change: Change) -> None:
        state(change.state)
        seen = {"requests": change.outcomes, "figures": change.figures}
        if change.state is State.OPEN:
            opened(1)
            bound.warning("circuit_breaker_opened", seconds=OPEN_TIME, **seen)
        elif change.state is State.RECOVERING:
            bound.info("circuit_breaker_recovering", seconds=RECOVERY_TIME)
        else:
            bound.info("circuit_breaker_closed", **seen)

    return announce


MIDDLEWARE = Middleware(
    name="circuit-breaker",
    annotations=(
        Annotation(
            name=CIRCUIT_BREAKER,
            values=(
                "comparisons of NetworkErrorRatio(), ResponseCodeRatio(from, to, dividedFrom, dividedTo) and"
                " LatencyAtQuantileMS(q) with numbers, joined by &&, ||, ! and parentheses"
            ),
            default="no circuit breaker",
            summary=(
                "When to stop sending: if the condition holds over the last 10 s, requests are answered with"
                " 503 for 10 s, then let through again little by little over 10 s."
            ),
            example="svc.mesh/circuit-breaker: NetworkErrorRatio() > 0.5",
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    metrics=(STATE, OPENED, REJECTED),
)
