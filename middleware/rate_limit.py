"""`svc.mesh/rate-limit: 100/s burst=50 per=source`: limits the requests per unit of time; further ones get a
429.

All requests share one limit, or each pod, each workload of pods or each value of a header field has its own.

The limit is the generic cell rate algorithm, GCRA (ITU-T I.371, annex A, the virtual scheduling form; the ATM
Forum's Traffic Management 4.0, section 4.4.2): one number for each limited thing, the theoretical arrival
time (TAT) of the next request, in nanoseconds of the node's monotonic clock. It lives in the table that all
workers of the node share, so the limit is that of the node, whatever the number of workers. A limit that was
not used for long may be forgotten without any effect.

With `headers=on` responses say what is left, as draft-ietf-httpapi-ratelimit-headers-10 has it. GCRA has no
windows. In its words the quota is the burst, and the window the time in which an empty burst is full again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2b
from math import ceil, inf
from typing import Final, Literal, cast

import msgspec

from middleware.cluster_limit import AWAY, Away, ClusterLimit, build_cluster, retry_after
from middleware.contract import (
    Annotation,
    Asked,
    Context,
    Decision,
    ExchangeError,
    Handler,
    Layer,
    Limit,
    Metric,
    Middleware,
    Problem,
    Rejected,
    Request,
    Response,
    check_field,
)
from middleware.values import (
    InvalidValue,
    Rate,
    parse_annotation,
    parse_choice,
    parse_integer,
    parse_rate,
    split_settings,
)

RATE_LIMIT: Final = "svc.mesh/rate-limit"
FASTEST: Final = 1_000_000
"""Requests per second: the interval is at least 1 µs, so that rounding it to ns stays within 0.1 %."""
LARGEST_BURST: Final = 1_000_000
"""With the slowest rate, 1/h, the TAT is at most 3.6e18 ns ahead: within an int64."""
SECOND: Final = 1_000_000_000

HEADER: Final = "header"
DEFAULT_KEYS: Final = 1000
MOST_KEYS: Final = 10_000
"""The node's table holds 32,768 numbers, of all Services."""

SCOPES: Final = ("node", "cluster")

REMEMBERED: Final = 128
"""Bytes of a field's value up to which its digest is remembered."""

Per = Literal["service", "source", "workload", "header"]

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
    header: str = ""
    """The field's name, if each of its values has a limit of its own."""
    keys: int = DEFAULT_KEYS
    """Values of that field that may have one at the same time."""
    headers: bool = False
    """Responses say what is left."""
    scope: Literal["node", "cluster"] = "node"
    away: Away = "open"
    """With the scope `cluster`: what happens while the store of these limits is away."""


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/rate-limit`: a rate, then its settings in any order, at most once each."""
    return parse_annotation(annotations, RATE_LIMIT, _parse)


def _parse(value: str) -> Options:
    rate_text, settings = split_settings(value, ("burst", "per", "keys", "headers", "scope", "away"))
    rate = parse_rate(rate_text, most=FASTEST)
    burst = max(1, SECOND // rate.interval)
    if "burst" in settings:
        burst = parse_integer(settings["burst"], least=1, most=LARGEST_BURST)
    per, header = _parse_per(settings.get("per", "service"))
    keys = DEFAULT_KEYS
    if "keys" in settings:
        if not header:
            raise InvalidValue("keys has no effect without per=header:NAME", "per=header:NAME beside it")
        keys = parse_integer(settings["keys"], least=1, most=MOST_KEYS)
    headers = parse_choice(settings.get("headers", "off"), ("on", "off")) == "on"
    scope = cast('Literal["node", "cluster"]', parse_choice(settings.get("scope", "node"), SCOPES))
    if scope == "cluster" and headers:
        raise InvalidValue(
            "no node knows what is left of a limit of the whole cluster", "headers=off with scope=cluster"
        )
    if "away" in settings and scope != "cluster":
        raise InvalidValue("away has no effect without scope=cluster", "scope=cluster beside it")
    away = cast("Away", parse_choice(settings.get("away", "open"), ("open", "closed")))
    return Options(rate, burst, per, header, keys, headers, scope, away)


def _parse_per(text: str) -> tuple[Per, str]:
    kind, colon, name = text.partition(":")
    if kind != HEADER:
        known = ("service", "source", "workload")
        return cast("Per", parse_choice(text, known, also=" or header:NAME")), ""
    try:
        check_field(name, "")
    except ValueError as error:
        reason = str(error) if colon else "the name of the header field is missing"
        raise InvalidValue(reason, "header:NAME, such as header:x-tenant") from None
    return HEADER, name.lower()


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


class Limiter:
    """`decide` as the `change` of a shared table: one object for each layer, no closure for each request."""

    __slots__ = ("_interval", "_tolerance", "backlog", "now", "wait")

    def __init__(self, interval: int, burst: int) -> None:
        self._interval = interval
        self._tolerance = (burst - 1) * interval
        self.now = 0
        self.wait = 0
        self.backlog = 0
        """How far the TAT is ahead now: the time until the burst is full again."""

    def change(self, tat: int) -> int | None:
        """Take the stored TAT, return the new one; leaves the time to wait in `wait`."""
        tat_after, self.wait = decide(tat, self.now, self._interval, self._tolerance)
        self.backlog = self.wait + self._tolerance if tat_after is None else tat_after - self.now
        return tat_after

    @property
    def left(self) -> int:
        """How many more requests may come now."""
        return max(self._tolerance + self._interval - self.backlog, 0) // self._interval


class Keys:
    """Which values of a header field have a limit of their own: at most `most` at the same time.

    A value is forgotten for another one only when nothing is lost by it, since its burst is full again after
    `refill` seconds. Until then the further values have one limit together. So a client that sends a new
    value with each request gets `most` bursts and then the pace of one client, and the others keep their
    limits.
    """

    OTHERS: Final = b"others"

    def __init__(self, most: int, refill: float) -> None:
        self._most = most
        self._refill = refill
        self._used: OrderedDict[bytes, float] = OrderedDict()
        """When each was used last, in that order."""

    def key(self, value: bytes, now: float) -> bytes:
        """Return what the limit of this value is kept under: 16 bytes, which do not show the value."""
        key = _short_digest(value) if len(value) <= REMEMBERED else _digest(value)
        used = self._used
        if key in used:
            used.move_to_end(key)
        elif len(used) >= self._most:
            oldest, when = next(iter(used.items()))
            if now - when < self._refill:
                return self.OTHERS
            del used[oldest]
        used[key] = now
        return key


def _digest(value: bytes) -> bytes:
    return blake2b(value, digest_size=16).digest()


_short_digest = lru_cache(maxsize=4096)(_digest)


def _namer(options: Options, now: Callable[[], float]) -> Callable[[Request], bytes] | None:
    """Return what says whose limit a request is under; None if all have the same."""
    if options.per == "source":
        return lambda request: request.source.encode()
    if options.per == "workload":
        # A pod that the agent does not know (yet) is one of its own.
        return lambda request: (request.workload or request.source).encode()
    if options.per == "header":
        keys, name = Keys(options.keys, options.rate.interval * options.burst / SECOND), options.header
        return lambda request: keys.key((request.headers.get(name) or "").encode("utf-8"), now())
    return None


WHOSE: Final[Mapping[Per, str]] = {
    "service": "this service",
    "source": "this source",
    "workload": "this workload",
    "header": "this value of {}",
}


def build(options: Options, context: Context) -> Layer:
    """Return the layer for one port of a Service."""
    limiter = Limiter(options.rate.interval, options.burst)
    change: Callable[[int], int | None] = limiter.change
    update, now, limited = context.shared.update, context.now, context.counter(RATE_LIMITED)
    service_key = f"rate_limit|{context.service}|{context.port}|".encode()
    name = _namer(options, now)
    whose = WHOSE[options.per].format(options.header)
    limit = f"{options.rate.count}/{options.rate.unit} burst={options.burst}"

    def decide_on(request: Request) -> None:
        """Count the request, and raise if it comes too early."""
        limiter.now = int(now() * SECOND)
        update(service_key if name is None else service_key + name(request), change)
        if limiter.wait:
            limited(1)
            seconds = ceil(limiter.wait / SECOND)
            raise RateLimited(f"over the limit of {whose}, {limit}", (("Retry-After", str(seconds)),))

    if options.scope == "cluster":
        shared = ClusterLimit(context, options.rate.interval / SECOND, options.burst)

        def refused(wait: float) -> RateLimited:
            limited(1)
            return RateLimited(f"over the limit of {whose} in the cluster, {limit}", retry_after(wait))

        return build_cluster(shared, options.away, context, name, refused, decide_on)
    if options.headers:
        return _telling(options, limiter, decide_on)

    def layer(handler: Handler) -> Handler:
        async def limit_rate(request: Request) -> Response:
            decide_on(request)
            return await handler(request)

        return limit_rate

    return layer


def explain(options: Options, asked: Asked) -> Decision:
    """Say under which limit the request is counted."""
    if options.per == "header":
        whose = f"{options.header}: {asked.headers.get(options.header) or '(empty)'}"
    elif options.per == "workload":
        whose = f"the workload {asked.workload or asked.source}"
    else:
        whose = f"the source {asked.source}" if options.per == "source" else "all clients"
    limit = f"{options.rate.count}/{options.rate.unit} burst={options.burst}"
    of = "the cluster" if options.scope == "cluster" else "this node"
    return Decision(
        f"counts it for {whose}, on {of}: {limit}; a 429 if that is used up at the moment", perhaps=(429,)
    )


def _telling(options: Options, limiter: Limiter, decide_on: Callable[[Request], None]) -> Layer:
    """Return the layer that also says what is left, in every response, of an endpoint or of the mesh."""
    window = ceil(options.rate.interval * options.burst / SECOND)
    policy = ("RateLimit-Policy", f'"svc.mesh";q={options.burst};w={window}')

    def layer(handler: Handler) -> Handler:
        async def limit_rate(request: Request) -> Response:
            try:
                decide_on(request)
            except RateLimited as error:
                error.headers = (*error.headers, policy, _service_limit(limiter))
                raise
            left = _service_limit(limiter)
            try:
                response = await handler(request)
            except ExchangeError as error:
                error.headers = (*error.headers, policy, left)
                raise
            # Both are lists (RFC 9651 section 3.1): the Service's own items stay in front of ours.
            add = response.headers.add
            add(*policy)
            add(*left)
            return response

        return limit_rate

    return layer


def _service_limit(limiter: Limiter) -> tuple[str, str]:
    """Return the field that says how many more may come now, and when the burst is full again."""
    return "RateLimit", f'"svc.mesh";r={limiter.left};t={ceil(limiter.backlog / SECOND)}'


MIDDLEWARE = Middleware(
    name="rate-limit",
    annotations=(
        Annotation(
            name=RATE_LIMIT,
            values=(
                "RATE [burst=N] [per=service|source|workload|header:NAME] [keys=1000] [headers=on]"
                " [scope=node|cluster] [away=open|closed]; RATE is a number per s, m or h"
            ),
            default=(
                "no limit; burst is one second's worth, at least 1; per=service; headers=off; scope=node;"
                " away=open"
            ),
            summary=(
                "Requests that each node lets through to a port of the Service: of all clients together, of"
                " each client pod, each workload, or with each value of a header field, at most `keys` of"
                " them. More are answered with 429 and Retry-After. With `headers=on` responses say how many"
                " are left. With `scope=cluster` all nodes share the limit, in the store of `--token-store`."
            ),
            example="svc.mesh/rate-limit: 100/s burst=50 per=source",
            limit=Limit(lambda text: parse_rate(text, most=FASTEST).per_second, absent=inf),
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    metrics=(RATE_LIMITED, AWAY),
    scope="listener",
)
