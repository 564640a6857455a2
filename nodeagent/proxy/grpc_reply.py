"""Answers of the mesh itself as gRPC means them: a status in trailers, or in a head that is also the end.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Trailers-Only". Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from middleware.contract import Reply
from nodeagent.proxy.grpc_status import in_reply
from nodeagent.proxy.message import ResponseHead

_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}
_OWN: Final = frozenset(("content-type", "content-length", "grpc-status", "grpc-message"))
_ENDING: Final = frozenset(("proxy-status", "grpc-status-details-bin"))
"""What may also be in trailers: fields that have a meaning in a head do not belong there."""


def grpc_head(reply: Reply) -> ResponseHead:
    """Return the head that tells a caller of this reply, and ends the response.

    A layer that answers callers of gRPC may say `grpc-status` and `grpc-message` itself.
    """
    lines = _fields(reply, lambda name: name not in _OWN)
    lines += b"content-type: application/grpc\r\n" + _status(reply)
    return ResponseHead(200, b"1", b"200 OK", lines, 0)


def grpc_trailers(reply: Reply) -> bytes:
    """Return the trailers that tell a caller of this reply when its response has begun already."""
    return _fields(reply, lambda name: name in _ENDING) + _status(reply)


def _fields(reply: Reply, wanted: Callable[[str], bool]) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in reply.headers if wanted(name.lower())]
    return "".join(lines).encode("latin-1")


def _status(reply: Reply) -> bytes:
    line = b"grpc-status: %d\r\n" % in_reply(reply)
    said = reply.headers.get("grpc-message")
    if said is not None:
        return line + b"grpc-message: %b\r\n" % said.encode("latin-1")
    message = reply.body.decode("utf-8", "replace").strip() or reply.reason
    return line + b"grpc-message: %b\r\n" % _percent_encoded(message) if message else line


def _percent_encoded(message: str) -> bytes:
    return b"".join(bytes((one,)) if one in _PLAIN else b"%%%02X" % one for one in message.encode("utf-8"))
