"""`svc.mesh/max-requests: 100 queue=50 queue-time=1s`: at most so many requests in progress at once.

Further requests wait, fairly between the pods that sent them (`fair_queue`), for at most `queue-time`. Those
that find no place, or wait too long, get a 503 with `Retry-After`. With `adaptive` the limit follows the
latency (`gradient`).

A request is in progress from here to the last byte of its response, its retries included. Each worker of
each node counts for itself, as for `svc.mesh/max-connections`. A count that workers share would cost every
request two locks, 4 µs instead of none on the development machine, and a worker that has a place free could
not wake a request that waits in another one.

It stands below `svc.mesh/timeout`, whose time includes the waiting, and above everything that sends.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Mapping
from typing import Final

import msgspec

from middleware.contract import (
    Annotation,
    Asked,
    Context,
    Decision,
    Ended,
    ExchangeError,
    Handler,
    Layer,
    Limit,
    Metric,
    Middleware,
    Problem,
    Rejected,
    Reply,
    Request,
    Response,
)
from middleware.fair_queue import FairQueue
from middleware.gradient import Gradient
from middleware.values import (
    INTEGER,
    InvalidValue,
    Seconds,
    format_duration,
    parse_annotation,
    parse_duration,
    parse_integer,
    quote,
    split_settings,
)

MAX_REQUESTS: Final = "svc.mesh/max-requests"
ADAPTIVE: Final = "adaptive"
MOST_REQUESTS: Final = 100_000
MOST_PLACES: Final = 10_000
"""Each request that waits holds its head and up to 64 KiB of its body."""
SHORTEST_WAIT: Final = 0.001
LONGEST_WAIT: Final = 60.0
DEFAULT_WAIT: Final = 1.0
ADAPTIVE_LEAST: Final = 3
ADAPTIVE_MOST: Final = 1000
ADAPTIVE_PLACES: Final = 100

LIMIT = Metric("svcmesh_concurrency_limit", "Requests that each worker lets be in progress at once.", "gauge")
QUEUED = Metric("svcmesh_concurrency_queued", "Requests that had to wait for others to end.")
LIMITED = Metric(
    "svcmesh_concurrency_limited",
    "Requests that were refused with 503 because there were too many, or because they waited too long.",
)


class ConcurrencyLimited(Rejected):
    """As many requests are in progress as may be, and there is no place in the queue (503)."""

    reason = "concurrency_limited"


class QueueTimeout(Rejected):
    """The request waited for others to end as long as it may (503)."""

    reason = "queue_timeout"


RETRY_AFTER: Final = (("Retry-After", "1"),)
"""The shortest there is: places become free within the time of one request."""


class Options(msgspec.Struct, frozen=True):
    """The limit of each worker."""

    most: int
    """Requests in progress; with `least`, the most that may be chosen."""
    queue: int
    """Requests that may wait; 0: none."""
    queue_time: Seconds = DEFAULT_WAIT
    least: int | None = None
    """With an adaptive limit, the lowest that may be chosen; None: the limit is `most`."""


def parse(annotations: Mapping[str, str]) -> Options | Problem | None:
    """Read `svc.mesh/max-requests`."""
    return parse_annotation(annotations, MAX_REQUESTS, _parse)


def _parse(text: str) -> Options:
    adaptive = text.split()[:1] == [ADAPTIVE]
    bounds = ("min", "max") if adaptive else ()
    value, settings = split_settings(text, (*bounds, "queue", "queue-time"))
    least = None
    if adaptive:
        most = _number(settings.get("max"), ADAPTIVE_MOST, 1, MOST_REQUESTS)
        least = _number(settings.get("min"), min(ADAPTIVE_LEAST, most), 1, MOST_REQUESTS)
        if least > most:
            raise InvalidValue(f"min={least} is greater than max={most}", "a min of at most the max")
    elif INTEGER.fullmatch(value):
        most = parse_integer(value, least=1, most=MOST_REQUESTS)
    else:
        raise InvalidValue(
            f"{quote(value)} is neither a number nor {ADAPTIVE}",
            f"a whole number from 1 to {MOST_REQUESTS}, or {ADAPTIVE}",
        )
    places = _number(
        settings.get("queue"), ADAPTIVE_PLACES if adaptive else min(most, MOST_PLACES), 0, MOST_PLACES
    )
    wait = settings.get("queue-time")
    if wait is None:
        return Options(most, places, least=least)
    if not places:
        raise InvalidValue("queue-time has no effect without a queue", "queue=1 or more beside it")
    return Options(most, places, parse_duration(wait, least=SHORTEST_WAIT, most=LONGEST_WAIT), least)


def _number(text: str | None, default: int, least: int, most: int) -> int:
    return default if text is None else parse_integer(text, least=least, most=most)


class _Limiter:
    """The queue of one port in one worker, and what requests do there."""

    def __init__(self, options: Options, context: Context) -> None:
        self._options = options
        self._now = context.now
        self.queue = FairQueue(options.most, options.queue)
        self._queued, self._limited = context.counter(QUEUED), context.counter(LIMITED)

    def ended(self, ended: Ended) -> None:
        """A request that was in progress is over."""
        self.queue.end(ended.source)

    async def wait(self, request: Request, source: str) -> None:
        """Return when the request may go on.

        Raises:
            ConcurrencyLimited: there is no place for it, or another source's request needs the place more.
            QueueTimeout: it waited too long.
        """
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiter = self.queue.wait(source, turn.set_result)
        if waiter is None:
            self._limited(1)
            raise self._refusal()
        self._queued(1)
        began = self._now()
        limit = request.within(self._options.queue_time, self._waited_too_long)
        try:
            admitted = await turn
        except BaseException as ended:  # also when the client leaves and this coroutine is closed
            self.queue.leave(waiter)
            if isinstance(ended, QueueTimeout):
                self._limited(1)
            raise
        finally:
            limit.cancel()
            request.waited("queue", began)
        if not admitted:
            self._limited(1)
            raise self._refusal()

    def _refusal(self) -> ExchangeError:
        queue = self.queue
        detail = f"{queue.in_progress} requests are in progress and {queue.waiting} wait; at most"
        return ConcurrencyLimited(f"{detail} {queue.limit} and {queue.places} may", RETRY_AFTER)

    def _waited_too_long(self) -> ExchangeError:
        waited = format_duration(self._options.queue_time)
        detail = f"none of {self.queue.in_progress} requests before it ended within {waited}"
        return QueueTimeout(detail, RETRY_AFTER)


def build(options: Options, context: Context) -> Layer:
    """Return the layer for one port of a Service in one worker."""
    limiter = _Limiter(options, context)
    take, wait, ended = limiter.queue.take, limiter.wait, limiter.ended
    show = context.gauge(LIMIT)
    if options.least is not None:
        return _adaptive(options.least, options, context, limiter)
    show(options.most)

    def layer(handler: Handler) -> Handler:
        async def limit_requests(request: Request) -> Response:
            source = request.source
            if not take(source):
                await wait(request, source)
            request.at_end(ended)
            return await handler(request)

        return limit_requests

    return layer


def explain(options: Options, _asked: Asked) -> Decision:
    """Say how many requests may be in progress."""
    most = f"{options.least} to {options.most}, as the latency has it," if options.least else options.most
    waits = (
        f"{options.queue} more wait for up to {format_duration(options.queue_time)}"
        if options.queue
        else "no more wait"
    )
    return Decision(
        f"{most} may be in progress in each worker, {waits}; a 503 if there is no place", perhaps=(503,)
    )


def _adaptive(least: int, options: Options, context: Context, limiter: _Limiter) -> Layer:
    queue, now = limiter.queue, context.now
    show = context.gauge(LIMIT)
    gradient = Gradient(least, options.most, now(), random.random)
    queue.limit = gradient.limit
    show(gradient.limit)

    def layer(handler: Handler) -> Handler:
        async def limit_requests(request: Request) -> Response:
            source = request.source
            if not queue.take(source):
                await limiter.wait(request, source)
            request.at_end(limiter.ended)
            began = now()
            response = await handler(request)
            # What the mesh answered by itself, and what failed, says nothing about how fast the Service is.
            if (
                response.status < 500
                and not isinstance(response, Reply)
                and gradient.sample(began, now(), queue.in_progress)
            ):
                show(gradient.limit)
                queue.set_limit(gradient.limit)
            return response

        return limit_requests

    return layer


MIDDLEWARE = Middleware(
    name="max-requests",
    annotations=(
        Annotation(
            name=MAX_REQUESTS,
            values=(
                f"N [queue=N] [queue-time=1s], or {ADAPTIVE} [min={ADAPTIVE_LEAST}] [max={ADAPTIVE_MOST}]"
                f" [queue={ADAPTIVE_PLACES}] [queue-time=1s]; N is 1 to {MOST_REQUESTS}"
            ),
            default="no limit",
            summary=(
                "Requests to a port of the Service that each worker lets be in progress at once. As many"
                " wait, or as many as `queue` says, with equal shares for the pods that sent them; the others"
                f" get a 503. With `{ADAPTIVE}` the limit follows the latency."
            ),
            example="svc.mesh/max-requests: 100 queue=50 queue-time=500ms",
            limit=Limit(
                lambda text: parse_integer(text, least=1, most=MOST_REQUESTS), math.inf, "max", ADAPTIVE_MOST
            ),
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    metrics=(LIMIT, QUEUED, LIMITED),
)
