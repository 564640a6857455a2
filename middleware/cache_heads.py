"""What a cache writes into heads: what it did, and the conditions of a validation; and where heads point."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urljoin, urlsplit

from middleware.cache_rules import Stored
from middleware.contract import Headers, Response

CONDITIONS: Final = ("If-None-Match", "If-Modified-Since")


def tell(response: Response, how: str) -> Response:
    """Add what the cache has done with a request (RFC 9211)."""
    response.headers.add("Cache-Status", f"svc.mesh; {how}")
    return response


def set_conditions(headers: Headers, stored: Stored | None) -> None:
    """Have an endpoint say whether this response is still valid (RFC 9111 section 4.3.1); None: have it send
    the whole response.
    """
    for name in CONDITIONS:
        headers.remove(name)
    if stored is not None and stored.etag:
        headers.set("If-None-Match", stored.etag)
    if stored is not None and stored.last_modified:
        headers.set("If-Modified-Since", stored.last_modified)


def restore(headers: Headers, before: Iterable[tuple[str, str]]) -> None:
    """Give a request the conditions back that its client has sent."""
    for name in CONDITIONS:
        headers.remove(name)
    for name, value in before:
        headers.add(name, value)


def same_host(reference: str | None, host: str, target: str) -> str | None:
    """Return the target that a reference means, if it is one of this host (RFC 9111 section 4.4)."""
    if not reference:
        return None
    try:
        parts = urlsplit(urljoin(f"http://{host}{target}", reference))
    except ValueError:
        return None
    if parts.netloc.lower() != host:
        return None
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
