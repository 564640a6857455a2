"""`svc.mesh/retry-attempts: "2"`: send a request again, to another endpoint, when the first one failed.

Always retried: connect failures, connections that broke, endpoints that did not answer in a try's time.
`svc.mesh/retry-on` adds status codes, with Envoy's words where they fit. A status stands for responses and
for errors alike: `5xx` also means the 502 or 503 that the mesh would answer for an endpoint.

Never retried: a request that an endpoint may have processed, unless its method is idempotent (RFC 9110
section 9.2.2); one whose body is no longer kept whole, or whose own time is up; and anything above the
budget of retries.

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
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from middleware.contract import (
    Annotation,
    Context,
    ExchangeError,
    GatewayTimeout,
    Handler,
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
from middleware.values import InvalidValue, parse_choice, parse_integer, problem
from middleware.window import RollingWindow

RETRY_ATTEMPTS: Final = "svc.mesh/retry-attempts"
RETRY_ON: Final = "svc.mesh/retry-on"
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
BUDGET_SHARE: Final = 5
"""One retry is allowed for this many requests."""
BUDGET_FLOOR: Final = 10
"""Retries in a window that are allowed to any Service, however quiet."""

BACKOFF_BASE: Final = 0.025
BACKOFF_LIMIT: Final = 0.250

RETRIES = Metric("svcmesh_retries", "Requests that were sent once more.")
BUDGET_EXHAUSTED = Metric(
    "svcmesh_retry_budget_exhausted", "Requests that were not sent once more because the budget was used up."
)


class Options(msgspec.Struct, frozen=True):
    """How often to try again, and on what."""

    attempts: int
    """Additional tries of one request, 1 to 10."""
    on: tuple[str, ...] = ()
    """Words of `CONDITIONS` and of gRPC, and status codes, sorted."""

    def statuses(self) -> frozenset[int]:
        """Return the status codes to retry on."""
        codes = {int(word) for word in self.on if word.isdigit()}
        return frozenset(codes.union(*(CONDITIONS[word] for word in self.on if word in CONDITIONS)))

    def grpc_statuses(self) -> frozenset[GrpcStatus]:
        """Return the statuses of gRPC to retry calls on."""
        return frozenset(BY_WORD[word] for word in self.on if word in BY_WORD)


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/retry-attempts` and `svc.mesh/retry-on`; no attempts is no retry."""
    attempts_text, on_text = annotations.get(RETRY_ATTEMPTS), annotations.get(RETRY_ON)
    if attempts_text is None:
        if on_text is None:
            return None
        return Problem(
            RETRY_ON, on_text, f"has no effect without {RETRY_ATTEMPTS}", f'{RETRY_ATTEMPTS}: "2" beside it'
        )
    try:
        attempts = parse_integer(attempts_text, least=0, most=MOST_ATTEMPTS)
    except InvalidValue as invalid:
        return problem(RETRY_ATTEMPTS, attempts_text, invalid)
    try:
        on = () if on_text is None else _parse_conditions(on_text)
    except InvalidValue as invalid:
        return problem(RETRY_ON, on_text or "", invalid)
    return Options(attempts, on) if attempts else None


def _parse_conditions(text: str) -> tuple[str, ...]:
    words = set()
    for word in text[:1024].split(","):
        word = word.strip()
        if len(word) == 3 and word.isascii() and word.isdigit() and "400" <= word <= "599":
            words.add(word)
        else:
            words.add(parse_choice(word, (*CONDITIONS, *BY_WORD), also=" or a status code from 400 to 599"))
    return tuple(sorted(words))


class RetryBudget:
    """Keeps retries below a fifth of the live traffic, so that a Service in trouble is not pushed under.

    In any ten seconds at most one retry for five requests (a retry is not a request); the idea is Finagle's
    `RetryBudget`, the share Finagle's and Envoy's default. A share alone would never let a Service with one
    request a minute retry anything, so ten retries in ten seconds are always allowed. This floor is not added
    to the share as in Finagle: from five requests a second on the fifth is the limit, exactly, and below that
    the floor is one more request a second at worst. Each worker has its own budget.
    """

    def __init__(self) -> None:
        self._window = RollingWindow(_Second, count=BUDGET_WINDOW, width=1.0)

    def deposit(self, now: float) -> None:
        """Count a request."""
        self._window.current(now).requests += 1

    def withdraw(self, now: float) -> bool:
        """Ask for one retry; True grants it."""
        seconds = self._window.buckets(now)
        allowed = max(BUDGET_FLOOR, sum(second.requests for second in seconds) // BUDGET_SHARE)
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


def is_retriable_error(error: ExchangeError, method: str, statuses: frozenset[int]) -> bool:
    """Return whether an exchange that brought no response may and should be tried again."""
    if error.final or error.fault != "upstream" or isinstance(error, NoEndpoint):
        return False
    if not error.processed:
        return True
    return method in IDEMPOTENT and (
        isinstance(error, UpstreamReset | GatewayTimeout) or error.status in statuses
    )


def is_retriable_response(status: int, method: str, statuses: frozenset[int]) -> bool:
    """Return whether a response should be thrown away and the request tried again."""
    return status in statuses and method in IDEMPOTENT


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


def build(
    options: Options,
    context: Context,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    fraction: Callable[[], float] = random.random,
) -> Layer:
    """Return the layer for one port of a Service; tests give `sleep` and `fraction`."""
    attempts, statuses, named = options.attempts, options.statuses(), options.grpc_statuses()
    budget = RetryBudget()
    deposit, now = budget.deposit, context.now
    retries, exhausted = context.counter(RETRIES), context.counter(BUDGET_EXHAUSTED)

    async def permit(request: Request, retry: int) -> bool:
        replayable = request.replayable
        if retry > attempts or not replayable:
            return False
        if not budget.withdraw(now()):
            exhausted(1)
            return False
        delay = backoff(retry, fraction())
        if delay > 0:
            await sleep(delay)
            replayable = request.replayable  # more of the body than is kept may have come meanwhile
        if replayable:
            retries(1)
        return replayable

    def layer(handler: Handler) -> Handler:
        async def retry(request: Request) -> Response:
            deposit(now())
            tries = 1
            call = bool(named) and request.grpc
            while True:
                try:
                    response = await handler(request)
                    failed = call and tries <= attempts and await failed_early(request, response, named)
                except ExchangeError as error:
                    retriable = is_retriable_error(error, request.method, statuses) or (
                        call and is_retriable_call(error, named)
                    )
                    if not retriable or not await permit(request, tries):
                        raise
                else:
                    retriable = failed or is_retriable_response(response.status, request.method, statuses)
                    if not retriable or not await permit(request, tries):
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
    ),
    options=Options,
    parse=parse,
    build=build,
    metrics=(RETRIES, BUDGET_EXHAUSTED),
)
