"""The health protocol of gRPC: its two messages, and what an answer means. Pure.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md and grpc/health/v1/health.proto: a request has
the name of a service as field 1, a response its status as field 1. Nothing else is written and read here; a
library for it would need protobuf.
"""

from __future__ import annotations

from typing import Final

PATH: Final = b"/grpc.health.v1.Health/Check"
SERVING: Final = 1
_NAMES: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_STATUSES: Final = {"5": "it does not know the service", "12": "it has no grpc.health.v1.Health"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_PREFIX: Final = 5
"""Bytes in front of a message: whether it is compressed, and its length."""


class MalformedMessage(Exception):
    """Bytes that are not a message of this protocol."""


def health_request(service: str) -> bytes:
    """Return the request as gRPC sends it."""
    name = service.encode("ascii")
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def failure_of(grpc_status: str, message: str, body: bytes) -> str:
    """Return why an answer does not say that the service is healthy; empty if it does."""
    if grpc_status != "0":
        known = _STATUSES.get(grpc_status, message)
        return f"grpc-status {grpc_status or 'missing'}" + (f": {known[:100]}" if known else "")
    try:
        status = serving_status(body)
    except MalformedMessage as error:
        return f"its answer is no HealthCheckResponse: {error}"
    return "" if status == SERVING else _NAMES.get(status, f"status {status}")


def serving_status(body: bytes) -> int:
    """Return the status in the body of a response.

    Raises:
        MalformedMessage: there is none.
    """
    if len(body) < _PREFIX or body[0]:
        raise MalformedMessage("not one message that is not compressed")
    message = body[_PREFIX:]
    if len(message) != int.from_bytes(body[1:_PREFIX], "big"):
        raise MalformedMessage("not of the length that it says")
    status, at = 0, 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            if tag >> 3 == 1:
                status = value
        elif kind == _BYTES:
            size, at = _read_varint(message, at)
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise MalformedMessage(f"a field of wire type {kind}")
    if at > len(message):
        raise MalformedMessage("cut short")
    return status


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise MalformedMessage("cut short")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise MalformedMessage("a number of more than ten bytes")
