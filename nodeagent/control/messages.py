"""What agent and worker say to each other: msgpack, each message behind its length in four bytes.

A worker is told what it is (`Configure`), then what to serve (`Apply`, again for every change), at last to
leave (`Drain`). It answers each `Apply` with `Applied`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final, Literal, cast

import msgspec

from middleware.registry import by_name
from nodeagent.plan.model import LayerSpec, Route, RouteKey
from nodeagent.settings import AccessLog, CaptureKind, Limits

_LENGTH: Final = struct.Struct("!I")


class Configure(msgspec.Struct, frozen=True, tag=True):
    """What the worker needs to know before it serves. `index` is its number on the node, from 0."""

    index: int
    capture: CaptureKind
    limits: Limits
    access_log: AccessLog
    log_level: str
    log_format: Literal["console", "json"]
    successor_address: str


class RunningRoute(msgspec.Struct, frozen=True):
    """A route, and the slot of counters that it counts in."""

    route: Route
    slot: int


class Apply(msgspec.Struct, frozen=True, tag=True):
    """A change of the plan. The first one that a worker gets holds all of it."""

    version: int
    upserted: tuple[RunningRoute, ...]
    removed: tuple[RouteKey, ...]


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Accept no more, finish what is under way, and exit within `timeout` seconds."""

    timeout: float


class ListenFailure(msgspec.Struct, frozen=True):
    """A mesh address and port that the worker could not listen on (loopback capture)."""

    key: RouteKey
    reason: str


class Applied(msgspec.Struct, frozen=True, tag=True):
    """The worker serves this version now."""

    version: int
    failures: tuple[ListenFailure, ...] = ()


Message = Configure | Apply | Drain | Applied

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return the message with its length in front."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def with_options(route: Route) -> Route:
    """Return a route that came over the wire with its layers' options as the middleware's own type."""
    if not route.layers:
        return route
    layers = tuple(
        LayerSpec(spec.name, msgspec.convert(spec.options, by_name(spec.name).options))
        for spec in route.layers
    )
    return msgspec.structs.replace(route, layers=layers)


class Channel(asyncio.Protocol):
    """One end of the socket pair between an agent and a worker."""

    def __init__(self, received: Callable[[Message], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost
        self._buffer = bytearray()
        self._transport = cast("asyncio.Transport", None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio calls this once."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Cut the stream into messages."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer)
            end = _LENGTH.size + size
            if len(buffer) < end:
                return
            message = _decoder.decode(bytes(memoryview(buffer)[_LENGTH.size : end]))
            del buffer[:end]
            self._received(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other process is gone, or has closed."""
        self._lost()

    def send(self, message: Message) -> None:
        """Send a message; it is dropped if the other process is gone."""
        if not self._transport.is_closing():
            self._transport.write(encode(message))

    def close(self) -> None:
        """Close this end."""
        self._transport.close()


def route_values(message: Apply) -> list[tuple[Any, int]]:
    """Return the upserted routes with typed options, each with its slot."""
    return [(with_options(running.route), running.slot) for running in message.upserted]
