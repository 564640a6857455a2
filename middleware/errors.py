"""Exchanges that bring no response: whose fault that is, what clients are told, and whether to try again.

Part of `middleware.contract`, where authors import it from.
"""

from __future__ import annotations

from typing import Literal

Fault = Literal["client", "mesh", "upstream"]


class ExchangeError(Exception):
    """An exchange that brought no response. Subclasses say who failed and whether it may be sent again.

    `proxy_error` is the error type of RFC 9209 section 2.3 that the `Proxy-Status` header shows; `reason` is
    the stable word of logs and metrics.
    """

    fault: Fault = "mesh"
    status: int = 500
    proxy_error: str = "proxy_internal_error"
    reason: str = "internal_error"
    processed: bool = True
    """Whether the far side may have acted on the request."""
    final: bool = False
    """Whether the request itself is over, so that no further try can help: its own time is up, say."""

    def __init__(self, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers
        """Further headers of the response that tells the client."""


class NoEndpoint(ExchangeError):
    """The Service has no endpoint that may be used (503)."""

    fault: Fault = "upstream"
    status = 503
    proxy_error = "destination_unavailable"
    reason = "no_endpoint"
    processed = False


class ConnectFailed(ExchangeError):
    """No endpoint accepted a connection; nothing was sent (503)."""

    fault: Fault = "upstream"
    status = 503
    proxy_error = "connection_refused"
    reason = "connect_failed"
    processed = False


class UpstreamReset(ExchangeError):
    """The connection ended before a whole response head came; the request may have been processed (502)."""

    fault: Fault = "upstream"
    status = 502
    proxy_error = "connection_terminated"
    reason = "upstream_reset"


class UpstreamProtocolError(ExchangeError):
    """The endpoint answered something that is not HTTP/1.1 as RFC 9112 means it (502)."""

    fault: Fault = "upstream"
    status = 502
    proxy_error = "http_protocol_error"
    reason = "upstream_protocol_error"


class Rejected(ExchangeError):
    """A middleware refuses the request; nothing was sent. Subclass it to give status and reason."""

    fault: Fault = "mesh"
    status = 503
    proxy_error = "http_request_denied"
    reason = "rejected"
    processed = False


class GatewayTimeout(ExchangeError):
    """An endpoint did not answer in the time it had, or nothing moved (504). Subclass it to give a reason."""

    fault: Fault = "upstream"
    status = 504
    proxy_error = "http_response_timeout"
    reason = "response_timeout"
