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
import enum
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from typing import Any, Final, Literal

import msgspec
import structlog

from middleware.condition import TOTAL, Condition, TooManyCounters
from middleware.contract import (
    MOST_COUNTERS,
    Annotation,
    Context,
    Ended,
    ExchangeError,
    Handler,
    Layer,
    Metric,
    Middleware,
    NodeWindow,
    NoEndpoint,
    Problem,
    Rejected,
    Request,
    Response,
)
from middleware.expression_parser import ExpressionError, parse_expression
from middleware.grpc import GrpcStatus, http_code
from middleware.values import (
    InvalidValue,
    Seconds,
    parse_choice,
    parse_duration,
    parse_integer,
    problem,
    quote,
    split_settings,
)

log = structlog.get_logger()

CIRCUIT_BREAKER: Final = "svc.mesh/circuit-breaker"
FALLBACK: Final = "svc.mesh/circuit-breaker-fallback"
RECOVERY: Final = "svc.mesh/circuit-breaker-recovery"
SAMPLES: Final = "svc.mesh/circuit-breaker-samples"
FORCE: Final = "svc.mesh/circuit-breaker-force"
CHECK_INTERVAL: Final = 0.1
OPEN_TIME: Final = 10.0
RECOVERY_TIME: Final = 10.0
FEWEST_OUTCOMES: Final = 3
"""Of the whole node in the window, before the condition is asked of a closed breaker.

One failure is no ratio, and two may be one client that tried again. Three is the least that is neither, and
more would leave a quiet Service without protection: at 0.8 requests a second a window holds eight, at 0.3
three. (oxy has no least number: it opens at the first failure.) While the breaker recovers one outcome is
enough, as in oxy: the Service failed a moment ago, and what is let through is there to find out whether it
still does.
"""
MOST_SAMPLES: Final = 1_000_000
LEAST_TIME: Final = 0.1
LONGEST_TIME: Final = 3600.0
LEAST_CHECK: Final = 0.01
LONGEST_CHECK: Final = 60.0
REFUSED: Final = 503
"""The status of what is refused, unless the owner has set another."""
SECOND: Final = 1_000_000_000
"""In nanoseconds, as moments are."""
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

_SERVICE: Final = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")


class CircuitOpen(Rejected):
    """The Service fails so often that its circuit breaker lets nothing, or not everything, through (503).

    Its owner may have set another status, or have forced it open.
    """

    proxy_error = "destination_unavailable"
    reason = "circuit_open"


class Options(msgspec.Struct, frozen=True):
    """When to open, for how long, and what happens meanwhile."""

    expression: str = ""
    """As `middleware.expression_parser` reads it; empty: it is only forced."""
    status: int = REFUSED
    """Of the answer to what does not pass."""
    fallback: str = ""
    """The Service of the namespace that gets what does not pass; empty: it is answered with `status`."""
    open_for: Seconds = OPEN_TIME
    recovery: Seconds = RECOVERY_TIME
    check_every: Seconds = CHECK_INTERVAL
    samples: int = FEWEST_OUTCOMES
    force: Literal["", "open", "closed"] = ""
    """The state that it has whatever happens; empty: it follows the expression."""


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/circuit-breaker` and what belongs to it; forcing needs no expression."""
    options = Options()
    force = annotations.get(FORCE)
    if force is not None:
        try:
            forced = parse_choice(force, ("open", "closed", "none"))
        except InvalidValue as invalid:
            return problem(FORCE, force, invalid)
        options = msgspec.structs.replace(options, force="" if forced == "none" else forced)
    value = annotations.get(CIRCUIT_BREAKER)
    if value is not None:
        text = value.strip()
        try:
            _compile(text)
        except ExpressionError as error:
            reason = f"at column {error.column}: {error.reason}"
            return Problem(
                CIRCUIT_BREAKER, value, reason, f"{error.expected}, as in NetworkErrorRatio() > 0.5"
            )
        options = msgspec.structs.replace(options, expression=text)
    for name, read in _READERS.items():
        if name not in annotations:
            continue
        if value is None and not (name == FALLBACK and options.force == "open"):
            expected = f"{CIRCUIT_BREAKER}: NetworkErrorRatio() > 0.5 beside it"
            return Problem(name, annotations[name], f"has no effect without {CIRCUIT_BREAKER}", expected)
        try:
            options = msgspec.structs.replace(options, **read(annotations[name]))
        except InvalidValue as invalid:
            return problem(name, annotations[name], invalid)
    return options if options.expression or options.force else None


def _parse_fallback(text: str) -> dict[str, Any]:
    text = text.strip()
    if _SERVICE.fullmatch(text):
        return {"fallback": text}
    try:
        return {"status": parse_integer(text, least=400, most=599)}
    except InvalidValue:
        expected = (
            "a status from 400 to 599, or the name of a Service of the namespace, such as catalog-static"
        )
        raise InvalidValue(f"{quote(text)} is neither a status nor a Service", expected) from None


def _parse_recovery(text: str) -> dict[str, Any]:
    recovery, settings = split_settings(text, ("after", "check"))
    found = {"recovery": parse_duration(recovery, least=LEAST_TIME, most=LONGEST_TIME)}
    if "after" in settings:
        found["open_for"] = parse_duration(settings["after"], least=LEAST_TIME, most=LONGEST_TIME)
    if "check" in settings:
        found["check_every"] = parse_duration(settings["check"], least=LEAST_CHECK, most=LONGEST_CHECK)
    return found


def _parse_samples(text: str) -> dict[str, Any]:
    return {"samples": parse_integer(text, least=1, most=MOST_SAMPLES)}


_READERS: Final[Mapping[str, Callable[[str], dict[str, Any]]]] = {
    FALLBACK: _parse_fallback,
    RECOVERY: _parse_recovery,
    SAMPLES: _parse_samples,
}


def _compile(text: str) -> Condition:
    """Return what an expression asks for.

    Raises:
        ExpressionError: it cannot be read, or asks for too much.
    """
    expression = parse_expression(text)
    try:
        return Condition(expression)
    except TooManyCounters as error:
        reason = f"the expression counts {error.needed - 1} different things"
        expected = f"at most {MOST_COUNTERS - 1} ranges of status codes and bounds of latencies"
        raise ExpressionError(1, reason, expected) from error


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

STAGES: Final = {State.RECOVERING: 1, State.CLOSED: 2}
"""What `NodeWindow.reach` calls the states that follow an opening."""


class Change(msgspec.Struct, frozen=True):
    """The breaker has entered a state; the figures are those it was decided by, or stood at."""

    state: State
    first: bool
    """Whether this worker is the first of the node to see the change: it is the one that logs it."""
    outcomes: int = 0
    figures: str = ""
    """`NetworkErrorRatio()=0.62`, for every figure of the expression."""


class CircuitBreaker:
    """The policy of one worker; what it shares with the others is in `window`, made for the condition's
    counters. `now` in seconds never goes back.

    A request asks for `window.moment()` when it comes: if that is not `settled`, `advance` and `admit`
    decide on it. With the same moment it goes to `record` when it is answered.
    """

    def __init__(self, condition: Condition, window: NodeWindow, options: Options | None = None) -> None:
        options = options or Options()
        self._check_every = options.check_every
        self._recovery = options.recovery
        self._troubled = options.open_for + options.recovery
        """For how long after an opening it is not closed."""
        self._samples = options.samples
        self._durations = {State.OPEN: options.open_for, State.RECOVERING: options.recovery}
        """Being closed has no end."""
        self._condition = condition
        self._indices = condition.indices
        self._window = window
        self._add = window.add
        self.state = State.CLOSED
        """As of the last `advance` or `record`."""
        self.settled = 0
        """The moment of an opening (0: none) after which the breaker is closed again: all requests pass. -1:
        it is not."""
        self._opened = 0
        """The moment that `state` follows from."""
        self._ends = float("inf")
        """When `state` ends, unless the condition holds again."""
        self._next_check = float("-inf")
        self._credit = 0.0
        """Requests that may pass in recovery, the whole part of it."""

    def advance(self, now: float, opened: int) -> Iterator[Change]:
        """Make the state follow the moment of the last opening and the clock; yield the changes."""
        if opened != self._opened:
            self._opened = opened
            if opened:  # by another worker, or before this one came
                self._enter(State.OPEN, opened / SECOND)
                yield Change(State.OPEN, first=False)
            elif self.state is not State.CLOSED:  # the window was not used for so long that it is gone
                self._enter(State.CLOSED, now)
                yield Change(State.CLOSED, first=False)
        while now >= self._ends:
            self._enter(TRANSITIONS[self.state, Event.TIME_IS_UP], self._ends)
            first = self._window.reach(opened, STAGES[self.state])
            yield self._change(self._window.sums(now), first=first)
        self.settled = opened if self.state is State.CLOSED else -1

    def admit(self, now: float) -> bool:
        """Decide on a request, after `advance`."""
        if self.state is State.CLOSED:
            return True
        # A window that nobody uses for a minute may be forgotten, but the breaker may be open for longer.
        self._add(now, (), self._opened)
        if self.state is State.OPEN:
            return False
        # A share that grows with time, spent a whole request at a time: even at one request a second.
        self._credit += 1 - (self._ends - now) / self._recovery
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def record(
        self, now: float, opened: int, latency: float, status: int, network_error: bool = False
    ) -> Change | None:
        """Count what became of a request that came when `opened` was the moment of the last opening.

        Opens the breaker if that is due.
        """
        if not self._add(now, self._indices(status, latency, network_error), opened):
            return None
        if now < self._next_check:
            return None
        self._next_check = now + self._check_every
        return self._check(now, opened)

    def retry_after(self, now: float) -> float:
        """Return the seconds until requests may pass (again, or all of them)."""
        return max(self._ends - now, 0.0)

    def _check(self, now: float, opened: int) -> Change | None:
        sums = self._window.sums(now)
        recovering = opened and now < opened / SECOND + self._troubled
        fewest = 1 if recovering else self._samples
        if sums[TOTAL] < fewest or not self._condition.holds(sums) or not self._window.begin(now, opened):
            return None
        self._opened, self.settled = self._window.moment(), -1
        self._enter(State.OPEN, self._opened / SECOND)
        return self._change(sums, first=True)

    def _enter(self, state: State, since: float) -> None:
        self.state, self._credit = state, 0.0
        self._ends = since + self._durations.get(state, float("inf"))

    def _change(self, sums: Sequence[int], first: bool) -> Change:
        return Change(self.state, first, sums[TOTAL], self._condition.figures(sums))


def latency(now: float, started: float, completed: float | None) -> float:
    """Return how long the endpoints took for a request that came to the breaker at `started`.

    Its last byte came at `completed`; None: it has not come yet, so they were not waited for.
    """
    return now - max(started, completed) if completed is not None else 0.0


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
    condition = _compile(options.expression)
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
        # A Service cannot stand in for itself.
        own = context.service.partition("/")[2]
        self._fallback = options.fallback if options.fallback != own else ""
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


MIDDLEWARE = Middleware(
    name="circuit-breaker",
    annotations=(
        Annotation(
            name=CIRCUIT_BREAKER,
            values=(
                "comparisons of NetworkErrorRatio(), ResponseCodeRatio(from, to, dividedFrom, dividedTo),"
                " LatencyAtQuantileMS(q) and RequestThreshold() with numbers, joined by &&, ||, ! and"
                " parentheses"
            ),
            default="no circuit breaker",
            summary=(
                "When to stop sending: if the condition holds over the last 10 s, requests are answered with"
                " 503 for 10 s, then let through again little by little over 10 s."
            ),
            example="svc.mesh/circuit-breaker: NetworkErrorRatio() > 0.5",
        ),
        Annotation(
            name=FALLBACK,
            values="a status from 400 to 599, or the name of a Service of the namespace",
            default=str(REFUSED),
            summary=(
                "What happens to requests that the circuit breaker does not let through: they are answered "
                "with this status, or this Service gets them."
            ),
            example="svc.mesh/circuit-breaker-fallback: catalog-static",
        ),
        Annotation(
            name=RECOVERY,
            values="DURATION [after=DURATION] [check=DURATION]; from 100ms to 1h, check from 10ms to 1m",
            default="10s after=10s check=100ms",
            summary=(
                "How long the circuit breaker takes to let requests through again little by little, after it "
                "has been open for `after`; and how often the condition is checked at most."
            ),
            example="svc.mesh/circuit-breaker-recovery: 30s after=5s",
        ),
        Annotation(
            name=SAMPLES,
            values=f'"1" to "{MOST_SAMPLES}"',
            default=f'"{FEWEST_OUTCOMES}"',
            summary=(
                "How many requests must have ended on the node within the last 10 s before the circuit "
                "breaker can open. While it recovers one is enough."
            ),
            example='svc.mesh/circuit-breaker-samples: "20"',
        ),
        Annotation(
            name=FORCE,
            values="open, closed or none",
            default="none",
            summary=(
                "Has the circuit breaker open or closed whatever happens, with or without an expression: to "
                "keep requests away from a Service, or to let all pass."
            ),
            example="svc.mesh/circuit-breaker-force: none",
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    metrics=(STATE, OPENED, REJECTED, FALLEN_BACK),
    backends=lambda options: (options.fallback,) if options.fallback else (),
    backends_by=FALLBACK,
)
