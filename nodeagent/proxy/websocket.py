"""The handshake of WebSockets, which HTTP/1 makes with a key (RFC 6455) and HTTP/2 without (RFC 8441). Pure.

In the mesh's own messages it is that of HTTP/1: a GET whose head names the protocol in `upgrade`, and a 101.
Each protocol converts on its own side. What came over HTTP/2 has no key (`WebSocketHead`), so HTTP/1 makes
one and checks the answer to it; on the way to HTTP/2 the client's key stays here, and the answer to it is
made here.
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Final

from nodeagent.proxy.message import Fields, RequestHead, ResponseHead

PROTOCOL: Final = b"websocket"
_KEY: Final = "sec-websocket-key"
_ACCEPT: Final = "sec-websocket-accept"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""


class WebSocketHead(RequestHead):
    """The head of a request for a WebSocket that came without a key."""

    __slots__ = ()

    def __init__(self, target: bytes, fields: bytes, end: int) -> None:
        super().__init__(b"GET", target, b"1", fields, end)
        self.upgrade = PROTOCOL
        Fields(self).remove(_KEY)  # RFC 8441 section 5: it means nothing there
        Fields(self).remove(_ACCEPT)


def asks_for_one(head: RequestHead) -> bool:
    """Whether a request is for a WebSocket: other words of Upgrade, or no key, ask for something else."""
    if isinstance(head, WebSocketHead):
        return True
    words = [word.strip().lower() for word in head.upgrade.split(b",")]
    return head.method == b"GET" and PROTOCOL in words and key_of(head) != ""


def key_of(head: RequestHead) -> str:
    """Return the client's key; empty if there is none."""
    return Fields(head).get(_KEY) or ""


def make_key() -> str:
    """Return a key for an endpoint (RFC 6455 section 4.1)."""
    return base64.b64encode(os.urandom(16)).decode()


def accept_of(key: str) -> str:
    """Return what answers a key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(
        hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    ).decode()


def key_line(key: str) -> bytes:
    """Return the line that tells an endpoint of HTTP/1 the key."""
    return f"Sec-WebSocket-Key: {key}\r\n".encode("latin-1")


def why_not_switched(head: ResponseHead, key: str) -> str:
    """Say what is wrong with the answer of an endpoint that was given `key`; empty: nothing.

    Anything but a success is an ordinary answer. A success without a switch would look like a WebSocket to a
    client of HTTP/2 (RFC 8441 section 5).
    """
    if head.status != 101:
        return f"has not switched to websocket but answered {head.status}" if head.status < 300 else ""
    if head.upgrade.lower() != PROTOCOL:
        return "has switched to another protocol than websocket"
    if Fields(head).get(_ACCEPT) != accept_of(key):
        return "has switched to websocket with a Sec-WebSocket-Accept that is not the key's"
    return ""


def to_extended_connect(head: RequestHead) -> RequestHead:
    """Return the head of the request as it is over HTTP/2: a CONNECT, which `:protocol` is added to there."""
    connect = RequestHead(b"CONNECT", head.target, b"1", head.fields, head.end)
    connect.forwarded_for = head.forwarded_for
    fields = Fields(connect)
    fields.remove(_KEY)
    fields.remove("content-length")  # of 0; a CONNECT has none (RFC 9110 section 9.3.6)
    return connect


def to_switched(head: ResponseHead, key: str) -> ResponseHead:
    """Return a success of HTTP/2 as the 101 that answers this key, if there was one."""
    switched = ResponseHead(101, b"1", b"101 Switching Protocols", head.fields, head.end)
    switched.upgrade = PROTOCOL
    fields = Fields(switched)
    fields.remove("content-length")  # RFC 9110 section 8.6
    fields.remove(_ACCEPT)
    if key:
        fields.add("Sec-WebSocket-Accept", accept_of(key))
    return switched


def to_success(head: ResponseHead) -> ResponseHead:
    """Return a 101 as the success that it is over HTTP/2."""
    success = ResponseHead(200, b"1", b"200 OK", head.fields, head.end)
    Fields(success).remove(_ACCEPT)
    return success


def not_to_be_mistaken(head: ResponseHead) -> ResponseHead:
    """Return an answer that switches to nothing, so that no client of HTTP/2 takes it for the tunnel."""
    if head.status >= 300:
        return head
    failure = ResponseHead(502, b"1", b"502 Bad Gateway", head.fields, head.end)
    failure.length = head.length
    return failure
