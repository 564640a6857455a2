"""Spans as a message of OTLP over HTTP: protobuf, by the definitions that OpenTelemetry publishes.

The SDK of OpenTelemetry makes spans while things happen, and its exporter posts in a thread of its own with a
library that blocks. Here spans are made afterwards and sent by the agent's loop, so nothing is used but the
messages, which are what both sides have to agree on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from nodeagent.agent.spans import Span, Value

CONTENT_TYPE: Final = "application/x-protobuf"
SCOPE: Final = "svcmesh"
_KINDS: Final = {
    "SERVER": trace_pb2.Span.SPAN_KIND_SERVER,
    "CLIENT": trace_pb2.Span.SPAN_KIND_CLIENT,
    "INTERNAL": trace_pb2.Span.SPAN_KIND_INTERNAL,
}


def encode(spans: Iterable[Span], resource: Mapping[str, Value]) -> bytes:
    """Return the body of a POST with these spans. `resource` says who sends them."""
    scoped = trace_pb2.ScopeSpans(
        scope=InstrumentationScope(name=SCOPE), spans=[_message(span) for span in spans]
    )
    resource_spans = trace_pb2.ResourceSpans(
        resource=Resource(attributes=_attributes(resource)), scope_spans=[scoped]
    )
    body: bytes = ExportTraceServiceRequest(resource_spans=[resource_spans]).SerializeToString()
    return body


def _message(span: Span) -> trace_pb2.Span:
    status = None
    if span.failed:
        status = trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message=span.message)
    return trace_pb2.Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_id,
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.start,
        end_time_unix_nano=span.end,
        attributes=_attributes(span.attributes),
        status=status,
    )


def _attributes(values: Mapping[str, Value]) -> list[KeyValue]:
    return [
        KeyValue(
            key=key,
            value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value),
        )
        for key, value in values.items()
    ]
