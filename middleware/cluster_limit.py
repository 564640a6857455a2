"""`svc.mesh/rate-limit: 1000/s scope=cluster away=open`: a limit that all nodes share, in a Redis or Valkey.

The store keeps the TAT of GCRA (`rate_limit`), and its clock is everybody's. Workers take tokens in advance
(`lease`). While the store is away, `open` means that each node limits for itself as with `scope=node`, and
`closed` that requests are refused with 503.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from typing import Final, Literal

import structlog

from middleware.contract import Context, Grant, Handler, Layer, Metric, Rejected, Request, Response
from middleware.lease import Lease

log = structlog.get_logger()

Away = Literal["open", "closed"]
MOST_LEASES: Final = 10_000
"""Of one port in one worker; the one that was used least recently makes room."""

AWAY = Metric(
    "svcmesh_rate_limit_store_away",
    "Requests under a limit of the whole cluster that were decided without the store that keeps it.",
)


class RateLimitUnavailable(Rejected):
    """The store of the cluster's limits is away, and the owner wants no request let through then (503)."""

    reason = "rate_limit_unavailable"


class ClusterLimit:
    """The leases of one port in one worker. `interval` is in seconds; `name` says whose limit it is."""

    def __init__(self, context: Context, interval: float, burst: int) -> None:
        self._interval = interval
        self._burst = burst
        self._store = context.tokens
        self._now = context.now
        self._prefix = f"svcmesh|{context.service}|{context.port}|{burst}|{interval * 1e9:.0f}|"
        self._leases: OrderedDict[str, Lease] = OrderedDict()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        if self._store is None:
            log.warning("rate_limit_without_store", service=context.service, port=context.port)

    async def take(self, name: str, request: Request) -> float | None:
        """Take a token for a request: return 0, or the seconds to wait if there is none; None: it is not
        known, because the store is away.
        """
        store = self._store
        if store is None:
            return None
        lease = self._lease(name)
        for _ in range(2):  # once more, if others took all that came
            answer = lease.take(self._now())
            if answer != "ask":
                break
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(name, []).append(waiter)
            if not lease.asking:
                self._ask(name, lease)
            began = self._now()
            try:
                await waiter
            finally:
                request.waited("queue", began)
        if answer == "pass":
            if lease.runs_low(self._now()):
                self._ask(name, lease)
            return 0.0
        if answer == "away":
            return None
        return max(lease.wait, self._interval) if answer == "ask" else lease.wait

    def _lease(self, name: str) -> Lease:
        lease = self._leases.get(name)
        if lease is not None:
            self._leases.move_to_end(name)
            return lease
        if len(self._leases) >= MOST_LEASES:
            self._leases.popitem(last=False)
        lease = self._leases[name] = Lease(self._interval, self._burst)
        return lease

    def _ask(self, name: str, lease: Lease) -> None:
        lease.asking = True
        wanted = min(max(lease.batch, len(self._waiting.get(name, ()))), self._burst)

        def answered(grant: Grant | None) -> None:
            if grant is None:
                lease.unreachable(self._now())
            else:
                lease.granted(grant.count, wanted, grant.wait, self._now())
            for waiter in self._waiting.pop(name, ()):
                if not waiter.done():
                    waiter.set_result(None)

        assert self._store is not None
        self._store.take(self._prefix + name, self._interval, self._burst, wanted, answered)


def build_cluster(
    limit: ClusterLimit,
    away: Away,
    context: Context,
    name: Callable[[Request], bytes] | None,
    refused: Callable[[float], Rejected],
    local: Callable[[Request], None],
) -> Layer:
    """Return the layer of a limit that all nodes share.

    `name` says whose limit a request is under, `refused` makes the error for one that comes too early, and
    `local` decides as the node does.
    """
    count_away = context.counter(AWAY)

    def layer(handler: Handler) -> Handler:
        async def limit_rate(request: Request) -> Response:
            wait = await limit.take("" if name is None else name(request).decode("latin-1"), request)
            if wait is None:
                count_away(1)
                if away == "closed":
                    raise RateLimitUnavailable("the store of the cluster's limits cannot be reached")
                local(request)
            elif wait:
                raise refused(wait)
            return await handler(request)

        return limit_rate

    return layer


def retry_after(wait: float) -> tuple[tuple[str, str], ...]:
    """Return the field that says when to come again."""
    return (("Retry-After", str(max(1, ceil(wait)))),)
