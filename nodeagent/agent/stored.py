"""The last good snapshot as bytes, for a start without the source. Pure: `agent/state.py` does the I/O.

    magic 8 | format 2 | model 8 | SHA-256 of the body 32 | length of the body 8 | body

The body is a sequence of frames, each a length (4 bytes) and a msgpack value: a `Head`, a `_Rest`, then
Services in portions. Numbers are big-endian. `model` is a fingerprint of the types: a file that was written
with other types is refused, so no release has to declare that they changed. Frames are small, because nothing
else runs while one is encoded or decoded, and DNS is answered between two of them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec

from discovery.model import MeshSnapshot, NamespaceObject, PodObject, Problem, Service, ServiceKey
from nodeagent.agent.plausible import why_no_head, why_no_namespace, why_no_pod, why_no_service
from nodeagent.plan.model import NodePlan, ServicePlan

MAGIC = b"svcmesh\n"
FORMAT = 1
PORTION = 100
"""Services in one frame."""
REASON = 300
"""Characters of a decoder's message that are passed on: the message may quote what was found."""

_PREFIX = struct.Struct(">8sH8s32sQ")
_LENGTH = struct.Struct(">I")


class SnapshotRefused(Exception):
    """The bytes are not trusted; the message says why."""


class Head(msgspec.Struct, frozen=True):
    """Where a snapshot comes from."""

    mesh: str
    """The version of svc.mesh that wrote it."""
    source: str
    written: float
    """Unix time in seconds."""
    version: int


class Stored(msgspec.Struct, frozen=True):
    """A snapshot, and the annotations that were in force for each Service."""

    head: Head
    snapshot: MeshSnapshot
    effective: Mapping[ServiceKey, Mapping[str, str]]


class _StoredService(msgspec.Struct, frozen=True, array_like=True):
    service: Service
    effective: Mapping[str, str]


class _Rest(msgspec.Struct, frozen=True):
    pods: tuple[tuple[str, PodObject], ...]
    problems: tuple[Problem, ...]
    namespaces: tuple[NamespaceObject, ...]


def encode_snapshot(head: Head, snapshot: MeshSnapshot, plan: NodePlan) -> bytes:
    """Return a snapshot as bytes, with the annotations in force according to the plan made of it."""
    body = b"".join(_frames(head, snapshot, plan))
    return _PREFIX.pack(MAGIC, FORMAT, _model(), hashlib.sha256(body).digest(), len(body)) + body


def decode_snapshot(content: bytes, source: str) -> Stored:
    """Read a snapshot of this source.

    Raises:
        SnapshotRefused: it is damaged, not a snapshot, of another source, or from another version.
    """
    body = _checked_body(content)
    try:
        return _decode(body, _PREFIX.unpack_from(content)[2], source)
    except SnapshotRefused:
        raise
    # The checksum is no secret, so anything may follow it: bytes that are not text, a thousand nested lists,
    # a length beyond all memory. Each of them raises another exception.
    except Exception as error:
        reason = str(error)[:REASON] or type(error).__name__
        raise SnapshotRefused(f"its checksum is right, its content is not: {reason}") from error


def _decode(body: bytes, model: bytes, source: str) -> Stored:
    frames = _split(body)
    head = msgspec.msgpack.decode(next(frames), type=Head)
    if model != _model():
        raise SnapshotRefused(f"svc.mesh {head.mesh[:40]} wrote it, whose data are not those of this version")
    if head.source != source:
        raise SnapshotRefused(f"it is of the source {head.source[:REASON]}")
    _insist(why_no_head(head.version, head.written))
    rest = msgspec.msgpack.decode(next(frames), type=_Rest)
    pods: dict[str, PodObject] = {}
    for address, pod in rest.pods:
        _insist(why_no_pod(address, pod) or ("a Pod's address is listed twice" if address in pods else ""))
        pods[address] = pod
    portions = msgspec.msgpack.Decoder(tuple[_StoredService, ...])
    services: dict[ServiceKey, Service] = {}
    effective: dict[ServiceKey, Mapping[str, str]] = {}
    for frame in frames:
        for one in portions.decode(frame):
            key = one.service.key
            _insist(why_no_service(one.service) or (f"{key} is listed twice" if key in services else ""))
            services[key], effective[key] = one.service, one.effective
    for namespace in rest.namespaces:
        _insist(why_no_namespace(namespace))
    namespaces = {namespace.key.name: namespace for namespace in rest.namespaces}
    snapshot = MeshSnapshot(max(1, head.version), services, pods, rest.problems, namespaces=namespaces)
    return Stored(head, snapshot, effective)


def _insist(reason: str) -> None:
    """Raise an error with this reason, if there is one."""
    if reason:
        raise ValueError(reason)


def remembered_plan(stored: Stored) -> NodePlan:
    """Return a plan with nothing but the annotations in force: they are the last good values for the next
    plan.
    """
    return NodePlan(
        version=0,
        services={
            # A copy: the compiler would not compile an object again that it finds in the previous plan.
            key: ServicePlan(msgspec.structs.replace(service), "", (), (), stored.effective[key])
            for key, service in stored.snapshot.services.items()
        },
    )


def _frames(head: Head, snapshot: MeshSnapshot, plan: NodePlan) -> Iterator[bytes]:
    yield from _frame(head)
    namespaces = tuple(snapshot.namespaces.values())
    yield from _frame(_Rest(tuple(snapshot.pods.items()), snapshot.problems, namespaces))
    services = list(snapshot.services.items())
    for start in range(0, len(services), PORTION):
        yield from _frame(
            [
                _StoredService(service, plan.services[key].effective if key in plan.services else {})
                for key, service in services[start : start + PORTION]
            ]
        )


def _frame(value: Any) -> tuple[bytes, bytes]:
    encoded = msgspec.msgpack.encode(value)
    return _LENGTH.pack(len(encoded)), encoded


def _checked_body(content: bytes) -> bytes:
    if not content.startswith(MAGIC):
        raise SnapshotRefused("it is no snapshot of svc.mesh" if content else "it is empty")
    if len(content) < _PREFIX.size:
        raise SnapshotRefused("it is truncated")
    _, number, _, checksum, length = _PREFIX.unpack_from(content)
    if number != FORMAT:
        raise SnapshotRefused(f"it has format {number}, and this version reads {FORMAT}")
    body = content[_PREFIX.size :]
    if len(body) != length:
        raise SnapshotRefused(f"it has {len(body)} of {length} bytes: it is truncated or damaged")
    if hashlib.sha256(body).digest() != checksum:
        raise SnapshotRefused("its checksum is wrong: it is damaged")
    return body


def _split(body: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(body):
        if offset + _LENGTH.size > len(body):
            raise SnapshotRefused("its checksum is right, its frames are not")
        end = offset + _LENGTH.size + _LENGTH.unpack_from(body, offset)[0]
        yield body[offset + _LENGTH.size : end]
        offset = end


@cache
def _model() -> bytes:
    """Return a fingerprint of everything that is stored: names, order and types of all fields."""
    schemas = msgspec.json.schema_components([_StoredService, _Rest])
    return hashlib.sha256(msgspec.json.encode(_without_words(schemas), order="sorted")).digest()[:8]


def _without_words(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: _without_words(v) for k, v in schema.items() if k not in ("description", "title")}
    return [_without_words(part) for part in schema] if isinstance(schema, list | tuple) else schema
