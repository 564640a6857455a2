"""Spans of a traced request, with the names of OpenTelemetry's semantic conventions. Pure.

The request is a span of the kind SERVER. Its children are the stages of its journey: each try is a CLIENT
span, and each wait an INTERNAL one. An endpoint's own spans are children of the SERVER span, whose id it was
sent: all tries of a request send the same.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/ and rpc/rpc-spans/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from middleware.contract import Stage, TracedRequest
from nodeagent.control.messages import SourcePod

SpanKind = Literal["SERVER", "CLIENT", "INTERNAL"]
Value = str | int
METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
"""All others are `_OTHER`, so that a client cannot make names without end."""
FIRST_CLIENT_ERROR: Final = 400
LONGEST: Final = 1024
"""Characters of a value; the rest is cut off."""
SPAN_IDS: Final = 1 << 64
NAMES: Final = {
    "queue": "wait in a queue",
    "connect": "connect",
    "backoff": "wait before a retry",
    "middleware": "middleware",
}
WORKLOADS: Final = {
    "deployment": "k8s.deployment.name",
    "statefulset": "k8s.statefulset.name",
    "daemonset": "k8s.daemonset.name",
    "replicaset": "k8s.replicaset.name",
    "cronjob": "k8s.cronjob.name",
    "job": "k8s.job.name",
}
SOURCE: Final = "source."
"""Before attributes of the client's pod: those without it say what made the span."""


class Span(msgspec.Struct, frozen=True):
    """One span, whatever form it is sent in. Times are nanoseconds since 1970."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    """Empty: it is the first one of its trace."""
    name: str
    kind: SpanKind
    start: int
    end: int
    attributes: dict[str, Value]
    failed: bool = False
    message: str = ""
    """Why it has failed, in a sentence."""


def spans_of(request: TracedRequest, zone: str, pod: SourcePod | None, clock: float) -> Iterator[Span]:
    """Yield the spans of a request. `zone` is the mesh's, `pod` the client's if it is known, and `clock` what
    to add to the data plane's times to have seconds since 1970.
    """
    attributes = _of_request(request, zone)
    if pod is not None:
        attributes.update(_of_source(pod))
    if request.status:
        attributes["http.response.status_code"] = request.status
    if request.grpc_status is not None:
        attributes["rpc.grpc.status_code"] = int(request.grpc_status)
    if request.failure:
        attributes["error.type"] = request.failure
    if not request.sampled:
        attributes["svcmesh.sampled_because"] = "failed" if request.failure else "slow"
    yield Span(
        trace_id=request.trace_id,
        span_id=request.span_id,
        parent_id=request.parent_id,
        name=_name(request),
        kind="SERVER",
        start=_nanoseconds(request.start, clock),
        end=_nanoseconds(request.end, clock),
        attributes=attributes,
        failed=bool(request.failure),
        message=request.detail[:LONGEST],
    )
    own = int.from_bytes(request.span_id)
    for index, stage in enumerate(request.stages, 1):
        yield _of_stage(request, stage, ((own + index) % SPAN_IDS or 1).to_bytes(8), clock)


def _of_stage(request: TracedRequest, stage: Stage, span_id: bytes, clock: float) -> Span:
    attributes: dict[str, Value] = {}
    failed = False
    if stage.endpoint:
        address, _, port = stage.endpoint.rpartition(":")
        attributes["server.address"] = address.strip("[]")
        attributes["server.port"] = int(port)
    if stage.number > 1:
        attributes["http.request.resend_count"] = stage.number - 1
    if stage.kind == "try":
        attributes["http.request.method"] = _method(request.method)
        attributes["url.path"] = request.path[:LONGEST]
    if stage.outcome.isdecimal():
        status = attributes["http.response.status_code"] = int(stage.outcome)
        failed = status >= FIRST_CLIENT_ERROR
    elif stage.outcome and stage.outcome != "abandoned":
        failed = True
    if failed:
        attributes["error.type"] = stage.outcome
    return Span(
        trace_id=request.trace_id,
        span_id=span_id,
        parent_id=request.span_id,
        name=NAMES.get(stage.kind) or _name(request),
        kind="CLIENT" if stage.kind == "try" else "INTERNAL",
        start=_nanoseconds(stage.start, clock),
        end=_nanoseconds(stage.end, clock),
        attributes=attributes,
        failed=failed,
    )


def _of_request(request: TracedRequest, zone: str) -> dict[str, Value]:
    namespace, _, name = request.service.partition("/")
    method = _method(request.method)
    attributes: dict[str, Value] = {
        "http.request.method": method,
        "url.path": request.path[:LONGEST],
        "url.scheme": "http",
        "server.address": f"{name}.{namespace}.{zone}",
        "server.port": request.port,
        "client.address": request.source,
        "client.port": request.source_port,
        "network.protocol.name": "http",
        "network.protocol.version": request.http_version,
        "svcmesh.service": request.service,
        "svcmesh.received_bytes": request.received,
        "svcmesh.sent_bytes": request.sent,
    }
    if method != request.method:
        attributes["http.request.method_original"] = request.method[:LONGEST]
    if request.grpc_status is not None:
        service, _, called = request.path.removeprefix("/").rpartition("/")
        attributes["rpc.system"] = "grpc"
        attributes["rpc.service"] = service[:LONGEST]
        attributes["rpc.method"] = called[:LONGEST]
    return attributes


def _of_source(pod: SourcePod) -> dict[str, Value]:
    attributes: dict[str, Value] = {
        f"{SOURCE}k8s.namespace.name": pod.namespace,
        f"{SOURCE}k8s.pod.name": pod.name,
    }
    kind, _, name = pod.workload.partition("/")
    if kind in WORKLOADS and name:
        attributes[f"{SOURCE}{WORKLOADS[kind]}"] = name
    return attributes


def _name(request: TracedRequest) -> str:
    """Return a name of which there are few: a path is none."""
    if request.grpc_status is not None:
        return request.path.removeprefix("/")[:LONGEST]
    method = _method(request.method)
    return "HTTP" if method == "_OTHER" else method


def _method(method: str) -> str:
    return method if method in METHODS else "_OTHER"


def _nanoseconds(time: float, clock: float) -> int:
    return round((time + clock) * 1_000_000_000)
