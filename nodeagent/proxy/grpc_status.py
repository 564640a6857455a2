"""Where messages say the status of a gRPC call: in trailers, or in a head that is also the end. Pure.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. A status that is missing or invalid counts as
what callers take it for: UNKNOWN, or the status that corresponds to HTTP's.
"""

from __future__ import annotations

import re
from typing import Final

from middleware.contract import Reply
from middleware.grpc import GrpcStatus, of_http, of_reply
from nodeagent.proxy.message import ResponseHead

_STATUS: Final = re.compile(rb"(?:\A|\n)(?i:grpc-status):([^\r\n]*+)\r")
_STATUSES: Final = {b"%d" % status: status for status in GrpcStatus}


def said_in(lines: bytes) -> GrpcStatus | None:
    """Return the status that trailers say, or a head's fields; None: they have none."""
    match = _STATUS.search(lines)
    return _STATUSES.get(match[1].strip(b" \t"), GrpcStatus.UNKNOWN) if match is not None else None


def status_in(lines: bytes, http_status: int) -> GrpcStatus:
    """Return the status of a call that ends with these fields; without any, what HTTP's status means."""
    said = said_in(lines)
    return said if said is not None else of_http(http_status)


def in_head(head: ResponseHead) -> GrpcStatus:
    """Return the status of a call whose response is nothing but this head, or is none of gRPC."""
    return status_in(head.fields, head.status)


def in_reply(reply: Reply) -> GrpcStatus:
    """Return the status that a caller is told by a reply: that of its field, or what its status means."""
    said = reply.headers.get("grpc-status")
    if said is None:
        return of_reply(reply.status)
    return _STATUSES.get(said.encode("latin-1", "replace"), GrpcStatus.UNKNOWN)
