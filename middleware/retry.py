"""`svc.mesh/retry-attempts: "2"`: send a request again, to another endpoint, when the first one failed.

Always retried: connect failures, connections that broke, endpoints that did not answer in a try's time.
`svc.mesh/retry-on` adds status codes, with Envoy's words where they fit. A status stands for responses and
for errors alike: `5xx` also means the 502 or 503 that the mesh would answer for an endpoint.

Never retried: a request that an endpoint may have processed, unless its method is idempotent (RFC 9110
section 9.2.2) or the owner has named it in `svc.mesh/retry-methods`; one whose body is no longer kept whole,
or whose own time is up; what an endpoint wants to have later than the owner lets a request wait
(`Retry-After`, and for gRPC `grpc-retry-pushback-ms`); and anything above the budget of retries.

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
import time
from collections.abc import Awaitable, Callable
from typing import Final

from middleware.contract import (
    Asked,
    Context,
    Decision,
    ExchangeError,
    Handler,
    Layer,
    Metric,
    Middleware,
    Request,
    Response,
)
from middleware.grpc import BY_WORD, GrpcStatus
from middleware.hedge import UsualTime, hedged
from middleware.retry_options import ANNOTATIONS, Options, parse
from middleware.retry_rules import (
    IDEMPOTENT,
    RetryBudget,
    asked_pause,
    backoff,
    full_jitter,
    is_retriable_call,
    is_retriable_error,
    is_retriable_response,
)
from middleware.values import WHOLE

PATIENCE: Final = 1.0
"""Seconds for which a call's head is held at most: what has taken that long is a stream that lives."""

RETRIES = Metric("svcmesh_retries", "Requests that were sent once more.")
HEDGES = Metric("svcmesh_hedges", "Requests that another endpoint got as well because the first was slow.")
BUDGET_EXHAUSTED = Metric(
    "svcmesh_retry_budget_exhausted", "Requests that were not sent once more because the budget was used up."
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
        pause = 0.0
        if response is not None and options.retry_after is not None:
            asked = asked_pause(response, request.grpc, self._wall())
            if asked is None or asked > options.retry_after:
                return False
            pause = asked
        if not self._budget.withdraw(self._now()):
            self._exhausted(1)
            return False
        fraction = self._fraction()
        if options.base is None:
            delay = backoff(retry, fraction)
        else:
            delay = full_jitter(retry, fraction, options.base, options.limit)
        if pause + delay > 0:
            began = self._now()
            await self._sleep(pause + delay)
            request.waited("backoff", began)
            replayable = request.replayable  # more of the body than is kept may have come meanwhile
        if replayable:
            self._retries(1)
        return replayable


def again_on(options: Options, method: str, call: bool) -> list[str]:
    """Return what a request is sent again after, in the words of `svc.mesh/retry-on`, in order.

    An endpoint that has not processed it counts as `connect-failure`.
    """
    words = {"connect-failure"}
    if method in (IDEMPOTENT if call else options.repeatable()):
        words |= {"reset", *(word for word in options.on if word not in BY_WORD)}
    if call:
        words |= {word for word in options.on if word in BY_WORD}
    return sorted(words)


def explain(options: Options, asked: Asked) -> Decision:
    """Say when the request is sent again."""
    said = []
    if options.attempts:
        times = "once" if options.attempts == 1 else f"up to {options.attempts} times"
        words = again_on(options, asked.method, asked.grpc)
        what = ", ".join(words)
        if words == ["connect-failure"]:
            what += f" and what was not processed, as {asked.method} may not be done twice"
        said.append(f"sent again {times} on {what}")
    if options.hedge_percent is not None:
        slowest = f"a second try for the {100 - options.hedge_percent:.4g}% that are slowest"
        said.append(slowest if asked.method in IDEMPOTENT else f"no second try of a {asked.method}")
    return Decision("; ".join(said) or "not sent again")


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
    annotations=ANNOTATIONS,
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    metrics=(RETRIES, BUDGET_EXHAUSTED, HEDGES),
)
