"""`svc.mesh/rate-limit: 100/s burst=50 per=source`: limits the requests per unit of time; further ones get a
429.

The limit is the generic cell rate algorithm, GCRA (ITU-T I.371, annex A, the virtual scheduling form; the ATM
Forum's Traffic Management 4.0, section 4.4.2): one number for each limited thing, the theoretical arrival
time (TAT) of the next request, in nanoseconds of the node's monotonic clock. It lives in the table that all
workers of the node share, so the limit is that of the node, whatever the number of workers. A limit that was
not used for long may be forgotten without any effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Final, Literal, cast

import msgspec

from middleware.contract import (
    Annotation,
    Context,
    Handler,
    Layer,
    Metric,
    Middleware,
    Problem,
    Rejected,
    Request,
    Response,
)
from middleware.values import InvalidValue, Rate, parse_choice, parse_integer, parse_rate, problem

RATE_LIMIT: Final = "svc.mesh/rate-limit"
FASTEST: Final = 1_000_000
"""Requests per second: the interval is at least 1 µs, so that rounding it to ns stays within 0.1 %."""
LARGEST_BURST: Final = 1_000_000
"""With the slowest rate, 1/h, the TAT is at most 3.6e18 ns ahead: within an int64."""
SECOND: Final = 1_000_000_000

Per = Literal["service", "source"]

RATE_LIMITED = Metric(
    "svcmesh_rate_limited", "Requests that were refused with 429 because they came faster than the limit."
)


class RateLimited(Rejected):
    """The request came faster than the Service's owner allows (429)."""

    status = 429
    reason = "rate_limited"


class Options(msgspec.Struct, frozen=True):
    """The limit of one Service port on one node."""

    rate: Rate
    burst: int
    """Requests that may come at once after a pause."""
    per: Per = "service"


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/rate-limit`: a rate, then `burst=` and `per=` in any order, at most once each."""
    value = annotations.get(RATE_LIMIT)
    if value is None:
        return None
    try:
        return _parse(value)
    except InvalidValue as invalid:
        return problem(RATE_LIMIT, value, invalid)


def _parse(value: str) -> Options:
    rate_text, *parts = value.split() or [""]
    rate = parse_rate(rate_text, most=FASTEST)
    settings: dict[str, str] = {}
    for part in parts:
        name, equals, setting = part.partition("=")
        if not equals:
            raise InvalidValue(
                f'"{part[:64]}" is not name=value', "burst=N or per=service|source after the rate"
            )
        if parse_choice(name, ("burst", "per")) in settings:
            raise InvalidValue(f"{name} is given twice", f"{name} once")
        settings[name] = setting
    burst = max(1, SECOND // rate.interval)
    if "burst" in settings:
        burst = parse_integer(settings["burst"], least=1, most=LARGEST_BURST)
    per = parse_choice(settings.get("per", "service"), ("service", "source"))
    return Options(rate, burst, cast("Per", per))


def decide(tat: int, now: int, interval: int, tolerance: int) -> tuple[int | None, int]:
    """Decide on one request, all in ns: the TAT to store (None: refused), and how long to wait if refused.

    `interval` is the time between two requests at an even pace, `tolerance` how far ahead of it the TAT may
    run: `(burst - 1) * interval`. A TAT that is further ahead than these options allow was stored under other
    options. It is reduced, so that a limit that was raised is in force at once.
    """
    tat = min(max(tat, now), now + tolerance + interval)
    wait = tat - tolerance - now
    if wait > 0:
        return None, wait
    return tat + interval, 0


class _Limiter:
    """`decide` as the `change` of a shared table: one object for each layer, no closure for each request."""

    __slots__ = ("_interval", "_tolerance", "now", "wait")

    def __init__(self, options: Options) -> None:
        self._interval = options.rate.interval
        self._tolerance = (options.burst - 1) * self._interval
        self.now = 0
        self.wait = 0

    def change(self, tat: int) -> int | None:
        """Take the stored TAT, return the new one; leaves the time to wait in `wait`."""
        tat_after, self.wait = decide(tat, self.now, self._interval, self._tolerance)
        return tat_after


def build(options: Options, context: Context) -> Layer:
    """Return the layer for one port of a Service."""
    limiter = _Limiter(options)
    change: Callable[[int], int | None] = limiter.change
    update, now, limited = context.shared.update, context.now, context.counter(RATE_LIMITED)
    service_key = f"rate_limit|{context.service}|{context.port}|".encode()
    per_source = options.per == "source"
    whose = "this source" if per_source else "this service"
    limit = f"{options.rate.count}/{options.rate.unit} burst={options.burst}"

    def layer(handler: Handler) -> Handler:
        async def limit_rate(request: Request) -> Response:
            limiter.now = int(now() * SECOND)
            update(service_key + request.source.encode() if per_source else service_key, change)
            if limiter.wait:
                limited(1)
                seconds = ceil(limiter.wait / SECOND)
                raise RateLimited(f"over the limit of {whose}, {limit}", (("Retry-After", str(seconds)),))
            return await handler(request)

        return limit_rate

    return layer


MIDDLEWARE = Middleware(
    name="rate-limit",
    annotations=(
        Annotation(
            name=RATE_LIMIT,
            values="RATE [burst=N] [per=service|source]; RATE is a number per s, m or h",
            default="no limit; burst is one second's worth, at least 1; per=service",
            summary=(
                "Requests that each node lets through to a port of the Service, of all clients together or"
                " of each client pod; more are answered with 429 and Retry-After."
            ),
            example="svc.mesh/rate-limit: 100/s burst=50 per=source",
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    metrics=(RATE_LIMITED,),
    scope="listener",
)
