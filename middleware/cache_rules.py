"""The rules of a shared cache, RFC 9111 and RFC 5861: what may be stored, and what stored responses may be
used for.

Pure. Ages are measured with the monotonic clock; the clock that Date is compared with is needed only when a
response comes. Three things are stricter than the RFC has to be: a response to a request with
`Authorization` and one with `Set-Cookie` are never stored, and `private` or `no-cache` with a list of fields
count as without.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, Literal

import msgspec

from middleware.cache_directives import (
    Directives,
    directives,
    opaque,
    parse_date,
    parse_seconds,
    parse_tags,
    seconds,
)
from middleware.contract import OWN_FIELDS, Headers, ReplyHeaders

UNDERSTOOD: Final = frozenset(
    {
        200,
        203,
        204,
        300,
        301,
        302,
        303,
        307,
        308,
        400,
        403,
        404,
        405,
        406,
        409,
        410,
        414,
        500,
        501,
        502,
        503,
        504,
    }
)
"""Statuses whose rules for caching are followed here (`must-understand`, RFC 9111 section 5.2.2.3)."""
HEURISTIC: Final = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Statuses whose responses may be kept although nothing says for how long (RFC 9110 section 15.1)."""
NEVER: Final = frozenset({206, 304, 416})
"""Statuses that say something about a part of a response, or about another one."""
ERRORS: Final = frozenset({500, 502, 503, 504})
"""What counts as an error for `stale-if-error` (RFC 5861 section 4)."""
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH"})
"""Methods that leave resources alone, so that nothing stored is invalid after them."""
HEURISTIC_SHARE: Final = 0.1
HEURISTIC_MOST: Final = 86_400.0
"""The heuristic lifetime is this share of the time since Last-Modified (RFC 9111 section 4.2.2), at most so
many seconds."""
DROPPED: Final = OWN_FIELDS | {
    "age",
    "cache-status",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-status",
}
"""Fields that are not stored (RFC 9111 section 3.1), and those that are this response's alone."""

Fields = tuple[tuple[str, str], ...]


class Policy(msgspec.Struct, frozen=True):
    """What the Service's owner adds to what responses say. Times in seconds."""

    stale_while_revalidate: float = 0.0
    """For responses that do not say it themselves."""
    stale_if_error: float = 0.0
    heuristic: bool = False
    """Whether responses that do not say for how long they may be kept are kept by a rule of thumb."""


class Stored(msgspec.Struct):
    """A response that is kept. Times of the monotonic clock, in seconds."""

    status: int
    fields: Fields
    """All that are given to clients, but `Age`."""
    body: bytes
    vary: tuple[str, ...]
    """The request's fields that it was chosen by, in lower case, sorted."""
    requested: float
    """When it was asked for, or last validated."""
    born: float
    """When its age was 0."""
    fresh_until: float
    """Until when it may be used without asking; -inf: never."""
    revalidate_until: float
    """Until when it may be used stale, while it is validated beside."""
    error_until: float
    """Until when it may be used stale if the endpoint fails."""
    stale: bool
    """Whether it may be used stale at all."""
    etag: str
    last_modified: str
    told: tuple[int | None, Fields] = (None, ())
    """The age that it was last used at, and the fields that say so: they are the same for a second."""
    moment: int = 0
    """The last invalidation that it has been compared with (`middleware.cache_store`)."""

    @property
    def size(self) -> int:
        """What it counts for, in bytes."""
        return len(self.body) + sum(len(name) + len(value) + 100 for name, value in self.fields) + 1000

    @property
    def valid_by(self) -> bool:
        """Whether it can be validated: by its entity tag, or its date."""
        return bool(self.etag or self.last_modified)


Use = Literal["fresh", "stale", "revalidate", "validate", "refused"]
"""What may be done with a stored response for a request: use it; use it though it is stale, as the client
allows; use it and validate it beside; use it only once it is validated, for its own sake or because of the
request."""


class Wish(msgspec.Struct, frozen=True):
    """What a request's own Cache-Control asks for."""

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    min_fresh: int = 0
    max_stale: float = 0.0


ANYTHING: Final = Wish()
"""Of a request without Cache-Control."""


def wish_of(headers: Headers) -> Wish:
    """Return what a request asks of caches (RFC 9111 section 5.2.1). Pragma counts where nothing else is."""
    values = headers.get_all("Cache-Control")
    if not values:
        pragma = directives(headers.get_all("Pragma"))
        return Wish(no_cache=True) if "no-cache" in pragma else ANYTHING
    found = directives(values)
    max_stale = 0.0
    if "max-stale" in found:
        max_stale = inf if found["max-stale"] is None else float(seconds(found, "max-stale") or 0)
    return Wish(
        no_store="no-store" in found,
        no_cache="no-cache" in found,
        only_if_cached="only-if-cached" in found,
        max_age=seconds(found, "max-age"),
        min_fresh=seconds(found, "min-fresh") or 0,
        max_stale=max_stale,
    )


def use(stored: Stored, wish: Wish, now: float) -> Use:
    """Decide what may be done with a stored response (RFC 9111 section 4)."""
    if wish is not ANYTHING:
        if wish.no_cache or (wish.max_age is not None and now - stored.born > wish.max_age):
            return "refused"
        if wish.min_fresh and stored.fresh_until - now < wish.min_fresh:
            return "refused"
    if now < stored.fresh_until:
        return "fresh"
    if stored.stale and wish.max_stale and now - stored.fresh_until <= wish.max_stale:
        return "stale"
    if now < stored.revalidate_until:
        return "revalidate"
    return "validate"


def usable_on_error(stored: Stored, wish: Wish, now: float) -> bool:
    """Return whether it may be given to a client in place of an error (RFC 5861 section 4)."""
    return not wish.no_cache and now < stored.error_until


def vary_of(headers: Headers) -> tuple[str, ...] | None:
    """Return the names of the fields that a response was chosen by; None: it is for no other request."""
    names: set[str] = set()
    for value in headers.get_all("Vary"):
        names.update(name.strip().lower() for name in value.split(","))
    names.discard("")
    return None if "*" in names else tuple(sorted(names))


def selecting(headers: Headers, vary: Sequence[str]) -> tuple[str, ...]:
    """Return the values of these fields of a request (RFC 9111 section 4.1), those of one name joined."""
    return tuple([values[0] if len(values := headers.get_all(n)) == 1 else ", ".join(values) for n in vary])


def storable(status: int, headers: Headers, policy: Policy) -> bool:
    """Return whether a response to a plain GET may be kept (RFC 9111 section 3)."""
    if status in NEVER or status < 200:
        return False
    found = directives(headers.get_all("Cache-Control"))
    if "must-understand" in found:
        if status not in UNDERSTOOD:
            return False
    elif "no-store" in found:
        return False
    if "private" in found or headers.get("Set-Cookie") is not None or vary_of(headers) is None:
        return False
    said = not found.keys().isdisjoint(("public", "max-age", "s-maxage", "no-cache"))
    if said or headers.get("Expires") is not None:
        return True
    return policy.heuristic and status in HEURISTIC and headers.get("Last-Modified") is not None


def lifetime(status: int, headers: Headers, found: Directives, policy: Policy, wall: float) -> float:
    """Return for how long a response is fresh, in seconds from its age of 0 (RFC 9111 section 4.2.1)."""
    for name in ("s-maxage", "max-age"):
        explicit = seconds(found, name)
        if explicit is not None:
            return float(explicit)
    date = _date(headers, "Date", wall)
    expires = headers.get_all("Expires")
    if expires:
        until = parse_date(expires[0], wall // 86_400 * 86_400) if len(expires) == 1 else None
        return max(0.0, until - (wall if date is None else date)) if until is not None else 0.0
    modified = _date(headers, "Last-Modified", wall)
    if policy.heuristic and status in HEURISTIC and modified is not None:
        since = (wall if date is None else date) - modified
        return min(max(0.0, since * HEURISTIC_SHARE), HEURISTIC_MOST)
    return 0.0


def keep(
    status: int,
    headers: Headers,
    body: bytes,
    policy: Policy,
    *,
    requested: float,
    now: float,
    wall: float,
) -> Stored | None:
    """Return a response that may be kept as it is kept; None: it would be of no use to anybody.

    `requested` and `now` are when it was asked for and came, of the monotonic clock; `wall` is `now` in
    seconds since 1970.
    """
    fields = tuple([(name, value) for name, value in headers if name.lower() not in DROPPED])
    stored = _timed(status, headers, fields, body, policy, requested, now, wall)
    useful = max(stored.fresh_until, stored.revalidate_until, stored.error_until) > now
    return stored if useful or stored.valid_by else None


def freshen(
    stored: Stored, headers: Headers, policy: Policy, *, requested: float, now: float, wall: float
) -> Stored | None:
    """Return a stored response after the endpoint has said that it is still valid (RFC 9111 section 3.2).

    None: what the endpoint says is about another response (section 4.3.4).
    """
    etag, modified = headers.get("ETag"), headers.get("Last-Modified")
    if etag is not None:
        same = opaque(etag) == opaque(stored.etag) if stored.etag else False
    else:
        same = modified is None or not stored.last_modified or modified == stored.last_modified
    if not same:
        return None
    new = [
        (name, value)
        for name, value in headers
        if name.lower() not in DROPPED
        and name.lower() not in ("content-encoding", "content-type", "content-range")
    ]
    replaced = {name.lower() for name, _ in new}
    merged = (*((name, value) for name, value in stored.fields if name.lower() not in replaced), *new)
    age = headers.get("Age")
    aged = merged if age is None else (*merged, ("Age", age))
    return _timed(stored.status, ReplyHeaders(aged), merged, stored.body, policy, requested, now, wall)


def _timed(
    status: int,
    headers: Headers,
    fields: Fields,
    body: bytes,
    policy: Policy,
    requested: float,
    now: float,
    wall: float,
) -> Stored:
    found = directives(headers.get_all("Cache-Control"))
    date = _date(headers, "Date", wall)
    # RFC 9111 section 4.2.3.
    apparent = max(0.0, wall - date) if date is not None else 0.0
    said = parse_seconds((headers.get("Age") or "").split(",")[0].strip()) or 0
    born = now - max(apparent, said + max(0.0, now - requested))
    fresh_until = -inf if "no-cache" in found else born + lifetime(status, headers, found, policy, wall)
    never = not found.keys().isdisjoint(("must-revalidate", "proxy-revalidate", "no-cache"))

    def until(name: str, default: float) -> float:
        own = seconds(found, name)
        # `s-maxage` forbids what nobody has allowed; the response itself may allow it beside.
        extra = float(own) if own is not None else 0.0 if "s-maxage" in found else default
        return -inf if never or not extra else fresh_until + extra

    return Stored(
        status=status,
        fields=fields,
        body=body,
        vary=vary_of(headers) or (),
        requested=requested,
        born=born,
        fresh_until=fresh_until,
        revalidate_until=until("stale-while-revalidate", policy.stale_while_revalidate),
        error_until=until("stale-if-error", policy.stale_if_error),
        stale=not never and "s-maxage" not in found,
        etag=headers.get("ETag") or "",
        last_modified=headers.get("Last-Modified") or "",
    )


def not_modified(stored: Stored, headers: Headers, wall: float) -> bool:
    """Return whether a conditional request is answered with 304 (RFC 9111 section 4.3.2)."""
    if stored.status != 200:
        return False
    none_match = headers.get_all("If-None-Match")
    if none_match:
        text = ", ".join(none_match)
        if text.strip() == "*":
            return True
        tags = parse_tags(text)
        return bool(stored.etag and tags) and opaque(stored.etag) in map(opaque, tags or ())
    since = _date(headers, "If-Modified-Since", wall)
    if since is None:
        return False
    for name, value in stored.fields:
        if name.lower() == ("last-modified" if stored.last_modified else "date"):
            modified = parse_date(value, wall // 86_400 * 86_400)
            return modified is not None and modified <= since
    return False


NOT_MODIFIED_FIELDS: Final = frozenset(
    {
        "age",
        "cache-control",
        "cache-status",
        "content-location",
        "date",
        "etag",
        "expires",
        "last-modified",
        "vary",
    }
)
"""What a 304 carries of the response that it stands for (RFC 9110 section 15.4.5)."""


def _date(headers: Headers, name: str, wall: float) -> float | None:
    text = headers.get(name)
    # The day is enough to tell the century, and lets equal dates be remembered.
    return None if text is None else parse_date(text, wall // 86_400 * 86_400)
