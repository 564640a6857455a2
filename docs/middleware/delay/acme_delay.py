"""`svc.mesh/delay: 250ms`: delay requests, to test how clients handle it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec

from middleware.contract import (
    Annotation,
    Context,
    Handler,
    Layer,
    Metric,
    Middleware,
    Problem,
    Request,
    Response,
)
from middleware.values import InvalidValue, Seconds, parse_duration, parse_integer, problem

DELAY: Final = "svc.mesh/delay"
EVERY: Final = "svc.mesh/delay-every"

DELAYED = Metric("svcmesh_delayed", "Requests that were delayed on purpose.")


class Options(msgspec.Struct, frozen=True):
    """How long to delay which requests."""

    seconds: Seconds
    every: int = 1


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/delay` and `svc.mesh/delay-every`."""
    delay, every = annotations.get(DELAY), annotations.get(EVERY)
    if delay is None:
        if every is None:
            return None
        return Problem(EVERY, every, f"has no effect without {DELAY}", f"{DELAY}: 250ms beside it")
    try:
        seconds = parse_duration(delay, least=0.001, most=60)
    except InvalidValue as invalid:
        return problem(DELAY, delay, invalid)
    if every is None:
        return Options(seconds)
    try:
        return Options(seconds, parse_integer(every, least=1, most=1_000_000))
    except InvalidValue as invalid:
        return problem(EVERY, every, invalid)


class Delay:
    """The policy, without a loop or a clock, so that its test needs neither."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._seen = 0

    def due(self) -> float:
        """Return for how many seconds the next request is delayed."""
        self._seen += 1
        return 0.0 if self._seen % self._options.every else self._options.seconds


def build(options: Options, context: Context) -> Layer:
    """Return the layer for one port of a Service."""
    policy = Delay(options)
    delayed = context.counter(DELAYED)

    def layer(handler: Handler) -> Handler:
        async def delay(request: Request) -> Response:
            seconds = policy.due()
            if seconds > 0:
                delayed(1)
                await asyncio.sleep(seconds)
            return await handler(request)

        return delay

    return layer


MIDDLEWARE = Middleware(
    name="delay",
    annotations=(
        Annotation(
            name=DELAY,
            values="a duration from 1ms to 1m",
            default="no delay",
            summary="How long a request is delayed.",
            example="svc.mesh/delay: 250ms",
        ),
        Annotation(
            name=EVERY,
            values='"1" to "1000000"',
            default='"1"',
            summary="Which requests are delayed: with 10, every tenth one.",
            example='svc.mesh/delay-every: "10"',
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    metrics=(DELAYED,),
)
