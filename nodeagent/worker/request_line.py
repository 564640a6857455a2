"""The line of the access log about a request, as a value: what it may say, and in which order."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType


class RequestLine(msgspec.Struct, omit_defaults=True, gc=False):
    """A line about one request, its keys in the order in which they are shown; `UNSET` is not shown.

    It is made for each request of a Service that wants all its lines: positionally (by names it takes ten
    times as long), and written by msgspec, without a dict in between.
    """

    time: str
    level: str | UnsetType = UNSET
    event: str | UnsetType = UNSET
    service: str | UnsetType = UNSET
    port: int | UnsetType = UNSET
    method: str | UnsetType = UNSET
    path: str | UnsetType = UNSET
    status: int | UnsetType = UNSET
    grpc_status: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    endpoint: str | UnsetType = UNSET
    took_ms: float | UnsetType = UNSET
    queue_ms: float | UnsetType = UNSET
    connect_ms: float | UnsetType = UNSET
    upstream_ms: float | UnsetType = UNSET
    middleware_ms: float | UnsetType = UNSET
    backoff_ms: float | UnsetType = UNSET
    tries: int | UnsetType = UNSET
    decided: str | UnsetType = UNSET
    protocol: str | UnsetType = UNSET
    received: int | UnsetType = UNSET
    sent: int | UnsetType = UNSET
    trace_id: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    source_port: int | UnsetType = UNSET
    source_pod: str | UnsetType = UNSET
    source_workload: str | UnsetType = UNSET
    worker: int | UnsetType = UNSET
