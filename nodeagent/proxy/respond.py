"""Errors become responses here and nowhere else.

Every response that the mesh itself makes carries `Proxy-Status` (RFC 9209) with the error type, and the
reason in words as its body, so that a person with curl sees who failed and why.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from middleware.contract import ExchangeError, Fault
from nodeagent.proxy.head import HeadError

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class BadRequest(ExchangeError):
    """The client sent something that is refused; see `reason` (400, 431, 501 or 505)."""

    fault: Fault = "client"
    proxy_error = "http_request_error"
    processed = False

    def __init__(self, error: HeadError) -> None:
        super().__init__(error.detail)
        self.status = error.status
        self.reason = error.reason


class HeadTimeout(ExchangeError):
    """The client did not complete a request in time (408)."""

    fault: Fault = "client"
    status = 408
    proxy_error = "http_request_error"
    reason = "head_timeout"
    processed = False


class BodyTimeout(HeadTimeout):
    """The client stopped in the middle of a request's body (408)."""

    reason = "body_timeout"


class UpstreamStalled(ExchangeError):
    """The endpoint stopped reading the request's body (504)."""

    fault: Fault = "upstream"
    status = 504
    proxy_error = "connection_write_timeout"
    reason = "upstream_stalled"


class NoRoute(ExchangeError):
    """The Service has left the mesh while its client was still connected (503)."""

    status = 503
    proxy_error = "destination_not_found"
    reason = "no_route"
    processed = False


def _printable(text: str) -> str:
    """Replace what a string of RFC 8941 (section 3.3.3) cannot hold: CR and LF would begin another field."""
    return _UNPRINTABLE.sub("?", text)


def render_error(error: ExchangeError, keep_alive: bool, to_head: bool) -> bytes:
    """Return the whole response that tells the client of `error`."""
    detail = _printable(error.detail)
    body = f"svc.mesh: {detail} ({error.reason})\n".encode()
    quoted = detail.replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        f"HTTP/1.1 {error.status} {_PHRASES.get(error.status, 'Error')}",
        f'Proxy-Status: svc.mesh; error={error.proxy_error}; details="{error.reason}: {quoted}"',
        *(f"{name}: {_printable(value)}" for name, value in error.headers),
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
    ]
    if not keep_alive:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
    return head if to_head else head + body
