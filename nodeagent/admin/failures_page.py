"""`/failures`: the latest requests and connections that failed or were refused, newest first, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from middleware.values import InvalidValue, quote
from nodeagent.admin.ui import etag_of, tagged
from nodeagent.stats.failures import MOST, USUAL, Failures

LONGEST_NAME: Final = 253 + 1 + 63
"""Characters of a Service as `namespace/name`."""


def read_failures_query(query: Mapping[str, str]) -> tuple[str, int]:
    """Return which Service is asked for, and how many failures at most.

    Raises:
        InvalidValue: a parameter is not as it should be.
    """
    service, limit = query.get("service", ""), query.get("limit", str(USUAL))
    parts = service.split("/")
    if service and (len(parts) != 2 or not all(parts) or len(service) > LONGEST_NAME):
        raise InvalidValue(f"service {quote(service)} names no Service", "namespace/name")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= MOST):
        raise InvalidValue(f"limit {quote(limit)} is no such number", f"a number from 1 to {MOST}")
    return service, int(limit)


def failures_body(found: Failures | Mapping[str, Any]) -> bytes:
    """Return the page, of a value or of what is in its JSON."""
    return msgspec.json.encode(found) + b"\n"


def failures_response(request: web.Request, body: bytes) -> web.Response:
    """Answer with the page, or with 304 if the client has this one already."""
    headers = {"Cache-Control": "no-store", "Content-Type": "application/json"}
    return tagged(request, body, etag_of(body), headers)
