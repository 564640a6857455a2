"""What agent and worker say to each other: msgpack, each message after its length in four bytes.

A worker is told how to work (`Configure`), then what to serve (`Apply`), which pods the node has (`Sources`)
and which endpoints are unhealthy (`Conditions`), each of these again for every change, and in the end to
leave (`Drain`). It answers each `Apply` with `Applied`, says which endpoints it has ejected itself
(`Ejections`) and what has failed (`Failed`), passes on what it has recorded of requests (`Traces`), and,
while somebody watches (`Tap`), which requests have ended (`Tapped`).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from typing import Final, Literal, cast

import msgspec

from middleware.contract import TracedRequest
from middleware.registry import by_name
from nodeagent.control.tap import TappedLine, Watch
from nodeagent.plan.model import BackendKey, BackendSpec, LayerSpec, Listener, ListenerKey
from nodeagent.settings import AccessLog, CaptureKind, Limits, StoreAddress
from nodeagent.stats.failures import FailureLine

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
    outlives_agent: bool
    """When the agent is gone: continue to serve until another one is ready. If not set, end with the
    agent."""
    node: str = ""
    """The name of the node."""
    zone: str = ""
    """Where the node is; empty if the agent does not know."""
    token_store: StoreAddress | None = None
    traces: bool = False
    """Whether the agent takes what is recorded of requests."""
    access_log_format: str = ""
    """As in `Settings`."""


class SlottedListener(msgspec.Struct, frozen=True):
    """A listener, and the slot of counters that it counts in."""

    listener: Listener
    slot: int


class SlottedBackend(msgspec.Struct, frozen=True):
    """A backend, and the slot of its port."""

    backend: BackendSpec
    slot: int


class BackendCondition(msgspec.Struct, frozen=True, array_like=True):
    """Addresses and ports of all endpoints of a backend that fail their health checks; may be empty."""

    backend: BackendKey
    unhealthy: tuple[tuple[str, int], ...]


class Apply(msgspec.Struct, frozen=True, tag=True):
    """A change of the plan. The first one that a worker gets holds all of it."""

    version: int
    upserted: tuple[SlottedListener, ...]
    removed: tuple[ListenerKey, ...]
    backends: tuple[SlottedBackend, ...] = ()
    removed_backends: tuple[BackendKey, ...] = ()
    conditions: tuple[BackendCondition, ...] = ()
    """In the first one, those of all backends with unhealthy endpoints, so that no request is served before
    they are known."""


class SourcePod(msgspec.Struct, frozen=True, array_like=True):
    """The pod behind an address of this node: the client of connections from there."""

    namespace: str
    name: str
    workload: str
    """`deployment/web`, in the same namespace."""
    service_account: str = ""
    """In the same namespace; empty if that is not known."""


class Sources(msgspec.Struct, frozen=True, tag=True):
    """Addresses that belong to another pod than before, or to none. The first message holds all addresses of
    pods.

    An address is in at most one of the two fields. There is no answer: a worker that is late names a pod
    late.
    """

    upserted: Mapping[str, SourcePod]
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.upserted or self.removed)


class Conditions(msgspec.Struct, frozen=True, tag=True):
    """The condition of backends of which endpoints have become unhealthy, or healthy again. There is no
    answer.
    """

    backends: tuple[BackendCondition, ...]


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Accept no more connections, finish what is in flight, and exit within `timeout` seconds."""

    timeout: float


class PortFailure(msgspec.Struct, frozen=True):
    """A mesh address and port that a worker does not serve as the plan says, in the words of a `Problem`."""

    key: ListenerKey
    reason: str
    expected: str
    effect: str


class Applied(msgspec.Struct, frozen=True, tag=True):
    """The worker serves this version now, all ports but those in `failures`.

    Sent for each `Apply`, and again when one that has failed is served after all.
    """

    version: int
    failures: tuple[PortFailure, ...] = ()


class BackendEjections(msgspec.Struct, frozen=True, array_like=True):
    """All endpoints of a backend that outlier detection has ejected, with the reason; may be empty."""

    backend: BackendKey
    ejected: tuple[tuple[str, int, str], ...]


class Ejections(msgspec.Struct, frozen=True, tag=True):
    """The backends whose ejected endpoints have changed, as this worker has it. There is no answer."""

    backends: tuple[BackendEjections, ...]


class Tap(msgspec.Struct, frozen=True, tag=True):
    """All watches of live requests there are now; none: stop sending lines. There is no answer."""

    watches: tuple[Watch, ...]


class Tapped(msgspec.Struct, frozen=True, tag=True):
    """Lines about requests that somebody watches, and how many there was no room for, by watch."""

    lines: tuple[TappedLine, ...]
    dropped: tuple[tuple[int, int], ...] = ()


class Failed(msgspec.Struct, frozen=True, tag=True):
    """What failed or was refused, and how many of each Service there was no room for. There is no answer."""

    lines: tuple[FailureLine, ...]
    left_out: tuple[tuple[str, int], ...] = ()


class Traces(msgspec.Struct, frozen=True, tag=True):
    """Requests that were recorded, and how many the worker has dropped since the last message of this kind.
    There is no answer.
    """

    requests: tuple[TracedRequest, ...]
    dropped: int
    sources: tuple[str, ...] = ()
    """The client of each of them: the `Identity.source` under which it is counted."""


Message = (
    Configure | Apply | Sources | Conditions | Drain | Applied | Ejections | Tap | Tapped | Failed | Traces
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return the message with its length in front."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def _typed(layers: tuple[LayerSpec, ...]) -> tuple[LayerSpec, ...]:
    """Return layers that came over the wire with their options as the middleware's own type."""
    return tuple(
        LayerSpec(spec.name, msgspec.convert(spec.options, by_name(spec.name).options)) for spec in layers
    )


def typed_listener(listener: Listener) -> Listener:
    """Return a listener that came over the wire with its layers' options as the middleware's own type."""
    if not listener.all_layers:
        return listener
    rules = tuple(msgspec.structs.replace(rule, layers=_typed(rule.layers)) for rule in listener.rules)
    return msgspec.structs.replace(listener, layers=_typed(listener.layers), rules=rules)


def typed_backend(backend: BackendSpec) -> BackendSpec:
    """Return a backend that came over the wire with its layers' options as the middleware's own type."""
    if not backend.layers:
        return backend
    return msgspec.structs.replace(backend, layers=_typed(backend.layers))


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

    @property
    def pending(self) -> int:
        """Bytes that the other process has yet to take."""
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close this end."""
        self._transport.close()
