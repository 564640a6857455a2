"""Spans as Zipkin's JSON, version 2 (https://zipkin.io/zipkin-api/). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from nodeagent.agent.spans import Span, Value

CONTENT_TYPE: Final = "application/json"


def encode(spans: Iterable[Span], resource: Mapping[str, Value]) -> bytes:
    """Return the body of a POST with these spans. `resource` says who sends them, as tags of each."""
    endpoint = {"serviceName": str(resource.get("service.name", ""))}
    common = {key: str(value) for key, value in resource.items() if key != "service.name"}
    return msgspec.json.encode([_span(span, endpoint, common) for span in spans])


def _span(span: Span, endpoint: Mapping[str, str], common: Mapping[str, str]) -> dict[str, object]:
    tags = {**common, **{key: str(value) for key, value in span.attributes.items()}}
    if span.failed:
        tags["error"] = span.message or str(span.attributes.get("error.type", "true"))
    start = span.start // 1000
    told: dict[str, object] = {
        "traceId": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "name": span.name,
        "timestamp": start,
        "duration": max(1, span.end // 1000 - start),
        "localEndpoint": endpoint,
        "tags": tags,
    }
    if span.parent_id:
        told["parentId"] = span.parent_id.hex()
    if span.kind != "INTERNAL":
        told["kind"] = span.kind
    return told
