"""The metrics of ports: which family shows which columns, as a table.

Names follow Prometheus' conventions: base units, `_total` for counters. Of a port, a family is shown once it
has something to tell, because 10,000 Services that this node never calls must not cost 400,000 lines a
scrape; then its usual series are shown at zero too, so that the first error is seen by `rate()`.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec
import structlog

from middleware.grpc import GrpcStatus
from nodeagent.stats import columns
from nodeagent.stats.columns import Layout

log = structlog.get_logger()


class Series(msgspec.Struct, frozen=True):
    """One series of a family: its own labels, as text after those of the port, and its column."""

    column: int
    labels: str = ""
    usual: bool = True
    """Shown at zero as well, where its family is shown."""


class PortFamily(msgspec.Struct, frozen=True):
    """A family with the labels `service`, `namespace` and `port`. Its columns lie close together."""

    name: str
    """As exposed."""
    help: str
    kind: Literal["counter", "gauge"]
    series: tuple[Series, ...]
    gate: tuple[int, ...] = ()
    """Columns of which one must not be 0 for the family to be shown; empty: those of its series."""
    middleware: str = ""
    """Shown for every port that uses this middleware, whatever the numbers."""


DURATION_NAME = "svcmesh_request_duration_seconds"
DURATION_HELP = "Time from a request's head to the end of its response."

METHODS_NAME = "svcmesh_grpc_method_calls_total"
METHODS_HELP = (
    "gRPC calls by method and status; other: no endpoint has known the method, or there are too many."
)

_REQUESTS = tuple(
    Series(columns.REQUESTS + group, f',code_class="{name}"', usual)
    for group, name, usual in (
        (0, "none", False),
        (1, "1xx", False),
        (2, "2xx", True),
        (3, "3xx", True),
        (4, "4xx", True),
        (5, "5xx", True),
    )
)

_USUAL_STATUSES = frozenset(
    (
        GrpcStatus.OK,
        GrpcStatus.UNKNOWN,
        GrpcStatus.DEADLINE_EXCEEDED,
        GrpcStatus.INTERNAL,
        GrpcStatus.UNAVAILABLE,
    )
)
"""Those that every Service may come to answer with."""

_FIXED = (
    PortFamily(
        "svcmesh_requests_total",
        "Requests by class of the status code; none: the client left before a response, 1xx: upgraded.",
        "counter",
        _REQUESTS,
    ),
    PortFamily(
        "svcmesh_grpc_calls_total",
        "gRPC calls by the status that the caller got.",
        "counter",
        tuple(
            Series(columns.GRPC_CALLS + status, f',grpc_status="{status.name}"', status in _USUAL_STATUSES)
            for status in GrpcStatus
        ),
    ),
    PortFamily(
        "svcmesh_mesh_responses_total",
        "Responses that the mesh made itself, in place of an endpoint.",
        "counter",
        (Series(columns.MESH_RESPONSES),),
        tuple(series.column for series in _REQUESTS),
    ),
    PortFamily(
        "svcmesh_request_bytes_total",
        "Bytes received from clients.",
        "counter",
        (Series(columns.BYTES_RECEIVED),),
    ),
    PortFamily(
        "svcmesh_response_bytes_total", "Bytes sent to clients.", "counter", (Series(columns.BYTES_SENT),)
    ),
    PortFamily(
        "svcmesh_connections_total", "Connections of clients.", "counter", (Series(columns.CONNECTIONS),)
    ),
    PortFamily(
        "svcmesh_connections_active",
        "Connections of clients that are open now.",
        "gauge",
        (Series(columns.CONNECTIONS_ACTIVE),),
        (columns.CONNECTIONS, columns.CONNECTIONS_ACTIVE),
    ),
    PortFamily(
        "svcmesh_upstream_connections_total",
        "Connections opened to endpoints.",
        "counter",
        (Series(columns.UPSTREAM_CONNECTIONS),),
    ),
    PortFamily(
        "svcmesh_upstream_resends_total",
        "Requests sent again because the endpoint had closed a pooled connection.",
        "counter",
        (Series(columns.RESENDS),),
        (columns.UPSTREAM_CONNECTIONS, columns.RESENDS),
    ),
    PortFamily(
        "svcmesh_upstream_errors_total",
        "What went wrong with endpoints, each try counted.",
        "counter",
        tuple(
            Series(column, f',reason="{reason}"', usual=False)
            for reason, column in columns.UPSTREAM_ERRORS.items()
        ),
    ),
)


_NAME = re.compile(r"[a-z_:][a-z0-9_:]*", re.IGNORECASE)


def port_families(layout: Layout) -> tuple[PortFamily, ...]:
    """Return every family of ports but the histogram, those of the middleware last.

    A metric of a user's middleware whose name would spoil the page is logged and left out.
    """
    families = {family.name: family for family in _FIXED}
    for entry in layout.metrics:
        metric = entry.metric
        name = metric.name if metric.kind == "gauge" else f"{metric.name}_total"
        taken = name in families or name == METHODS_NAME or name.startswith(DURATION_NAME)
        if taken or _NAME.fullmatch(name) is None:
            log.error(
                "metric_not_shown",
                middleware=entry.middleware,
                metric=metric.name,
                reason="its name is taken or is not one that Prometheus allows",
            )
            continue
        families[name] = PortFamily(
            name, metric.help, metric.kind, (Series(entry.column),), middleware=entry.middleware
        )
    return tuple(families.values())
