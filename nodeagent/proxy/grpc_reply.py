"""Answers of the mesh itself as gRPC means them: a status in trailers, or in a head that is also the end.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Trailers-Only". Pure.
"""

from __future__ import annotations

from typing import Final

from middleware.contract import Reply
from nodeagent.proxy.grpc_status import in_reply
from nodeagent.proxy.message import ResponseHead

_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}
_OWN: Final = frozenset(("content-type", "content-length", "grpc-status"))
_MESSAGE: Final = "grpc-message"


def grpc_head(reply: Reply) -> ResponseHead:
    """Return the head that tells a caller of this reply, and ends the response.

    A layer that answers callers of gRPC may say `grpc-status` and `grpc-message` itself.
    """
    lines = b"content-type: application/grpc\r\n" + grpc_trailers(reply)
    return ResponseHead(200, b"1", b"200 OK", lines, 0)


def grpc_trailers(reply: Reply) -> bytes:
    """Return the trailers that tell a caller of this reply when its response has begun already."""
    lines = b"".join(
        f"{name}: {value}\r\n".encode("latin-1") for name, value in reply.headers if name.lower() not in _OWN
    )
    lines += b"grpc-status: %d\r\n" % in_reply(reply)
    message = reply.body.decode("utf-8", "replace").strip() or reply.reason
    if message and reply.headers.get(_MESSAGE) is None:
        lines += b"grpc-message: %b\r\n" % _percent_encoded(message)
    return lines


def _percent_encoded(message: str) -> bytes:
    return b"".join(bytes((one,)) if one in _PLAIN else b"%%%02X" % one for one in message.encode("utf-8"))
