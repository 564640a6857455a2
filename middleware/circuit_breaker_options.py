"""What owners say about circuit breakers: the annotations, what may stand in them, and the options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from middleware.condition import Condition, TooManyCounters
from middleware.contract import MOST_COUNTERS, Annotation, Problem
from middleware.expression_parser import ExpressionError, parse_expression
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
_SERVICE: Final = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")


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
            compile_condition(text)
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
            reason = f"has no effect without {CIRCUIT_BREAKER}"
            return Problem(name, annotations[name], reason, expected, incomplete=True)
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


def compile_condition(text: str) -> Condition:
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


ANNOTATIONS: Final = (
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
)
