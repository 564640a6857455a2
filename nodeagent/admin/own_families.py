"""The metrics of the agent and its workers, which `metrics` fills with numbers.

`hack/metrics.py` makes docs/metrics.md of `OWN_FAMILIES`, in which are also those of `port_facts`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nodeagent.admin.family import Family
from nodeagent.admin.port_facts import ABOUT_SERIES, PORT_FACTS
from nodeagent.stats import columns

BUILD_INFO: Final = Family(
    "svcmesh_build_info",
    "gauge",
    "Which agent this is; always 1.",
    "agent",
    ("version", "node"),
    "Join it with other metrics to name the node, or count versions during an upgrade.",
)
READY: Final = Family(
    "svcmesh_ready",
    "gauge",
    "1 while the agent serves the mesh, as /readyz says, else 0.",
    "agent",
    use="If it stays 0, `/readyz?verbose` and the log of that agent say what is missing.",
)
AGENT_TASKS: Final = Family(
    "svcmesh_agent_tasks",
    "gauge",
    "Tasks of the agent's own loop.",
    "agent",
    use="It stays about the same for days. If it only grows, that is a bug: report it.",
)
ADMIN_MALFORMED_REQUESTS: Final = Family(
    "svcmesh_admin_malformed_requests_total",
    "counter",
    "Requests to the admin server that are not HTTP, or exceed a limit.",
    "agent",
    use="Something that is no Prometheus and no kubelet connects to the admin port, a port scanner perhaps.",
)
LOG_LINES_LOST: Final = Family(
    "svcmesh_log_lines_lost_total",
    "counter",
    "Log lines that could not be written, by process.",
    "agent",
    ("process",),
    "The reader of standard error is too slow or its disk is full: see to the container runtime.",
)

PLAN_VERSION: Final = Family(
    "svcmesh_plan_version",
    "gauge",
    "The version of the plan in force.",
    "plan",
    use="Compare it with `svcmesh_worker_plan_version`. Versions of different nodes cannot be compared.",
)
PLAN_AGE: Final = Family(
    "svcmesh_plan_age_seconds",
    "gauge",
    "Time since the plan last changed.",
    "plan",
    use="A plan may be old because nothing changes. Whether it is out of date, `svcmesh_source_stale` tells.",
)
SERVICES: Final = Family(
    "svcmesh_services",
    "gauge",
    "Services in the mesh.",
    "plan",
    use="It is the same on all nodes, but for moments. A sudden fall means that Services left the mesh.",
)
SERVICES_LEFT_OUT: Final = Family(
    "svcmesh_services_left_out",
    "gauge",
    "Services that ask for the mesh and cannot be in it; their problems say why.",
    "plan",
    use="If it is above 0, `meshctl check --cluster` lists their problems.",
)
SERVICES_WITH_PROBLEMS: Final = Family(
    "svcmesh_services_with_problems",
    "gauge",
    "Services, in the mesh or left out, of which something cannot be used.",
    "plan",
    use="`svcmesh_problems` counts the problems; this counts the owners to tell.",
)
PROBLEMS: Final = Family(
    "svcmesh_problems",
    "gauge",
    "Values and objects in the input that cannot be used.",
    "plan",
    use="If it is above 0, `meshctl check --cluster` lists them.",
)

SOURCE_STALE: Final = Family(
    "svcmesh_source_stale",
    "gauge",
    "1 while the agent is out of touch with its source, else 0.",
    "source",
    use="The agent serves what it knew last. If all nodes are stale, look at the API server; if one is, "
    "at its network.",
)
SOURCE_STALE_SECONDS: Final = Family(
    "svcmesh_source_stale_seconds",
    "gauge",
    "How long the agent has been out of touch with its source; 0 while it is in touch.",
    "source",
    use="Alert on it: endpoints that have changed since then are not known on this node.",
)
SOURCE_LAST_SYNC: Final = Family(
    "svcmesh_source_last_sync_timestamp_seconds",
    "gauge",
    "When the agent last knew everything in its source, as Unix time; 0: never.",
    "source",
    use="It moves when touch is regained, not with each change.",
)
SNAPSHOT_REFUSED: Final = Family(
    "svcmesh_snapshot_refused",
    "gauge",
    "1 if the agent did not trust the snapshot on disk when it started, else 0.",
    "source",
    use="The event `snapshot_refused` says why. The next snapshot replaces it.",
)
SNAPSHOT_WRITTEN: Final = Family(
    "svcmesh_snapshot_written_timestamp_seconds",
    "gauge",
    "When this agent last wrote the snapshot to disk, as Unix time; 0: it has not.",
    "source",
    use="With `--state-dir`, a start without the API server serves what the cluster was at this time.",
)
SNAPSHOT_WRITE_FAILURES: Final = Family(
    "svcmesh_snapshot_write_failures_total",
    "counter",
    "Attempts to write the snapshot to disk that failed.",
    "source",
    use="The folder of `--state-dir` is full or cannot be written; `snapshot_not_written` says why.",
)

HEALTH_CHECK_ENDPOINTS: Final = Family(
    "svcmesh_health_check_endpoints",
    "gauge",
    "Endpoints whose health this node checks.",
    "endpoints",
    use="Each node checks all endpoints of Services that ask for health checks.",
)
HEALTH_CHECKS: Final = Family(
    "svcmesh_health_checks_total",
    "counter",
    "Health checks by result; not_asked: the node could not check, which says nothing about the endpoint.",
    "endpoints",
    ("result",),
    "Many `not_asked`: this node has no descriptors or no network left.",
)


DNS_QUERIES: Final = Family(
    "svcmesh_dns_queries_total",
    "counter",
    "DNS queries by result; dropped: there was no answer.",
    "dns",
    ("result",),
    "Many `nxdomain`: a Service is not in the mesh, or a name is misspelt. `refused`: the name is in no zone "
    "of the mesh, so the cluster's DNS forwards too much.",
)
DNS_RESPONSES: Final = Family(
    "svcmesh_dns_responses_total",
    "counter",
    "DNS responses by transport.",
    "dns",
    ("transport",),
    "None at all on a node whose pods call the mesh: the cluster's DNS does not forward "
    "(`meshctl dns status`).",
)

MALFORMED_REQUESTS: Final = Family(
    "svcmesh_malformed_requests_total",
    "counter",
    "Requests that were refused because they break HTTP or exceed a limit, by reason.",
    "refused",
    ("reason",),
    "The access log names the client (`request_refused`). The reasons are explained in "
    "[troubleshooting](troubleshooting.md#malformed-requests).",
)
CONNECTIONS_REFUSED: Final = Family(
    "svcmesh_connections_refused_total",
    "counter",
    "Clients' connections that the mesh closed: no_route, limit and full by number, memory by size.",
    "refused",
    ("reason",),
    "`no_route`: no Service has this mesh address and port now. `limit`: one client has more connections "
    "than it may. `full`: the worker has no room, or no memory, for more. `memory`: the client "
    "made the worker hold too much.",
)
REQUESTS_SHED: Final = Family(
    "svcmesh_requests_shed_total",
    "counter",
    "Requests that a worker refused with 503, because those under way filled its memory.",
    "refused",
    use="`worker_shedding` in the log says how much the worker held. See "
    "[what a worker holds](operations.md#what-a-worker-may-hold).",
)

WORKERS: Final = Family(
    "svcmesh_workers",
    "gauge",
    "Workers that are alive.",
    "workers",
    use="It is the number of `--workers`. If it stays lower, see `worker_died` in the log.",
)
WORKER_RESTARTS: Final = Family(
    "svcmesh_worker_restarts_total",
    "counter",
    "Workers that died and were replaced.",
    "workers",
    use="Each is an incident: its connections broke. `worker_died` in the log says how it ended.",
)
WORKER_PLAN_VERSION: Final = Family(
    "svcmesh_worker_plan_version",
    "gauge",
    "The version of the plan that a worker serves.",
    "workers",
    ("worker",),
    "If it stays behind `svcmesh_plan_version`, the worker does not take changes.",
)
WORKER_HEARTBEAT_AGE: Final = Family(
    "svcmesh_worker_heartbeat_age_seconds",
    "gauge",
    "Time since a worker's last heartbeat, which comes every second.",
    "workers",
    ("worker",),
    "Above a few seconds the worker hangs; the agent replaces it ([failure](failure.md)).",
    "for a worker that has served",
)
WORKER_LOOP_LAG: Final = Family(
    "svcmesh_worker_loop_lag_seconds",
    "gauge",
    "How late a worker's last heartbeat was.",
    "workers",
    ("worker",),
    "Above 0.01 for long: the worker has more work than time. Add workers or CPU.",
)
ACCESS_LOG_DROPPED: Final = Family(
    "svcmesh_access_log_dropped_total",
    "counter",
    "Missing lines of the access log: over the budget of their port, or the log is not read in time.",
    "agent",
    ("reason",),
    "`budget`: `access_log_gap` in the log names the Services. `slow_reader`: the container runtime is slow.",
)
SHARED_LOCKS_FORGONE: Final = Family(
    "svcmesh_shared_locks_forgone_total",
    "counter",
    "Locks on numbers shared by workers that one worker held too long, so that others went on without.",
    "workers",
    use="A rate limit may have let a few requests too many through. It happens when a worker is stopped or "
    "starved of CPU.",
)


class WorkerGauge(NamedTuple):
    """A gauge that a worker counts once a second: the family, its column, and how many cells are one unit."""

    family: Family
    column: int
    unit: float = 1


def _worker(name: str, text: str, column: int, use: str, unit: float = 1) -> WorkerGauge:
    return WorkerGauge(
        Family(f"svcmesh_worker_{name}", "gauge", text, "workers", ("worker",), use), column, unit
    )


WORKER_GAUGES: Final = (
    _worker(
        "tasks",
        "Tasks of a worker's loop.",
        columns.WORKER_TASKS,
        "It follows the traffic. If it grows without traffic, that is a bug: report it.",
    ),
    _worker(
        "client_connections",
        "Clients' connections that are open now.",
        columns.WORKER_CLIENTS,
        "If one worker has nearly all of them, few clients with long connections make the load uneven.",
    ),
    _worker(
        "exchanges",
        "Requests, tunnels and TCP connections under way.",
        columns.WORKER_EXCHANGES,
        "If it grows while the rate of requests does not, endpoints are slow.",
    ),
    _worker(
        "upstream_connections_active",
        "Connections to endpoints that carry a request, a tunnel or a TCP connection.",
        columns.WORKER_UPSTREAMS_ACTIVE,
        "Compare it with `svc.mesh/max-connections`, which bounds them for each endpoint.",
    ),
    _worker(
        "upstream_connections_idle",
        "Connections to endpoints that wait for the next request, or are closing.",
        columns.WORKER_UPSTREAMS_IDLE,
        "They cost a descriptor each, at the endpoints too.",
    ),
    _worker(
        "requests_waiting",
        "Requests that wait for a connection to an endpoint.",
        columns.WORKER_WAITING,
        "Above 0 for long: endpoints cannot take what clients send. Add endpoints or raise "
        "`svc.mesh/max-connections`.",
    ),
    _worker(
        "connections_paused",
        "Connections from which nothing is read for now, because the receiver of their bytes is slower.",
        columns.WORKER_PAUSED,
        "Normal with slow receivers.",
    ),
    _worker(
        "longest_pause_seconds",
        "How long the longest of these pauses has lasted.",
        columns.WORKER_LONGEST_PAUSE,
        "A receiver that takes nothing at all is broken off after 60 seconds.",
        1e6,
    ),
    _worker(
        "shedding",
        "1 while a worker refuses new requests because those under way fill its memory, else 0.",
        columns.WORKER_SHEDDING,
        "See [what a worker may hold](operations.md#what-a-worker-may-hold).",
    ),
)


TRACE_SPANS_SENT: Final = Family(
    "svcmesh_trace_spans_sent_total",
    "counter",
    "Spans that the collector of `--traces` has taken.",
    "agent",
    use="It grows while Services with `svc.mesh/tracing` have traffic.",
    shown="with `--traces`",
)
TRACE_SPANS_REJECTED: Final = Family(
    "svcmesh_trace_spans_rejected_total",
    "counter",
    "Spans that the collector of `--traces` did not want, of lots that it has taken otherwise.",
    "agent",
    use="`traces_taken_in_part` in the log says why.",
    shown="with `--traces`",
)
TRACED_REQUESTS_WAITING: Final = Family(
    "svcmesh_traced_requests_waiting",
    "gauge",
    "Requests whose spans wait to be sent, at most 5,000.",
    "agent",
    use="If it grows, the collector is away or slow: see `traces_not_sent` in the log.",
    shown="with `--traces`",
)
TRACED_REQUESTS_DROPPED: Final = Family(
    "svcmesh_traced_requests_dropped_total",
    "counter",
    "Requests whose spans are lost; worker or queue_full: too many at once; refused: by the collector.",
    "agent",
    ("reason",),
    "Record a smaller share (`svc.mesh/tracing`), or see to the collector. `broken` is a bug: report it.",
    "with `--traces`",
)

OWN_FAMILIES: Final[tuple[Family, ...]] = (
    HEALTH_CHECK_ENDPOINTS,
    HEALTH_CHECKS,
    *PORT_FACTS,
    MALFORMED_REQUESTS,
    CONNECTIONS_REFUSED,
    REQUESTS_SHED,
    DNS_QUERIES,
    DNS_RESPONSES,
    PLAN_VERSION,
    PLAN_AGE,
    SERVICES,
    SERVICES_LEFT_OUT,
    SERVICES_WITH_PROBLEMS,
    PROBLEMS,
    SOURCE_STALE,
    SOURCE_STALE_SECONDS,
    SOURCE_LAST_SYNC,
    SNAPSHOT_REFUSED,
    SNAPSHOT_WRITTEN,
    SNAPSHOT_WRITE_FAILURES,
    WORKERS,
    WORKER_RESTARTS,
    WORKER_PLAN_VERSION,
    WORKER_HEARTBEAT_AGE,
    WORKER_LOOP_LAG,
    *(gauge.family for gauge in WORKER_GAUGES),
    SHARED_LOCKS_FORGONE,
    BUILD_INFO,
    READY,
    AGENT_TASKS,
    ADMIN_MALFORMED_REQUESTS,
    LOG_LINES_LOST,
    ACCESS_LOG_DROPPED,
    *ABOUT_SERIES,
    TRACE_SPANS_SENT,
    TRACE_SPANS_REJECTED,
    TRACED_REQUESTS_WAITING,
    TRACED_REQUESTS_DROPPED,
)
