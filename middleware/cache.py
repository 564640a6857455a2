"""`svc.mesh/cache: on size=64Mi`: keeps responses to GET and answers from them, as RFC 9111 says.

What may be kept and used is in `middleware.cache_rules`, where it is kept in `middleware.cache_store`, and
what is done with a request in `middleware.cache_layer`. Endpoints say with `Cache-Control` or `Expires` what
may be kept; what says nothing is passed on as without a cache.

Of equal requests that find nothing kept one is sent, and the others wait for its response, for a bounded
time. If it fails, all others are sent at once, so that neither a slow request nor a failure holds them for
long. A resource whose response could not be kept is remembered for a while, so that its requests do not wait
for each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import structlog

from middleware.cache_layer import Cache, outside_cache
from middleware.cache_metrics import COLLAPSED, EVICTED, HELD, HITS, MISSES, PURGED, STALE, STORED, VALIDATED
from middleware.cache_options import CACHE, USUAL_SIZE, Options, parse, read_size
from middleware.cache_purge import MOST_PURGES, PURGE, new_purges
from middleware.cache_rules import wish_of
from middleware.contract import (
    Annotation,
    Asked,
    Context,
    Decision,
    Handler,
    Limit,
    Middleware,
    Reply,
    Request,
    Response,
)

log = structlog.get_logger()


class CacheLayer:
    """The layer of one port, which can be purged while it runs. Implements `middleware.contract.Layer`."""

    def __init__(self, options: Options, context: Context, wall: Callable[[], float]) -> None:
        self._options = options
        self._context = context
        self._cache = Cache(options, context, wall)

    def __call__(self, handler: Handler) -> Handler:
        """Return the handler with the cache before it."""
        cache = self._cache

        async def answer_from_cache(request: Request) -> Response:
            found = cache.look(request, handler)
            return found if isinstance(found, Reply) else await cache.send(found, request, handler)

        return answer_from_cache

    def renew(self, options: Options) -> bool:
        """Purge what other options ask for; return False if they differ in more than that."""
        before = self._options
        if msgspec.structs.replace(options, purges=before.purges) != before:
            return False
        self._options = options
        for one in new_purges(before.purges, options.purges):
            count = self._cache.purge(one.path)
            log.info(
                "cache_purged",
                service=self._context.service,
                port=self._context.port,
                mark=one.mark,
                path=one.path or "all",
                responses=count,
            )
        return True


def explain(options: Options, asked: Asked) -> Decision:
    """Say whether the request is looked up."""
    outside = outside_cache(asked)
    if outside == "method":
        return Decision("not looked up: only GET and HEAD are, and no gRPC call")
    if outside:
        return Decision("not looked up: it has a body, or fields that make it private or partial")
    says = "looked up; whether a response is kept depends on what was asked before"
    if wish_of(asked.headers).only_if_cached:
        return Decision(f"{says}; a 504 if none is, as the request is only-if-cached", perhaps=(504,))
    return Decision(f"{says}; sent on if none is")


def build(options: Options, context: Context, *, wall: Callable[[], float] = time.time) -> CacheLayer:
    """Return the layer for one port of a Service; tests give the clock of dates."""
    return CacheLayer(options, context, wall)


MIDDLEWARE = Middleware(
    name="cache",
    annotations=(
        Annotation(
            name=CACHE,
            values=(
                "on [size=SIZE] [object=SIZE] [collapse=DURATION] [stale-while-revalidate=DURATION]"
                " [stale-if-error=DURATION] [heuristic=on|off], or off"
            ),
            default=(
                "off; size=64Mi for each port in each worker, object=1Mi, collapse=5s, the stale times 0,"
                " heuristic=off"
            ),
            summary=(
                "Keeps responses to GET whose Cache-Control or Expires allows that, and answers GET and HEAD"
                " from them, as RFC 9111 says of shared caches."
            ),
            example="svc.mesh/cache: on size=64Mi stale-while-revalidate=30s stale-if-error=1h",
            limit=Limit(read_size, setting="size", unset=USUAL_SIZE),
        ),
        Annotation(
            name=PURGE,
            values=f"MARK [path=/PREFIX], up to {MOST_PURGES} times in a row",
            default="none",
            summary=(
                "Has all caches of the Service forget their responses, or those whose paths begin with"
                " PREFIX, when a new MARK appears: any word, such as the time. `meshctl cache purge` sets it."
            ),
            example="svc.mesh/cache-purge: 2026-01-31T12:00:00Z path=/images/",
            individual=True,
        ),
    ),
    options=Options,
    parse=parse,
    build=build,
    explain=explain,
    renew=CacheLayer.renew,
    metrics=(HITS, STALE, MISSES, VALIDATED, COLLAPSED, STORED, EVICTED, PURGED, HELD),
)
