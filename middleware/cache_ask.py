"""A request to the cache while it is served, and what may end its waiting."""

from __future__ import annotations

import msgspec

from middleware.cache_rules import ANYTHING, Wish
from middleware.cache_store import Found, Key
from middleware.contract import GatewayTimeout, Rejected, Request


class OnlyIfCached(Rejected):
    """The client wants a kept response only, and there is none (504, RFC 9111 section 5.2.1.7)."""

    fault = "client"
    status = 504
    proxy_error = "http_request_error"
    reason = "not_cached"


class WaitedEnough(GatewayTimeout):
    """The response to an equal request has not come in time, so this one is sent. No client sees it."""


class ErrandTimeout(GatewayTimeout):
    """A validation beside an answer took too long. No client sees it."""

    final = True


class Ask(msgspec.Struct):
    """A request to the cache, and what is known of it."""

    request: Request
    key: Key
    wish: Wish
    conditional: bool
    found: Found
    requested: float
    moment: int
    apart: bool = False
    """It belongs to no client."""
    collapsed: bool = False
    """It has waited for an equal one."""

    @property
    def why(self) -> str:
        """Why it is sent on, as `Cache-Status` says it (RFC 9211 section 2.2)."""
        if self.found.stored is not None:
            return "request" if self.wish is not ANYTHING else "stale"
        return "vary-miss" if self.found.known else "uri-miss"
