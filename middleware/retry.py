"""`svc.mesh/retry-attempts: "2"`: send a request again, to another endpoint, when the first one failed.

Always retried: connect failures, connections that broke, endpoints that did not answer in a try's time.
`svc.mesh/retry-on` adds status codes, with Envoy's words where they fit. A status stands for responses and
for errors alike: `5xx` also means the 502 or 503 that the mesh would answer for an endpoint.

Never retried: a request that an endpoint may have processed, unless its method is idempotent (RFC 9110
section 9.2.2) or the owner has named it in `svc.mesh/retry-methods`; one whose body is no longer kept whole,
or whose own time is up; what an endpoint wants to have later than the owner lets a request wait
(`Retry-After`); and anything above the budget of retries.

A gRPC call is always a POST, and its failure an HTTP 200. It is sent again if the status, from the mesh or
from the endpoint, is one that the owner has named with gRPC's word (`unavailable`): the owner has to know
whether the call may be made twice, as with gRPC's own retry policy. The status often comes after a head that
does not have it. So the head of such a call is held back until the first byte of a message or the end has
come, for at most `PATIENCE`, and only when the request is complete: a caller that is still sending may wait
for the head before it continues.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Container, Mapping
from email.utils import mktime_tz, parsedate_tz
from typing import Any, Final

import msgspec

from middleware.contract import (
    Annotation,
    Context,
    ExchangeError,
    GatewayTimeout,
    Handler,
    Headers,
    Layer,
    Metric,
    Middleware,
    NoEndpoint,
    Problem,
    Request,
    Response,
    UpstreamReset,
)
from middleware.grpc import BY_WORD, GrpcStatus, of_reply
from middleware.hedge import UsualTime, hedged
from middleware.values import (
    UNIT_NANOSECONDS,
    WHOLE,
    InvalidValue,
    Seconds,
    parse_choice,
    parse_duration,
    parse_integer,
    parse_percentage,
    parse_rate,
    problem,
    quote,
    split_settings,
)
from middleware.window import RollingWindow

RETRY_ATTEMPTS: Final = "svc.mesh/retry-attempts"
RETRY_ON: Final = "svc.mesh/retry-on"
RETRY_METHODS: Final = "svc.mesh/retry-methods"
RETRY_BUDGET: Final = "svc.mesh/retry-budget"
RETRY_BACKOFF: Final = "svc.mesh/retry-backoff"
HEDGE: Final = "svc.mesh/hedge"
MOST_ATTEMPTS: Final = 10

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110 section 9.2.2: PUT, DELETE and the safe methods."""

CONDITIONS: Final[Mapping[str, frozenset[int]]] = {
    "5xx": frozenset(range(500, 600)),
    "gateway-error": frozenset({502, 503, 504}),
    "retriable-4xx": frozenset({409}),
    "connect-failure": frozenset(),
    "reset": frozenset(),
}
"""Envoy's words and the status codes they mean. The last two are always in force, and accepted. `reset` is
Envoy's "disconnect/reset/read timeout": its `per_try_timeout` resets the try's stream."""

PATIENCE: Final = 1.0
"""Seconds for which a call's head is held at most: what has taken that long is a stream that lives."""

BUDGET_WINDOW: Final = 10
"""Seconds."""
BUDGET_SHARE: Final = WHOLE // 5
"""One retry is allowed for five requests."""
BUDGET_FLOOR: Final = 10
"""Retries in a window that are allowed to any Service, however quiet."""
FASTEST_FLOOR: Final = 100_000
"""Retries a second that may be allowed whatever the number of requests."""

BACKOFF_BASE: Final = 0.025
BACKOFF_LIMIT: Final = 0.250
LONGEST_BACKOFF: Final = 60.0
BACKOFF_GROWTH: Final = 10
"""The longest random wait is this many times the base, unless the owner says otherwise; so is Envoy's."""
LONGEST_ASKED: Final = 60.0
"""Seconds; the most that an owner may let an endpoint hold a request with `Retry-After`."""

LEAST_HEDGED: Final = WHOLE // 2
"""Below, more requests would be slow than usual."""

ANY_METHOD: Final = "any"
_METHOD: Final = re.compile(r"(?!CONNECT\Z)[A-Z][A-Z-]{0,31}")
_FURTHER: Final = (RETRY_ON, RETRY_METHODS, RETRY_BUDGET, RETRY_BACKOFF)
"""What has no effect without attempts."""

RETRIES = Metric("svcmesh_retries", "Requests that were sent once more.")
HEDGES = Metric("svcmesh_hedges", "Requests that another endpoint got as well because the first was slow.")
BUDGET_EXHAUSTED = Metric(
    "svcmesh_retry_budget_exhausted", "Requests that were not sent once more because the budget was used up."
)


class Options(msgspec.Struct, frozen=True):
    """How often to try again, on what, and how soon."""

    attempts: int
    """Additional tries of one request after a failure, 1 to 10; 0 where requests are only hedged."""
    on: tuple[str, ...] = ()
    """Words of `CONDITIONS` and of gRPC, and status codes, sorted."""
    methods: tuple[str, ...] = ()
    """Methods that are sent again as if they were idempotent, sorted; `("any",)` is all."""
    budget_percent: float = BUDGET_SHARE / WHOLE * 100
    """Retries in per cent of the requests."""
    budget_floor: int = BUDGET_FLOOR
    """Retries in ten seconds that are allowed to any Service, however quiet."""
    base: Seconds | None = None
    """The first wait is up to this long; None: the mesh's own waits."""
    limit: Seconds = BACKOFF_LIMIT
    """No wait is longer."""
    retry_after: Seconds | None = 1.0
    """How long an endpoint may have a request wait by `Retry-After`; None: it is not asked."""
    hedge_percent: float | None = None
    """A request that takes longer than this share of them gets a second try; None: none does."""

    def statuses(self) -> frozenset[int]:
        """Return the status codes to retry on."""
        codes = {int(word) for word in self.on if word.isdigit()}
        return frozenset(codes.union(*(CONDITIONS[word] for word in self.on if word in CONDITIONS)))

    def grpc_statuses(self) -> frozenset[GrpcStatus]:
        """Return the statuses of gRPC to retry calls on."""
        return frozenset(BY_WORD[word] for word in self.on if word in BY_WORD)

    def repeatable(self) -> Container[str]:
        """Return the methods of requests that may be sent again although they may have been processed."""
        return _Every() if ANY_METHOD in self.methods else IDEMPOTENT.union(self.methods)


class _Every:
    """Contains every method."""

    def __contains__(self, _method: object) -> bool:
        return True


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/retry-attempts`, `svc.mesh/hedge` and what belongs to them."""
    attempts_text = annotations.get(RETRY_ATTEMPTS)
    if attempts_text is None:
        for name in _FURTHER:
            if name in annotations and not (name == RETRY_BUDGET and HEDGE in annotations):
                expected = f'{RETRY_ATTEMPTS}: "2" beside it'
                return Problem(name, annotations[name], f"has no effect without {RETRY_ATTEMPTS}", expected)
        attempts_text = "0"
    try:
        options = Options(parse_integer(attempts_text, least=0, most=MOST_ATTEMPTS))
    except InvalidValue as invalid:
        return problem(RETRY_ATTEMPTS, attempts_text, invalid)
    for name, read in zip(
        (*_FURTHER, HEDGE),
        (_parse_conditions, _parse_methods, _parse_budget, _parse_backoff, _parse_hedge),
        strict=True,
    ):
        try:
            if name in annotations:
                options = msgspec.structs.replace(options, **read(annotations[name]))
        except InvalidValue as invalid:
            return problem(name, annotations[name], invalid)
    return options if options.attempts or options.hedge_percent is not None else None


def _parse_conditions(text: str) -> dict[str, Any]:
    words = set()
    for word in text[:1024].split(","):
        word = word.strip()
        if len(word) == 3 and word.isascii() and word.isdigit() and "400" <= word <= "599":
            words.add(word)
        else:
            words.add(parse_choice(word, (*CONDITIONS, *BY_WORD), also=" or a status code from 400 to 599"))
    return {"on": tuple(sorted(words))}


def _parse_methods(text: str) -> dict[str, Any]:
    methods = set()
    for word in text[:1024].split(","):
        method = word.strip()
        if method != ANY_METHOD and not _METHOD.fullmatch(method):
            expected = f"methods in capitals such as POST,PATCH, or {ANY_METHOD}"
            raise InvalidValue(f"{quote(method)} is not a method that can be sent again", expected)
        methods.add(method)
    return {"methods": (ANY_METHOD,) if ANY_METHOD in methods else tuple(sorted(methods))}


def _parse_budget(text: str) -> dict[str, Any]:
    share_text, settings = split_settings(text, ("min",))
    share, floor = parse_percentage(share_text, least=0), BUDGET_FLOOR
    if settings.get("min") == "0":
        floor = 0
    elif "min" in settings:
        rate = parse_rate(settings["min"], most=FASTEST_FLOOR)
        floor = rate.count * BUDGET_WINDOW * UNIT_NANOSECONDS["s"] // UNIT_NANOSECONDS[rate.unit]
        if not floor:
            raise InvalidValue(
                f"min={settings['min']} is less than one in {BUDGET_WINDOW} s", "0, or 6/m or more"
            )
    if not share and not floor:
        raise InvalidValue("it allows no retry", f'a share above 0% or a min above 0; {RETRY_ATTEMPTS}: "0"')
    return {"budget_percent": share * 100 / WHOLE, "budget_floor": floor}


def _parse_backoff(text: str) -> dict[str, Any]:
    base_text, settings = split_settings(text, ("max", "retry-after"))
    base = parse_duration(base_text, least=0.001, most=LONGEST_BACKOFF)
    found: dict[str, Any] = {"base": base, "limit": min(base * BACKOFF_GROWTH, LONGEST_BACKOFF)}
    if "max" in settings:
        found["limit"] = parse_duration(settings["max"], least=base, most=LONGEST_BACKOFF)
    asked = settings.get("retry-after")
    if asked is not None:
        found["retry_after"] = None if asked == "ignore" else _parse_longest_asked(asked)
    return found


def _parse_hedge(text: str) -> dict[str, Any]:
    if text.strip() == "none":
        return {"hedge_percent": None}
    share = parse_percentage(text)
    if not LEAST_HEDGED <= share < WHOLE:
        raise InvalidValue(f"{text.strip()} is out of range", "none, or a percentage from 50% to 99.99%")
    return {"hedge_percent": share * 100 / WHOLE}


def _parse_longest_asked(text: str) -> float:
    try:
        return parse_duration(text, most=LONGEST_ASKED)
    except InvalidValue as invalid:
        raise InvalidValue(invalid.reason, f"ignore, or {invalid.expected}") from None


class RetryBudget:
    """Keeps retries below a share of the live traffic, so that a Service in trouble is not pushed under.

    By default in any ten seconds at most one retry for five requests (a retry is not a request); the idea is
    Finagle's `RetryBudget`, the share Finagle's and Envoy's default. A share alone would never let a Service
    with one request a minute retry anything, so `floor` retries in ten seconds are always allowed. This floor
    is not added to the share as in Finagle: from five requests a second on the fifth is the limit, exactly,
    and below that the floor is one more request a second at worst. Each worker has its own budget.
    """

    def __init__(self, share: int = BUDGET_SHARE, floor: int = BUDGET_FLOOR) -> None:
        self._share = share
        self._floor = floor
        self._window = RollingWindow(_Second, count=BUDGET_WINDOW, width=1.0)

    def deposit(self, now: float) -> None:
        """Count a request."""
        self._window.current(now).requests += 1

    def withdraw(self, now: float) -> bool:
        """Ask for one retry; True grants it."""
        seconds = self._window.buckets(now)
        allowed = max(self._floor, sum(second.requests for second in seconds) * self._share // WHOLE)
        if sum(second.retries for second in seconds) >= allowed:
            return False
        self._window.current(now).retries += 1
        return True


class _Second:
    __slots__ = ("requests", "retries")

    def __init__(self) -> None:
        self.requests = 0
        self.retries = 0


def backoff(retry: int, fraction: float) -> float:
    """Return the seconds to wait before the `retry`-th retry (from 1); `fraction` is random, 0 to 1.

    The first retry goes to another endpoint and is sent at once. Later ones wait as Envoy's do: a random time
    up to a limit that doubles from 25 ms, and never above 250 ms.
    """
    if retry == 1:
        return 0.0
    return fraction * min(BACKOFF_LIMIT, BACKOFF_BASE * ((1 << (retry - 1)) - 1))


def full_jitter(retry: int, fraction: float, base: float, limit: float) -> float:
    """Return the seconds to wait before the `retry`-th retry (from 1) where the owner has set waits.

    A random time, `fraction` of it, up to a bound that doubles from `base` to `limit`. Being random from 0
    spreads the retries of many clients best ("full jitter" in Amazon's comparison, 2015).
    """
    return fraction * min(limit, base * (1 << (retry - 1)))


def asked_to_wait(headers: Headers, wall: float) -> float:
    """Return for how many seconds a response asks to wait (RFC 9110 section 10.2.3); 0 if it does not.

    A date is compared with the response's own `Date`, so that clocks need not agree, or else with `wall`.
    """
    text = headers.get("Retry-After")
    if text is None:
        return 0.0
    if text.isascii() and text.isdigit():
        return float(text[:18])
    until, sent = _seconds(text), _seconds(headers.get("Date") or "")
    return max(0.0, until - (wall if sent is None else sent)) if until is not None else 0.0


def _seconds(date: str) -> float | None:
    """Return a date of HTTP as seconds since 1970; None if it is none."""
    try:
        parsed = parsedate_tz(date[:64])
        return float(mktime_tz(parsed)) if parsed is not None else None
    except (ValueError, OverflowError):
        return None


def is_retriable_error(
    error: ExchangeError, method: str, statuses: frozenset[int], repeatable: Container[str] = IDEMPOTENT
) -> bool:
    """Return whether an exchange that brought no response may and should be tried again."""
    if error.final or error.fault != "upstream" or isinstance(error, NoEndpoint):
        return False
    if not error.processed:
        return True
    return method in repeatable and (
        isinstance(error, UpstreamReset | GatewayTimeout) or error.status in statuses
    )


def is_retriable_response(
    status: int, method: str, statuses: frozenset[int], repeatable: Container[str] = IDEMPOTENT
) -> bool:
    """Return whether a response should be thrown away and the request tried again."""
    return status in statuses and method in repeatable


def is_retriable_call(error: ExchangeError, statuses: frozenset[GrpcStatus]) -> bool:
    """Return whether a gRPC call without a response should nevertheless be tried again."""
    return (
        not error.final
        and error.fault == "upstream"
        and not isinstance(error, NoEndpoint)
        and of_reply(error.status) in statuses
    )


async def failed_early(request: Request, response: Response, statuses: frozenset[GrpcStatus]) -> bool:
    """Return whether a gRPC call has failed so, before anything of it has to be passed on.

    Raises:
        ExchangeError: its endpoint broke off instead.
    """
    status = response.grpc_status
    if status is None and request.completed is not None and request.replayable:
        status = await response.early_status(PATIENCE)
    return status in statuses


class _Retries:
    """Permits the retries of one port and has them wait; the budget is theirs together."""

    def __init__(
        self,
        options: Options,
        context: Context,
        sleep: Callable[[float], Awaitable[None]],
        fraction: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._options = options
        self._budget = RetryBudget(round(options.budget_percent * WHOLE / 100), options.budget_floor)
        self._now = context.now
        self._sleep = sleep
        self._fraction = fraction
        self._wall = wall
        self._retries, self._exhausted = context.counter(RETRIES), context.counter(BUDGET_EXHAUSTED)
        self._hedges = context.counter(HEDGES)
        self.deposit = self._budget.deposit

    def permit_hedge(self) -> bool:
        """Decide on a second try beside the first one."""
        granted = self._budget.withdraw(self._now())
        (self._hedges if granted else self._exhausted)(1)
        return granted

    async def permit(self, request: Request, retry: int, response: Response | None = None) -> bool:
        """Wait as long as this retry has to, and return whether the request is then sent once more.

        `response` is what an endpoint has answered; it may ask for a pause.
        """
        options, replayable = self._options, request.replayable
        if retry > options.attempts or not replayable:
            return False
        asked = 0.0
        if response is not None and options.retry_after is not None:
            asked = asked_to_wait(response.headers, self._wall())
            if asked > options.retry_after:
                return False
        if not self._budget.withdraw(self._now()):
            self._exhausted(1)
            return False
        fraction = self._fraction()
        if options.base is None:
            delay = backoff(retry, fraction)
        else:
            delay = full_jitter(retry, fraction, options.base, options.limit)
        if asked + delay > 0:
            await self._sleep(asked + delay)
            replayable = request.replayable  # more of the body than is kept may have come meanwhile
        if replayable:
            self._retries(1)
        return replayable


def build(
    options: Options,
    context: Context,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    fraction: Callable[[], float] = random.random,
    wall: Callable[[], float] = time.time,
) -> Layer:
    """Return the layer for one port of a Service; tests give `sleep`, `fraction` and `wall`."""
    attempts, statuses, named = options.attempts, options.statuses(), options.grpc_statuses()
    further = options.repeatable()
    retries = _Retries(options, context, sleep, fraction, wall)
    permit, deposit, now = retries.permit, retries.deposit, context.now

    def layer(handler: Handler) -> Handler:
        if options.hedge_percent is not None:
            usual = UsualTime(round(options.hedge_percent * WHOLE / 100))
            handler = hedged(handler, usual, IDEMPOTENT, now, retries.permit_hedge)

        async def retry(request: Request) -> Response:
            deposit(now())
            tries = 1
            call = request.grpc
            # The statuses of a call say whether it may be made twice, not its method, which is always POST.
            repeatable = IDEMPOTENT if call else further
            call = call and bool(named)
            while True:
                try:
                    response = await handler(request)
                    failed = call and tries <= attempts and await failed_early(request, response, named)
                except ExchangeError as error:
                    retriable = is_retriable_error(error, request.method, statuses, repeatable) or (
                        call and is_retriable_call(error, named)
                    )
                    if not retriable or not await permit(request, tries):
                        raise
                else:
                    status = response.status
                    if not failed and (
                        status not in statuses
                        or not is_retriable_response(status, request.method, statuses, repeatable)
                    ):
                        return response
                    if not await permit(request, tries, response):
                        return response
                    response.discard()
                tries += 1

        return retry

    return layer


MIDDLEWARE = Middleware(
    name="retry",
    annotations=(
        Annotation(
            name=RETRY_ATTEMPTS,
            values=f'"0" to "{MOST_ATTEMPTS}"',
            default="0",
            summary=(
                "How many times a request is sent again, each time to another endpoint, if connecting "
                "failed, the connection broke or a try took too long. This is done only if the request "
                "cannot have been processed or has an idempotent method."
            ),
            example='svc.mesh/retry-attempts: "2"',
        ),
        Annotation(
            name=RETRY_ON,
            values=(
                f"{', '.join(CONDITIONS)}, status codes from 400 to 599, and for gRPC {', '.join(BY_WORD)},"
                " with commas between them"
            ),
            default="connect-failure,reset (always in force)",
            summary=(
                "After which responses a request with an idempotent method is sent again as well; and "
                "after which gRPC statuses a gRPC call is sent again, to which the other words and the "
                "status codes do not apply."
            ),
            example="svc.mesh/retry-on: gateway-error,429",
        ),
        Annotation(
            name=RETRY_METHODS,
            values=f"methods in capitals with commas between them, or {ANY_METHOD}",
            default="the idempotent ones: GET, HEAD, OPTIONS, TRACE, PUT, DELETE (always in force)",
            summary=(
                "Further methods whose requests are sent again although an endpoint may have processed them, "
                "because the Service recognises a request that comes twice. It does not apply to gRPC calls."
            ),
            example="svc.mesh/retry-methods: POST,PATCH",
        ),
        Annotation(
            name=RETRY_BUDGET,
            values="PERCENTAGE [min=RATE]; RATE is a number per s, m or h, or 0",
            default="20% min=1/s",
            summary=(
                "How many retries there may be: this share of the requests of the last 10 s, or `min` if "
                "that is more."
            ),
            example="svc.mesh/retry-budget: 10% min=5/s",
        ),
        Annotation(
            name=RETRY_BACKOFF,
            values="DURATION [max=DURATION] [retry-after=DURATION|ignore]; all at most 1m",
            default=(
                "the first retry at once, later ones after a random time of up to 25ms, 75ms, 175ms, 250ms; "
                "with a DURATION max is ten times as long; retry-after=1s"
            ),
            summary=(
                "Before each retry, also the first, there is a random wait of up to DURATION, which doubles "
                "with each retry up to `max`. An answer with a Retry-After of more than `retry-after` is "
                "not retried; a shorter one is waited for."
            ),
            example="svc.mesh/retry-backoff: 50ms max=1s retry-after=2s",
        ),
        Annotation(
            name=HEDGE,
            values="none, or a PERCENTAGE from 50% to 99.99%",
            default="none",
            summary=(
                "When a request with an idempotent method takes longer than this share of the requests of "
                "the last 10 s took, another endpoint gets it as well, and the client the answer that comes "
                "first. The budget of retries holds for these too."
            ),
            example="svc.mesh/hedge: 95%",
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    metrics=(RETRIES, BUDGET_EXHAUSTED, HEDGES),
)
