"""The metrics of ports: which family shows which columns, as a table.

Of a port, a family is shown once it has something to tell; then its usual series are shown at zero too, so
that the first error is seen by `rate()`. Families of columns that each source has (`EDGE_COLUMNS`) have the
labels of the source besides.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
import structlog

from middleware.grpc import GrpcStatus
from nodeagent.admin.family import PORT_LABELS, SOURCE_LABELS, Family
from nodeagent.stats import columns
from nodeagent.stats.columns import Layout

log = structlog.get_logger()


class Series(msgspec.Struct, frozen=True):
    """One series of a family: its column, and the value of the label that the port does not have."""

    column: int
    value: str = ""
    usual: bool = True
    """Shown at zero as well, where its family is shown."""


class PortFamily(Family, frozen=True, kw_only=True):
    """A family of ports: its labels are `PORT_LABELS`, if it is `by_source` `SOURCE_LABELS`, and at most one
    more.
    """

    series: tuple[Series, ...]
    gate: tuple[int, ...] = ()
    """Columns of which one must not be 0 for the family to be shown; empty: those of its series."""
    always: bool = False
    """Shown for every port that has series at all."""
    middleware: str = ""
    """Shown for every port that uses this middleware and has series at all, whatever the numbers."""

    @property
    def by_source(self) -> bool:
        """Whether each source has its own series."""
        return all(each.column < columns.EDGE_COLUMNS for each in self.series)


_EDGE_LABELS: Final = (*PORT_LABELS, *SOURCE_LABELS)
_REQUESTED: Final = "for a port that has had a request"
_CALLED: Final = "for a port that has had a gRPC call"
_CONNECTED: Final = "for a port that has had a connection"
_DIALLED: Final = "for a port for which the mesh has opened a connection"

DURATION: Final = Family(
    "svcmesh_request_duration_seconds",
    "histogram",
    "Time from a request's head to the end of its response.",
    "requests",
    _EDGE_LABELS,
    "`histogram_quantile` gives percentiles. The time includes all tries and the client's reading.",
    _REQUESTED,
)
METHODS: Final = Family(
    "svcmesh_grpc_method_calls_total",
    "counter",
    "gRPC calls by method and status; other: no endpoint has known the method, or there are too many.",
    "grpc",
    (*PORT_LABELS, "method", "grpc_status"),
    "It tells which method fails. Series that are 0 are not shown.",
    _CALLED,
)

_REQUESTS = tuple(
    Series(columns.REQUESTS + group, name, usual)
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
        "counter",
        "Requests by class of the status code; none: the client left before a response, 1xx: upgraded.",
        "requests",
        (*_EDGE_LABELS, "code_class"),
        'The rate of requests, and with `code_class="5xx"` the rate of errors.',
        _REQUESTED,
        series=_REQUESTS,
    ),
    PortFamily(
        "svcmesh_grpc_calls_total",
        "counter",
        "gRPC calls by the status that the caller got.",
        "grpc",
        (*_EDGE_LABELS, "grpc_status"),
        "Calls of gRPC fail with HTTP status 200, so look here and not at `svcmesh_requests_total`.",
        _CALLED,
        series=tuple(
            Series(columns.GRPC_CALLS + status, status.name, status in _USUAL_STATUSES)
            for status in GrpcStatus
        ),
    ),
    PortFamily(
        "svcmesh_mesh_responses_total",
        "counter",
        "Responses that the mesh made itself, in place of an endpoint.",
        "requests",
        _EDGE_LABELS,
        "The log has the reason of each failed request ([troubleshooting](troubleshooting.md)).",
        _REQUESTED,
        series=(Series(columns.MESH_RESPONSES),),
        gate=tuple(series.column for series in _REQUESTS),
    ),
    PortFamily(
        "svcmesh_request_bytes_total",
        "counter",
        "Bytes received from clients.",
        "requests",
        _EDGE_LABELS,
        "How much clients send.",
        "for a port that has received bytes",
        series=(Series(columns.BYTES_RECEIVED),),
    ),
    PortFamily(
        "svcmesh_response_bytes_total",
        "counter",
        "Bytes sent to clients.",
        "requests",
        _EDGE_LABELS,
        "How much clients get.",
        "for a port that has sent bytes",
        series=(Series(columns.BYTES_SENT),),
    ),
    PortFamily(
        "svcmesh_connections_total",
        "counter",
        "Clients' connections.",
        "connections",
        _EDGE_LABELS,
        "Nearly as many as requests: clients do not keep connections, which costs a round trip each time.",
        _CONNECTED,
        series=(Series(columns.CONNECTIONS),),
    ),
    PortFamily(
        "svcmesh_connections_active",
        "gauge",
        "Clients' connections that are open now.",
        "connections",
        PORT_LABELS,
        "For TCP ports it is the load.",
        "for a port that has series",
        series=(Series(columns.CONNECTIONS_ACTIVE),),
        always=True,
    ),
    PortFamily(
        "svcmesh_upstream_connections_total",
        "counter",
        "Connections opened to endpoints.",
        "connections",
        PORT_LABELS,
        "Nearly as many as requests: endpoints close connections after each response.",
        _DIALLED,
        series=(Series(columns.UPSTREAM_CONNECTIONS),),
    ),
    PortFamily(
        "svcmesh_upstream_resends_total",
        "counter",
        "Requests sent again because the endpoint had closed a pooled connection.",
        "connections",
        PORT_LABELS,
        "The client does not notice. Many: endpoints close idle connections before 30 seconds have passed.",
        _DIALLED,
        series=(Series(columns.RESENDS),),
        gate=(columns.UPSTREAM_CONNECTIONS, columns.RESENDS),
    ),
    PortFamily(
        "svcmesh_upstream_errors_total",
        "counter",
        "What went wrong with endpoints, each try counted.",
        "endpoints",
        (*PORT_LABELS, "reason"),
        "Errors that a retry has mended are counted too. The reasons are explained in "
        "[troubleshooting](troubleshooting.md#errors-of-endpoints).",
        "for a reason that has occurred at a port",
        series=tuple(
            Series(column, reason, usual=False) for reason, column in columns.UPSTREAM_ERRORS.items()
        ),
    ),
    PortFamily(
        "svcmesh_outlier_ejections_total",
        "counter",
        "Times that outlier detection of a worker has ejected an endpoint.",
        "endpoints",
        PORT_LABELS,
        "See `endpoint_ejected` in the log. An endpoint that several workers eject is counted for each.",
        "for a port that has had an ejection",
        series=(Series(columns.OUTLIER_EJECTIONS),),
    ),
    PortFamily(
        "svcmesh_failovers_total",
        "counter",
        "Requests and tcp connections sent to the Service of `svc.mesh/failover`, each try counted.",
        "endpoints",
        PORT_LABELS,
        "It grows: none of the port's own endpoints is healthy.",
        "for a port that has failed over",
        series=(Series(columns.FAILOVERS),),
    ),
)


_NAME = re.compile(r"[a-z_:][a-z0-9_:]*", re.IGNORECASE)


def port_families(layout: Layout) -> tuple[PortFamily, ...]:
    """Return every family of ports but the histogram, those of the middleware last.

    A metric of a user's middleware whose name would spoil the page is logged and left out.
    """
    families = list(_FIXED)
    taken = {name for family in (*_FIXED, METHODS, DURATION) for name in (family.name, family.base)}
    for entry in layout.metrics:
        metric = entry.metric
        name = metric.name if metric.kind == "gauge" else f"{metric.name}_total"
        names = {name, metric.name}
        spoils = not taken.isdisjoint(names) or name.startswith(DURATION.name)
        if spoils or _NAME.fullmatch(name) is None:
            log.error(
                "metric_not_shown",
                middleware=entry.middleware,
                metric=metric.name,
                reason="its name is taken or is not one that Prometheus allows",
            )
            continue
        taken |= names
        families.append(
            PortFamily(
                name,
                metric.kind,
                metric.help,
                "middleware",
                PORT_LABELS,
                shown=f"for a port that uses {entry.middleware}",
                series=(Series(entry.column),),
                middleware=entry.middleware,
            )
        )
    return tuple(families)
