"""The layout of the counters that workers write and the agent reads: which number stands in which cell.

A region of counters (`control.stats`) is one array of signed 64-bit cells, cut into slots of
`Layout.slot_columns` cells. Slot 0 belongs to the worker as a whole, slot 1 to all ports for which there was
no slot left, every further slot to one port of one Service. The constants below are columns: the cell of
column C in slot S is `S * layout.slot_columns + C`. Agent and worker build the same `Layout` from the same
registry, so it is not sent.

Every cell has one writer, its worker, and only grows, except the gauges.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from middleware.contract import Metric, Middleware
from middleware.grpc import GrpcStatus

WORKER_SLOT = 0
OVERFLOW_SLOT = 1
FIRST_SLOT = 2

# Requests by what the client got: the column is `REQUESTS + status // 100`. Of the 1xx only 101 ends an
# exchange and is counted; 0 stands for a client that left before a response.
REQUESTS = 0
REQUESTS_NONE = 0
REQUESTS_1XX = 1
REQUESTS_2XX = 2
REQUESTS_3XX = 3
REQUESTS_4XX = 4
REQUESTS_5XX = 5
MESH_RESPONSES = 6
"""Responses the mesh made itself; they are counted by code class as well."""

DURATION_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds, inclusive. The column is `DURATION_BUCKETS + bisect_left(DURATION_BOUNDS, s)`."""
DURATION_BUCKETS = 7
"""First of `len(DURATION_BOUNDS) + 1` columns, each counting its own range only; the last has no bound."""
DURATION_SUM = DURATION_BUCKETS + len(DURATION_BOUNDS) + 1
"""Microseconds."""

BYTES_RECEIVED = DURATION_SUM + 1
"""From clients, bytes."""
BYTES_SENT = DURATION_SUM + 2
"""To clients, bytes."""
CONNECTIONS = DURATION_SUM + 3
GRPC_CALLS = DURATION_SUM + 4
"""gRPC calls by the status that the caller got: the column is `GRPC_CALLS + status`."""

EDGE_COLUMNS = GRPC_CALLS + len(GrpcStatus)
"""The columns up to here are counted for each source of a port apart (`nodeagent.stats.edges`), at the same
places in its row. In the slot they hold what is counted in no row."""

CONNECTIONS_ACTIVE = EDGE_COLUMNS
"""A gauge."""
UPSTREAM_CONNECTIONS = EDGE_COLUMNS + 1
RESENDS = EDGE_COLUMNS + 2
"""Requests sent again because the pooled connection they were sent on had been closed."""

UPSTREAM_CONNECT_FAILED = EDGE_COLUMNS + 3
UPSTREAM_CONNECT_TIMEOUT = EDGE_COLUMNS + 4
UPSTREAM_RESET = EDGE_COLUMNS + 5
"""The connection ended before a whole response head came."""
UPSTREAM_TRUNCATED = EDGE_COLUMNS + 6
"""The connection ended in the middle of a response body."""
UPSTREAM_PROTOCOL_ERROR = EDGE_COLUMNS + 7
UPSTREAM_STALLED = EDGE_COLUMNS + 8
UPSTREAM_NO_ENDPOINT = EDGE_COLUMNS + 9

UPSTREAM_TIMEOUT = EDGE_COLUMNS + 10
"""The endpoint did not answer in time."""
UPSTREAM_OVERLOADED = EDGE_COLUMNS + 11
"""No connection to an endpoint was free in time."""

OUTLIER_EJECTIONS = EDGE_COLUMNS + 12
"""Times that outlier detection has ejected an endpoint."""
FAILOVERS = EDGE_COLUMNS + 13
"""Requests and tcp connections sent to the Service of `svc.mesh/failover`, each try counted."""

SLOT_COLUMNS = EDGE_COLUMNS + 14
"""Columns of a slot before those of the middleware."""

UPSTREAM_ERRORS = {
    "connect_failed": UPSTREAM_CONNECT_FAILED,
    "connect_timeout": UPSTREAM_CONNECT_TIMEOUT,
    "reset": UPSTREAM_RESET,
    "truncated": UPSTREAM_TRUNCATED,
    "protocol_error": UPSTREAM_PROTOCOL_ERROR,
    "stalled": UPSTREAM_STALLED,
    "no_endpoint": UPSTREAM_NO_ENDPOINT,
    "timeout": UPSTREAM_TIMEOUT,
    "overloaded": UPSTREAM_OVERLOADED,
}
"""Column by the `reason` label."""

# The worker's own slot.
WORKER_HEARTBEAT = 0
"""`time.monotonic_ns()`, written every second; a gauge, 0 until the worker serves."""
WORKER_STARTED = 1
"""`time.monotonic_ns()` when it began to serve; a gauge."""
WORKER_PLAN_VERSION = 2
"""The version of the plan it serves; a gauge."""
WORKER_LOOP_LAG = 3
"""How late the last heartbeat was, in microseconds; a gauge."""
WORKER_REFUSED_FULL = 4
"""Connections closed because the worker has no descriptors for more."""
WORKER_REFUSED_NO_ROUTE = 5
"""Connections closed because their mesh address and port are in no plan."""
WORKER_REFUSED_LIMIT = 6
"""Connections closed because their source has too many."""
WORKER_HEAD_TIMEOUTS = 7
"""Connections closed because a head took too long."""
WORKER_LOG_LINES_LOST = 8
"""Lines of its log that could not be written."""
WORKER_REFUSED_MEMORY = 9
"""Connections broken off because their source made the worker hold more than it has memory for."""
WORKER_LOCKS_FORGONE = 10
"""Locks on memory shared by workers that another did not let go of in time."""
WORKER_TASKS = 11
"""Tasks of its loop; this gauge and the following ones are as of the last heartbeat."""
WORKER_CLIENTS = 12
"""Connections of clients."""
WORKER_EXCHANGES = 13
"""Requests, tunnels and tcp connections under way."""
WORKER_UPSTREAMS_ACTIVE = 14
"""Connections to endpoints that carry one of them."""
WORKER_UPSTREAMS_IDLE = 15
"""Connections to endpoints that wait in a pool, or are closing."""
WORKER_WAITING = 16
"""Requests that wait for a connection to an endpoint to become free."""
WORKER_PAUSED = 17
"""Connections from which nothing is read, because what they bring cannot be passed on or used yet."""
WORKER_LONGEST_PAUSE = 18
"""How long the longest of those pauses has lasted, in microseconds, exact to a second."""
WORKER_ACCESS_BUDGET = 19
"""Lines of the access log left out because a port had more than its lines a second."""
WORKER_ACCESS_SLOW = 20
"""Lines of the access log lost because the log is not read fast enough."""
WORKER_REQUESTS_SHED = 21
"""Requests refused because those under way filled the worker's memory."""
WORKER_SHEDDING = 22
"""Whether it refuses requests for that reason now; a gauge."""
WORKER_MALFORMED = 23
"""Malformed requests for a reason that the layout does not know; those it knows follow."""

WORKER_GAUGES = (
    WORKER_HEARTBEAT,
    WORKER_STARTED,
    WORKER_PLAN_VERSION,
    WORKER_LOOP_LAG,
    WORKER_TASKS,
    WORKER_CLIENTS,
    WORKER_EXCHANGES,
    WORKER_UPSTREAMS_ACTIVE,
    WORKER_UPSTREAMS_IDLE,
    WORKER_WAITING,
    WORKER_PAUSED,
    WORKER_LONGEST_PAUSE,
    WORKER_SHEDDING,
)

_CACHE_LINE = 8
"""Cells of a cache line: slots begin on one."""


REFUSALS = (
    "ambiguous_length",
    "bare_cr",
    "bare_lf",
    "chunk",
    "connect",
    "connection_field",
    "content_length",
    "control_byte",
    "head_too_large",
    "host",
    "malformed_field",
    "malformed_line",
    "max_forwards",
    "no_route",
    "obs_fold",
    "pseudo_field",
    "space_before_colon",
    "target",
    "trailer",
    "transfer_encoding",
    "version",
)
"""Every word that a refused request is counted under: the reasons of `HeadError` and of what follows it."""


class MetricColumn(NamedTuple):
    """Where the numbers of a middleware's metric stand."""

    middleware: str
    metric: Metric
    column: int


class Layout:
    """The columns of a slot for a given list of middleware and of reasons to refuse a request
    (`REFUSALS`).

    `slot_columns` is the size of a slot in cells. Two layouts of equal arguments are alike. Metrics of one
    name share a column.
    """

    def __init__(self, middlewares: Iterable[Middleware], malformed: Sequence[str] = ()) -> None:
        entries: dict[str, MetricColumn] = {}
        for middleware in middlewares:
            for metric in middleware.metrics:
                column = SLOT_COLUMNS + len(entries)
                entries.setdefault(metric.name, MetricColumn(middleware.name, metric, column))
        self.metrics = tuple(entries.values())
        self._columns = {name: entry.column for name, entry in entries.items()}
        self.malformed = {reason: WORKER_MALFORMED + 1 + index for index, reason in enumerate(malformed)}
        """Column in the worker's slot by reason; use `malformed_column` to count."""
        self.gauges = (
            CONNECTIONS_ACTIVE,
            *(entry.column for entry in self.metrics if entry.metric.kind == "gauge"),
        )
        """Columns that start again at 0 with a new worker."""
        used = max(SLOT_COLUMNS + len(self.metrics), WORKER_MALFORMED + 1 + len(self.malformed))
        self.slot_columns = -(-used // _CACHE_LINE) * _CACHE_LINE

    def base(self, slot: int) -> int:
        """Return the first cell of a slot."""
        return slot * self.slot_columns

    def column(self, metric: Metric) -> int:
        """Return the column of a middleware's metric.

        Raises:
            KeyError: no middleware of this layout has the metric.
        """
        return self._columns[metric.name]

    def malformed_column(self, reason: str) -> int:
        """Return the column, in the worker's slot, that counts requests refused for `reason`."""
        return self.malformed.get(reason, WORKER_MALFORMED)
