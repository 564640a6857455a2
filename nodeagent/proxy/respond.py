"""Errors become responses here and nowhere else.

Every response that the mesh itself makes carries `Proxy-Status` (RFC 9209) with the error type, and the
reason in words as its body, so that a person with curl sees who failed and why.
"""

from __future__ import annotations

from http import HTTPStatus

from middleware.contract import ExchangeError, Fault
from nodeagent.proxy.head import HeadError

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


class NoRoute(ExchangeError):
    """The Service has left the mesh while its client was still connected (503)."""

    status = 503
    proxy_error = "destination_not_found"
    reason = "no_route"
    processed = False


def render_error(error: ExchangeError, keep_alive: bool, to_head: bool) -> bytes:
    """Return the whole response that tells the client of `error`."""
    detail = error.detail.encode("ascii", "replace").decode()
    body = f"svc.mesh: {detail} ({error.reason})\n".encode()
    quoted = detail.replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        f"HTTP/1.1 {error.status} {_PHRASES.get(error.status, 'Error')}",
        f'Proxy-Status: svc.mesh; error={error.proxy_error}; details="{error.reason}: {quoted}"',
        *(f"{name}: {value}" for name, value in error.headers),
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
    ]
    if not keep_alive:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    return head if to_head else head + body
