"""Answers of the mesh itself as gRPC means them: HTTP 200 and a status in a head that is also the end.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Trailers-Only". Pure.
"""

from __future__ import annotations

from typing import Final

from middleware.contract import Reply
from nodeagent.proxy.http2.field import is_grpc_type
from nodeagent.proxy.message import Fields, RequestHead, ResponseHead

INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16

_BY_STATUS: Final = {
    400: INVALID_ARGUMENT,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    408: DEADLINE_EXCEEDED,
    429: RESOURCE_EXHAUSTED,
    431: RESOURCE_EXHAUSTED,
    500: INTERNAL,
    501: UNIMPLEMENTED,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}
_FRAMING: Final = frozenset(("content-type", "content-length"))


def is_grpc(head: RequestHead) -> bool:
    """Whether the caller speaks gRPC, and so understands nothing else."""
    return is_grpc_type((Fields(head).get("content-type") or "").encode("latin-1"))


def grpc_status(status: int) -> int:
    """Return the status of gRPC that says what this status of HTTP does."""
    if status < 400:
        return INTERNAL  # a reply that is no error cannot be a message either
    return _BY_STATUS.get(status, INTERNAL if status >= 500 else INVALID_ARGUMENT)


def grpc_head(reply: Reply) -> ResponseHead:
    """Return the head that tells a caller of this reply, and ends the response."""
    lines = b"".join(
        f"{name}: {value}\r\n".encode("latin-1")
        for name, value in reply.headers
        if name.lower() not in _FRAMING
    )
    lines += b"content-type: application/grpc\r\n" + grpc_trailers(reply)
    return ResponseHead(200, b"1", b"200 OK", lines, 0)


def grpc_trailers(reply: Reply) -> bytes:
    """Return the lines that tell a caller of this reply: the trailers of a response that has begun."""
    message = reply.body.decode("utf-8", "replace").strip() or reply.reason
    lines = b"grpc-status: %d\r\n" % grpc_status(reply.status)
    return lines + b"grpc-message: %b\r\n" % _percent_encoded(message) if message else lines


def _percent_encoded(message: str) -> bytes:
    return b"".join(bytes((one,)) if one in _PLAIN else b"%%%02X" % one for one in message.encode("utf-8"))
