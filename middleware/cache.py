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

from middleware.cache_layer import COLLAPSED, EVICTED, HELD, HITS, MISSES, STALE, STORED, VALIDATED, Cache
from middleware.cache_options import CACHE, USUAL_SIZE, Options, parse, read_size
from middleware.contract import (
    Annotation,
    Context,
    Handler,
    Layer,
    Limit,
    Middleware,
    Reply,
    Request,
    Response,
)


def build(options: Options, context: Context, *, wall: Callable[[], float] = time.time) -> Layer:
    """Return the layer for one port of a Service; tests give the clock of dates."""
    cache = Cache(options, context, wall)

    def layer(handler: Handler) -> Handler:
        async def answer_from_cache(request: Request) -> Response:
            found = cache.look(request, handler)
            return found if isinstance(found, Reply) else await cache.send(found, request, handler)

        return answer_from_cache

    return layer


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
    ),
    options=Options,
    parse=parse,
    build=build,
    metrics=(HITS, STALE, MISSES, VALIDATED, COLLAPSED, STORED, EVICTED, HELD),
)
