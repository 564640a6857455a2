"""What a cache does with a request: answer it, send it and keep the response, or wait for an equal one.

What may be kept and used is decided in `middleware.cache_rules`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from middleware.cache_ask import Ask, ErrandTimeout, OnlyIfCached, WaitedEnough
from middleware.cache_directives import opaque
from middleware.cache_flights import Flight, FlightKey, Landing
from middleware.cache_heads import CONDITIONS, restore, same_host, set_conditions, tell
from middleware.cache_metrics import COLLAPSED, EVICTED, HELD, HITS, MISSES, PURGED, STALE, STORED, VALIDATED
from middleware.cache_options import Options
from middleware.cache_rules import (
    ANYTHING,
    ERRORS,
    NOT_MODIFIED_FIELDS,
    SAFE,
    Stored,
    freshen,
    keep,
    not_modified,
    storable,
    usable_on_error,
    use,
    wish_of,
)
from middleware.cache_store import Found, Invalidations, Key, Store
from middleware.contract import (
    Asked,
    Context,
    Ended,
    ExchangeError,
    Handler,
    Headers,
    Reply,
    ReplyHeaders,
    Request,
    Response,
)

MOST_WAITING: Final = 1000
"""Requests that wait for the response to an equal one; more are sent."""
MOST_ERRANDS: Final = 32
"""Validations beside answers that run at once, in one worker."""
ERRAND_TIME: Final = 60.0
"""Seconds that one may take."""
_KEPT: Final = frozenset({"GET", "HEAD"})
BYPASS: Final = frozenset({"authorization", "range", "if-match", "if-unmodified-since", "if-range"})
"""Fields of requests that the cache has no part in: they are private, or about parts of a response."""
WISHES: Final = frozenset({"cache-control", "pragma"})
SPECIAL: Final = BYPASS | WISHES | {name.lower() for name in CONDITIONS}


def outside_cache(request: Asked, special: bool = True) -> str:
    """Return why a request is no matter of the cache, as `Cache-Status` says it; empty if it is one.

    `special` says that one of the fields `SPECIAL` may be there.
    """
    if request.method not in _KEPT or request.grpc:
        return "method"
    if not request.head_only or (special and request.headers.has_any(BYPASS)):
        return "bypass"
    return ""


class Cache:
    """The cache of one port in one worker."""

    def __init__(self, options: Options, context: Context, wall: Callable[[], float]) -> None:
        self._options = options
        self._policy = options.policy
        self._now = context.now
        self._wall = wall
        self._hit, self._stale, self._missed = map(context.counter, (HITS, STALE, MISSES))
        self._validated, self._collapsed = context.counter(VALIDATED), context.counter(COLLAPSED)
        self._stored, self._holds = context.counter(STORED), context.gauge(HELD)
        self._purged = context.counter(PURGED)
        self._store = Store(options.size, context.counter(EVICTED))
        self._invalid = Invalidations(context)
        self._flights: dict[FlightKey, Flight] = {}
        self._errands = 0

    def purge(self, path: str) -> int:
        """Forget all responses whose targets begin like this; return how many there were.

        A response that is on its way is passed on and not kept.
        """
        count = self._store.purge(path, self._now())
        self._purged(count)
        self._holds(self._store.held)
        return count

    def look(self, request: Request, handler: Handler) -> Reply | Ask | str:
        """Return the answer to a request, or what is known of one that has to be sent; a text says why it is
        no matter of the cache.
        """
        headers = request.headers
        special = headers.has_any(SPECIAL)
        outside = outside_cache(request, special)
        if outside:
            return outside
        wish = wish_of(headers) if special else ANYTHING
        now, moment = self._now(), self._invalid.moment()
        key = ((headers.get("Host") or "").lower(), request.target, request.backend)
        stored = self._store.get(key, headers)
        if stored is not None and (stored.moment == moment or self._invalid.valid(key, stored, moment)):
            usage = use(stored, wish, now)
            if usage == "fresh":
                self._hit(1)
                return self._reply(stored, request if special else None, now, "hit")
            if usage in ("stale", "revalidate"):
                self._stale(1)
                if usage == "revalidate":
                    self._validate_beside(request, handler, key, self._find(key, headers, moment))
                return self._reply(stored, request if special else None, now, "hit")
        conditional = special and any(headers.get(name) is not None for name in CONDITIONS)
        return Ask(request, key, wish, conditional, self._find(key, headers, moment), now, moment)

    async def send(self, asked: Ask | str, request: Request, handler: Handler) -> Response:
        """Have a request answered that `look` has found no answer for."""
        if isinstance(asked, str):
            if asked == "method":
                return await self._other(request, handler)
            return tell(await handler(request), f"fwd={asked}")
        if asked.wish.only_if_cached:
            raise OnlyIfCached("the request is only-if-cached, and no usable response is kept")
        if request.method == "HEAD":
            self._missed(1)
            return await self._head(asked, handler)
        return await self._fetch(asked, handler)

    def _find(self, key: Key, headers: Headers, moment: int) -> Found:
        found = self._store.find(key, headers)
        stored = found.stored
        if stored is not None and stored.moment != moment and not self._invalid.valid(key, stored, moment):
            self._store.drop(key, headers)
            self._holds(self._store.held)
            return self._store.find(key, headers)
        return found

    def _reply(
        self, stored: Stored, request: Request | None, now: float, status: str, reason: str = "cached"
    ) -> Reply:
        """Return the answer that a stored response makes; `request`: it may be conditional."""
        age, fields = stored.told
        if status != "hit" or age != int(now - stored.born):
            age = int(now - stored.born)
            left = stored.fresh_until - now
            ttl = f"; ttl={int(left)}" if left > -1e10 else ""
            own = (("Age", str(max(age, 0))), ("Cache-Status", f"svc.mesh; {status}{ttl}"))
            fields = stored.fields + own
            if status == "hit":
                stored.told = (age, fields)
        if request is not None and not_modified(stored, request.headers, self._wall()):
            few = [field for field in fields if field[0].lower() in NOT_MODIFIED_FIELDS]
            return Reply(304, few, reason=reason)
        return Reply(stored.status, fields, stored.body, reason)

    # What has to be sent

    async def _other(self, request: Request, handler: Handler) -> Response:
        """Pass on what is no matter of the cache; it may make invalid what is kept (RFC 9111 section 4.4)."""
        host, target, method = (request.headers.get("Host") or "").lower(), request.target, request.method
        response = await handler(request)
        if method not in SAFE and 200 <= response.status < 400 and not request.grpc:
            now = self._now()
            self._invalid.invalidate(host, target, now)
            for name in ("Location", "Content-Location"):
                other = same_host(response.headers.get(name), host, target)
                if other is not None and other != target:
                    self._invalid.invalidate(host, other, now)
        return tell(response, "fwd=method")

    async def _head(self, ask: Ask, handler: Handler) -> Response:
        """Send a HEAD; what it says may show that what is kept is another response (section 4.3.5)."""
        response = await handler(ask.request)
        stored, etag = ask.found.stored, response.headers.get("ETag")
        if stored is not None and response.status == 200 and etag is not None and stored.etag:
            another = opaque(etag) != opaque(stored.etag)
            if another:
                self._drop(ask)
        return tell(response, f"fwd={ask.why}")

    async def _fetch(self, ask: Ask, handler: Handler) -> Response:
        """Send a GET, or wait for the response to an equal one."""
        flight: Flight | None = None
        at = (ask.key, ask.found.values)
        collapses = self._options.collapse and ask.wish is ANYTHING
        if collapses and not self._store.passes(ask.key, ask.requested):
            if at in self._flights:
                reply = await self._wait(ask)
                if reply is not None:
                    return reply
                at = (ask.key, ask.found.values)
            # One with a condition may be answered with 304, which is of no use to others.
            if at not in self._flights and (not ask.conditional or ask.found.stored is not None):
                flight = self._flights[at] = Flight()
        self._missed(1)
        if flight is None:
            return await self._send(ask, handler, Landing(self._flights, at, None))
        return await self._lead(ask, handler, flight)

    async def _wait(self, ask: Ask) -> Reply | None:
        """Wait for the response to an equal request; None: this one has to be sent."""
        request, headers = ask.request, ask.request.headers
        limit = request.within(self._options.collapse, _waited_enough)
        began = self._now()
        try:
            while (flight := self._flights.get((ask.key, ask.found.values))) is not None:
                if flight.waiting >= MOST_WAITING:
                    return None
                flight.waiting += 1
                try:
                    outcome = await flight.landed()
                finally:
                    flight.waiting -= 1
                ask.requested, ask.moment = self._now(), self._invalid.moment()
                ask.found = self._find(ask.key, headers, ask.moment)
                ask.collapsed = True
                stored = ask.found.stored
                if stored is not None and use(stored, ANYTHING, ask.requested) == "fresh":
                    self._collapsed(1)
                    return self._reply(
                        stored, request if ask.conditional else None, ask.requested, "hit; collapsed"
                    )
                if outcome != "left":
                    return None
        except WaitedEnough:
            pass
        finally:
            limit.cancel()
            request.waited("queue", began)
        return None

    async def _lead(self, ask: Ask, handler: Handler, flight: Flight) -> Response:
        """Send a request and keep its response if that may be; others wait for it in `flight`."""
        landing = Landing(self._flights, (ask.key, ask.found.values), flight)
        try:
            response = await self._send(ask, handler, landing)
        except ExchangeError:
            landing.land("failed")
            raise
        else:
            if not landing.later:
                landing.land("failed")
            return response
        finally:
            if not landing.later:
                landing.land("left")

    async def _send(self, ask: Ask, handler: Handler, landing: Landing) -> Response:
        request, stored = ask.request, ask.found.stored
        before: list[tuple[str, str]] = []
        if ask.conditional:
            before = [(name, value) for name in CONDITIONS for value in request.headers.get_all(name)]
        if stored is not None:
            set_conditions(request.headers, stored)
        try:
            response = await handler(request)
        except ExchangeError as error:
            reply = self._instead(ask, before, f'detail="{error.reason}"')
            if reply is None:
                raise
            return reply
        if response.status in ERRORS:
            reply = self._instead(ask, before, f"fwd-status={response.status}")
            if reply is not None:
                response.discard()
                return reply
        if stored is not None and stored.valid_by and response.status == 304:
            valid = self._freshen(ask, stored, response)
            response.discard()
            if valid is not None:
                landing.land("kept")
                restore(request.headers, before)
                self._validated(1)
                return self._reply(
                    valid, request if ask.conditional else None, self._now(), f"fwd={ask.why}; fwd-status=304"
                )
            set_conditions(request.headers, None)
            response = await handler(request)
        return await self._take(ask, response, landing)

    def _instead(self, ask: Ask, before: list[tuple[str, str]], why: str) -> Reply | None:
        """Return what is kept in place of an error, if that is allowed."""
        stored, now = ask.found.stored, self._now()
        if stored is None or ask.apart or not usable_on_error(stored, ask.wish, now):
            return None
        if self._store.purged(ask.key, stored):
            return None
        restore(ask.request.headers, before)
        self._stale(1)
        return self._reply(
            stored, ask.request if ask.conditional else None, now, f"fwd={ask.why}; {why}", "stale_if_error"
        )

    def _freshen(self, ask: Ask, stored: Stored, response: Response) -> Stored | None:
        """Return what is kept after a 304; None: the 304 is about another response."""
        valid = freshen(
            stored,
            response.headers,
            self._policy,
            requested=ask.requested,
            now=self._now(),
            wall=self._wall(),
        )
        if ask.wish.no_store:
            return valid
        if valid is not None and storable(valid.status, ReplyHeaders(valid.fields), self._policy):
            self._put(ask, valid)
        else:
            self._drop(ask)
        return valid

    async def _take(self, ask: Ask, response: Response, landing: Landing) -> Response:
        """Return an endpoint's response; keep it if that may be."""
        why = f"fwd={ask.why}; fwd-status={response.status}" + ("; collapsed" if ask.collapsed else "")
        if ask.wish.no_store:
            return tell(response, why)
        if ask.found.stored is not None and response.status < 500:
            self._drop(ask)  # it is not what the endpoint answers now
        stored = None
        if storable(response.status, response.headers, self._policy):
            stored = self._stored_form(ask, response)
        length = response.length
        if stored is None or (length or 0) > self._options.object:
            self._pass_by(ask, response.status, landing)
        elif length is not None or ask.apart:
            if await self._read(response, stored, self._options.object if length is None else length):
                if self._put(ask, stored):
                    landing.land("kept")
                    return tell(response, f"{why}; stored")
            else:
                self._pass_by(ask, response.status, landing)
        else:
            self._collect(ask, response, stored, landing)
        return tell(response, why)

    def _stored_form(self, ask: Ask, response: Response) -> Stored | None:
        """Return what would be kept of a response, without its body."""
        return keep(
            response.status,
            response.headers,
            b"",
            self._policy,
            requested=ask.requested,
            now=self._now(),
            wall=self._wall(),
        )

    async def _read(self, response: Response, stored: Stored, most: int) -> bool:
        """Read a body of at most so many bytes; return False if it is not kept."""
        if not self._store.reserve(most):
            return False
        try:
            body = await response.read(most)
        finally:
            self._store.release(most)
        stored.body = body or b""
        return body is not None

    def _collect(self, ask: Ask, response: Response, stored: Stored, landing: Landing) -> None:
        """Keep a body of unknown size when it has passed to the client, if it is small enough."""
        most, status = self._options.object, response.status
        if not self._store.reserve(most):
            return
        landing.later = True

        def done(body: bytes | None) -> None:
            if body is None:
                self._pass_by(ask, status, landing)
            else:
                stored.body = body
                self._put(ask, stored)
                landing.land("kept")

        def ended(_ended: Ended) -> None:
            self._store.release(most)
            landing.land("left")

        ask.request.at_end(ended)
        response.collect(most, done)

    def _pass_by(self, ask: Ask, status: int, landing: Landing) -> None:
        """Let nobody wait for a response like this one, for a while; an error passes sooner."""
        if status < 500 and status != 304:
            self._store.remember(ask.key, self._now())
        landing.land("failed")

    def _put(self, ask: Ask, stored: Stored) -> bool:
        stored.moment = ask.moment
        kept = self._store.put(ask.key, ask.request.headers, stored)
        if kept:
            self._stored(1)
        self._holds(self._store.held)
        return kept

    def _drop(self, ask: Ask) -> None:
        self._store.drop(ask.key, ask.request.headers)
        self._holds(self._store.held)

    def _validate_beside(self, request: Request, handler: Handler, key: Key, found: Found) -> None:
        """Have a stale response validated while the client has its answer already."""
        at = (key, found.values)
        if at in self._flights or self._errands >= MOST_ERRANDS:
            return
        flight = self._flights[at] = Flight()
        self._errands += 1
        moment = self._invalid.moment()

        async def validate(copy: Request) -> Response:
            try:
                copy.within(ERRAND_TIME, lambda: ErrandTimeout("validating took too long"))
                copy.method = "GET"
                for name in WISHES:
                    copy.headers.remove(name)
                ask = Ask(copy, key, ANYTHING, False, found, self._now(), moment, apart=True)
                return await self._lead(ask, handler, flight)
            finally:
                self._errands -= 1

        request.apart(validate)


def _waited_enough() -> WaitedEnough:
    return WaitedEnough("the response to an equal request has not come")
