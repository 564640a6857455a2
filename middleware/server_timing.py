"""`svc.mesh/server-timing: on`: tell clients in `Server-Timing` how a request spent its time.

The field is that of W3C Server Timing, and the mesh adds one of its own beside those of the endpoint:

    Server-Timing: mesh;dur=0.21, connect;dur=1.04, endpoint;dur=12.30, total;dur=13.55

`mesh` is the time that belongs to no stage. After it comes a metric for each stage, in the order in which
they began. Their sum is `total`, except if a second try ran beside the first one. No metric names an
endpoint: who may see times need not see addresses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, cast

import msgspec

from middleware.contract import (
    Annotation,
    Asked,
    Context,
    Decision,
    ExchangeError,
    Handler,
    Journey,
    Layer,
    Middleware,
    Problem,
    Reply,
    Request,
    Response,
    Stage,
)
from middleware.journey import BACKOFF, CONNECT, QUEUE, TRY
from middleware.journey import MIDDLEWARE as OWN_TIME
from middleware.values import parse_annotation, parse_choice

SERVER_TIMING: Final = "svc.mesh/server-timing"
FIELD: Final = "Server-Timing"
ASKS: Final = "x-svcmesh-timing"
"""The field of a request by which it asks for its times; it has to be `1`."""
MOST_PARTS: Final = 16
"""Metrics beside `mesh` and `total`. If there are more, the sum of each name is told instead."""
LONGEST_WORD: Final = 64
"""Characters of a reason that are told."""
HELD: Final = 0.001
"""A layer has held a response back if its head waited there for so many seconds."""
LEAST: Final = 0.000005
"""Seconds that are shown as 0.01 ms."""

_UNSAFE: Final = re.compile(r"[^ !#-\[\]-~]")
"""What a quoted string would have to escape, or cannot hold."""

When = Literal["on", "on-request"]


class Part(NamedTuple):
    """One metric: what a stage took."""

    name: str
    """Of the metric."""
    seconds: float
    said: str = ""


class Options(msgspec.Struct, frozen=True):
    """Whose responses have the field."""

    when: When


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/server-timing`."""
    return parse_annotation(annotations, SERVER_TIMING, _parse)


def _parse(text: str) -> Options | None:
    word = parse_choice(text, ("on", "on-request", "off"))
    return None if word == "off" else Options(cast("When", word))


def is_wanted(options: Options, request: Asked) -> bool:
    """Whether the client of this request is told. Of several fields that ask, the first one counts."""
    return options.when == "on" or request.headers.get(ASKS) == "1"


def field_of(journey: Journey, completed: float | None = None, reason: str = "") -> str:
    """Return the value of the field.

    `completed` is when the last byte of the request came; None: it has not. `reason` is why the mesh itself
    answers; empty: an endpoint did.
    """
    parts, told = _parts(journey, completed)
    if len(parts) > MOST_PARTS:
        parts = _sums(parts, journey.tries)
    total = journey.end - journey.start
    why = [reason] if reason else []
    if journey.left_out:
        why.append(f"{journey.left_out} stages are not told apart")
    mesh = Part("mesh", max(0.0, total - told), "; ".join(why))
    return ", ".join([_metric(part) for part in (mesh, *parts, Part("total", total))])


def _parts(journey: Journey, completed: float | None) -> tuple[list[Part], float]:
    """Return what the stages took, and their seconds together; time that two share counts once."""
    parts: list[Part] = []
    told, reached, tries = 0.0, journey.start, 0
    of = journey.tries
    for index, stage in enumerate(journey.stages, 1):
        kind, start, end = stage.kind, stage.start, stage.end
        if kind == OWN_TIME:
            continue
        tries = max(tries, stage.number)
        if kind == TRY:
            end = _add_try(parts, stage, journey.stages[index:], completed, of)
        elif kind == CONNECT:
            parts.append(Part("connect", end - start, _which(stage, of)))
        elif kind == BACKOFF:
            parts.append(Part("retry", end - start, f"before try {tries + 1}"))
        elif kind == QUEUE:
            parts.append(Part("queue", end - start, "for a connection" if stage.number else ""))
        told += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return parts, told


def _add_try(
    parts: list[Part], stage: Stage, later: tuple[Stage, ...], completed: float | None, of: int
) -> float:
    """Add what a try took, and return when the last of that ends. `later` are the stages after it."""
    start, answered = stage.start, stage.end if stage.answered is None else stage.answered
    if completed is not None and completed - start >= LEAST:
        sent = min(completed, answered)
        parts.append(Part("client", sent - start))
        start = sent
    parts.append(Part("endpoint", answered - start, _which(stage, of)))
    # A response that waits to be thrown away, during the pause before a retry, is not held back.
    until = min((one.start for one in later if one.start >= answered), default=stage.end)
    until = min(until, stage.end)
    if until - answered < HELD:
        return answered
    parts.append(Part("held", until - answered))
    return until


def _which(stage: Stage, of: int) -> str:
    """Return which try it belongs to and how that ended; empty if that says nothing new."""
    if of == 1 and (stage.answered is not None or not stage.outcome):
        return ""
    what = f"try {stage.number} of {of}"
    return f"{what}: {stage.outcome}" if stage.outcome else what


def _sums(parts: list[Part], tries: int) -> list[Part]:
    """Return one part for each name."""
    sums: dict[str, float] = {}
    for name, seconds, _ in parts:
        sums[name] = sums.get(name, 0.0) + seconds
    return [
        Part(name, seconds, f"{tries} tries" if name == "endpoint" else "") for name, seconds in sums.items()
    ]


def _metric(part: Part) -> str:
    """Write a metric as W3C Server Timing has it."""
    name, seconds, said = part
    if not said:
        return f"{name};dur={seconds * 1000:.2f}"
    return f'{name};dur={seconds * 1000:.2f};desc="{_UNSAFE.sub("?", said[:LONGEST_WORD])}"'


def explain(options: Options, asked: Asked) -> Decision:
    """Say whether the client is told."""
    if is_wanted(options, asked):
        return Decision(f"tells in {FIELD} how the time was spent")
    return Decision(f"nothing: only responses to requests with {ASKS}: 1 have {FIELD}")


def build(options: Options, context: Context) -> Layer:
    """Return the layer for one port of a Service."""

    def layer(handler: Handler) -> Handler:
        async def time(request: Request) -> Response:
            if not is_wanted(options, request):
                return await handler(request)
            so_far = request.follow_journey()
            try:
                response = await handler(request)
            except ExchangeError as error:
                value = field_of(so_far(), request.completed, error.reason)
                error.headers = (*error.headers, (FIELD, value))
                raise
            reason = response.reason if isinstance(response, Reply) else ""
            response.headers.add(FIELD, field_of(so_far(), request.completed, reason))
            return response

        return time

    return layer


MIDDLEWARE = Middleware(
    name="server-timing",
    annotations=(
        Annotation(
            name=SERVER_TIMING,
            values="on, on-request or off",
            default="off",
            summary=(
                "Whether clients are told in Server-Timing how their requests spent their time until the"
                " response's head: in the mesh, in queues, with connecting, between tries and at endpoints."
                f" With `on-request` only clients are told whose requests have the field `{ASKS}: 1`."
            ),
            example="svc.mesh/server-timing: on-request",
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    scope="listener",
)
