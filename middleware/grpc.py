"""The status codes of gRPC, and how they correspond to status codes of HTTP.

A call that fails is an HTTP 200 whose trailers, or whose head if nothing else comes, say `grpc-status`. Three
tables translate between the two:

- `http_code`: what a call's status is in expressions with HTTP's codes, as in Envoy
  (https://cloud.google.com/apis/design/errors#handling_errors);
- `of_http`: how callers understand a response without a gRPC status
  (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md);
- `of_reply`: what the mesh tells callers when it answers itself. This differs from the table before, which is
  for proxies that do not know gRPC: a call over a rate limit gets RESOURCE_EXHAUSTED and not UNAVAILABLE,
  after which many callers try again.

Pure.
"""

from __future__ import annotations

import enum
from typing import Final


class GrpcStatus(enum.IntEnum):
    """https://grpc.io/docs/guides/status-codes/."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def word(self) -> str:
        """As annotations spell it, and Envoy's `retry-grpc-on`: `deadline-exceeded`."""
        return self.name.lower().replace("_", "-")


BY_WORD: Final = {status.word: status for status in GrpcStatus if status is not GrpcStatus.OK}
"""The failures, by their words in annotations."""

_HTTP_CODES: Final = {
    GrpcStatus.OK: 200,
    GrpcStatus.CANCELLED: 499,
    GrpcStatus.UNKNOWN: 500,
    GrpcStatus.INVALID_ARGUMENT: 400,
    GrpcStatus.DEADLINE_EXCEEDED: 504,
    GrpcStatus.NOT_FOUND: 404,
    GrpcStatus.ALREADY_EXISTS: 409,
    GrpcStatus.PERMISSION_DENIED: 403,
    GrpcStatus.RESOURCE_EXHAUSTED: 429,
    GrpcStatus.FAILED_PRECONDITION: 400,
    GrpcStatus.ABORTED: 409,
    GrpcStatus.OUT_OF_RANGE: 400,
    GrpcStatus.UNIMPLEMENTED: 501,
    GrpcStatus.INTERNAL: 500,
    GrpcStatus.UNAVAILABLE: 503,
    GrpcStatus.DATA_LOSS: 500,
    GrpcStatus.UNAUTHENTICATED: 401,
}
_OF_HTTP: Final = {
    400: GrpcStatus.INTERNAL,
    401: GrpcStatus.UNAUTHENTICATED,
    403: GrpcStatus.PERMISSION_DENIED,
    404: GrpcStatus.UNIMPLEMENTED,
    429: GrpcStatus.UNAVAILABLE,
    502: GrpcStatus.UNAVAILABLE,
    503: GrpcStatus.UNAVAILABLE,
    504: GrpcStatus.UNAVAILABLE,
}
_OF_REPLY: Final = {
    400: GrpcStatus.INVALID_ARGUMENT,
    401: GrpcStatus.UNAUTHENTICATED,
    403: GrpcStatus.PERMISSION_DENIED,
    404: GrpcStatus.UNIMPLEMENTED,
    408: GrpcStatus.DEADLINE_EXCEEDED,
    429: GrpcStatus.RESOURCE_EXHAUSTED,
    431: GrpcStatus.RESOURCE_EXHAUSTED,
    500: GrpcStatus.INTERNAL,
    501: GrpcStatus.UNIMPLEMENTED,
    502: GrpcStatus.UNAVAILABLE,
    503: GrpcStatus.UNAVAILABLE,
    504: GrpcStatus.DEADLINE_EXCEEDED,
}


def http_code(status: int, grpc_status: GrpcStatus | None) -> int:
    """Return the code of HTTP that says what became of a request: its own, unless that is a call's 200."""
    return status if status != 200 or grpc_status is None else _HTTP_CODES[grpc_status]


def of_http(status: int) -> GrpcStatus:
    """Return how callers understand this HTTP status if there is no gRPC status."""
    return _OF_HTTP.get(status, GrpcStatus.UNKNOWN)


def of_reply(status: int) -> GrpcStatus:
    """Return what the mesh tells callers where it would answer others with this status of HTTP."""
    if status < 400:
        return GrpcStatus.INTERNAL  # a reply that is no error cannot be a message either
    found = _OF_REPLY.get(status)
    if found is not None:
        return found
    return GrpcStatus.INTERNAL if status >= 500 else GrpcStatus.INVALID_ARGUMENT
