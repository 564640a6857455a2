"""Replies of the mesh as HTTP/1.1 responses."""

from __future__ import annotations

from http import HTTPStatus

from middleware.contract import Reply
from nodeagent.proxy.message import dated

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def render_reply(reply: Reply, keep_alive: bool, to_head: bool, date: bytes = b"") -> bytes:
    """Return a whole response; that to a HEAD request has no body, only its length. `date` is the line of a
    field Date, for a reply that has none.
    """
    lines = [
        f"HTTP/1.1 {reply.status} {_PHRASES.get(reply.status, 'Error')}",
        *(f"{name}: {value}" for name, value in reply.headers),
    ]
    bodiless = reply.status in (204, 304)  # RFC 9110 section 8.6
    if not bodiless:
        lines.append(f"Content-Length: {len(reply.body)}")
    if not keep_alive:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n").encode("latin-1")
    head = (dated(head, date) if date else head) + b"\r\n"
    return head if to_head or bodiless else head + reply.body
