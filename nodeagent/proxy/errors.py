"""What can go wrong with an exchange, and the reply that says so to the client: made only here.

Every response that the mesh itself makes carries `Proxy-Status` (RFC 9209) with the error type, and the
reason in words as its body, so that a person with curl sees who failed and why.
"""

from __future__ import annotations

import re

from middleware.contract import ExchangeError, Fault, GatewayTimeout, Reply, UpstreamReset
from nodeagent.proxy.message import HeadError

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


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


class BodyCut(HeadTimeout):
    """The client ended in the middle of a request's body, while its response was on its way."""

    status = 400
    reason = "body_cut"


class ClientStalled(HeadTimeout):
    """The client stopped reading its response, which is broken off."""

    reason = "client_stalled"


class UpstreamRefused(UpstreamReset):
    """The endpoint said that it did nothing with the request, more than once (503)."""

    status = 503
    reason = "upstream_refused"
    processed = False


class NoWebSockets(ExchangeError):
    """The endpoint has not said that it takes WebSockets over HTTP/2, so it was not asked (502)."""

    fault: Fault = "upstream"
    status = 502
    proxy_error = "http_upgrade_failed"
    reason = "no_websockets"
    processed = False


class UpstreamStalled(GatewayTimeout):
    """The endpoint stopped reading the request's body (504)."""

    proxy_error = "connection_write_timeout"
    reason = "upstream_stalled"


class ResponseTimeout(GatewayTimeout):
    """The endpoint had the whole request and did not answer (504)."""


class CallerDeadline(GatewayTimeout):
    """The deadline that a caller of gRPC has set has passed (504, in gRPC DEADLINE_EXCEEDED).

    It may be as short as the caller likes, so it says nothing about the endpoint.
    """

    fault: Fault = "client"
    reason = "grpc_timeout"
    final = True


class IdleTimeout(GatewayTimeout):
    """Nothing moved for as long as `svc.mesh/idle-timeout` says (504)."""

    proxy_error = "connection_read_timeout"
    reason = "idle_timeout"


class PoolFull(ExchangeError):
    """An endpoint has as many connections as it may, and as many requests wait for one as may (503)."""

    fault: Fault = "upstream"
    status = 503
    proxy_error = "connection_limit_reached"
    reason = "pool_full"
    processed = False


class PoolTimeout(PoolFull):
    """No connection to an endpoint became free in time (503)."""

    reason = "pool_timeout"


class WorkerOverloaded(ExchangeError):
    """The worker takes no new requests, because those under way fill its memory (503)."""

    status = 503
    proxy_error = "proxy_internal_response"
    reason = "worker_overloaded"
    processed = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail, (("Retry-After", "1"),))


class NoRoute(ExchangeError):
    """The Service has left the mesh while the client was still connected (503)."""

    status = 503
    proxy_error = "destination_not_found"
    reason = "no_route"
    processed = False


class NoRule(ExchangeError):
    """No rule of the listener takes the request (404)."""

    status = 404
    proxy_error = "destination_not_found"
    reason = "no_rule"
    processed = False


class StreamRefused(ExchangeError):
    """A client of HTTP/2 has begun more than it may at once; it may send the request again (RST_STREAM)."""

    fault: Fault = "client"
    status = 0
    reason = "stream_refused"
    processed = False


class Http2Fault(ExchangeError):
    """A client of HTTP/2 broke the rules of its connection, which is ended (GOAWAY)."""

    fault: Fault = "client"
    status = 0
    reason = "http2_fault"


class ConnectionLimit(ExchangeError):
    """A client has as many connections as it may; a further one is reset."""

    fault: Fault = "client"
    status = 0
    reason = "limit"
    processed = False


class WorkerFull(ConnectionLimit):
    """The worker has as many connections as it may; a further one is reset."""

    fault: Fault = "mesh"
    reason = "full"


class NoListener(ConnectionLimit):
    """A connection came for an address and port that are in no plan; it is reset."""

    reason = "no_route"


class NotRedirected(ConnectionLimit):
    """A connection came to the worker itself and not to a mesh address; it is reset."""

    reason = "not_redirected"


class LayerBroke(ExchangeError):
    """A middleware has a bug (500); only this request fails."""


def reply_to(error: ExchangeError) -> Reply:
    """Return the whole response that tells the client of `error`."""
    detail = printable(error.detail)
    quoted = detail.replace("\\", "\\\\").replace('"', '\\"')
    fields = [
        ("Proxy-Status", f'svc.mesh; error={error.proxy_error}; details="{error.reason}: {quoted}"'),
        *((name, printable(value)) for name, value in error.headers),
        ("Content-Type", "text/plain"),
    ]
    body = f"svc.mesh: {detail} ({error.reason})\n".encode()
    return Reply(error.status, fields, body, error.reason)


def signed(reply: Reply) -> Reply:
    """Return the reply of a layer with the field that says who answered."""
    if reply.headers.get("Proxy-Status") is None:
        quoted = printable(reply.reason).replace("\\", "\\\\").replace('"', '\\"')
        reply.headers.add("Proxy-Status", f'svc.mesh; details="{quoted}"')
    return reply


def printable(text: str) -> str:
    """Replace what a string of RFC 8941 (section 3.3.3) cannot hold: CR and LF would begin another field."""
    return _UNPRINTABLE.sub("?", text)
