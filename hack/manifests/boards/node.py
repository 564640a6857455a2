"""The agent of a node: its workers, what they hold and refuse, its series, and its log."""

from __future__ import annotations

from hack.manifests.boards.panels import Board, Mapping, Panel, Query, Row, rate, stat
from hack.manifests.boards.words import NAMED, OF_NODE, ON_NODE, SERVICE, TO_SERVICE, failed

EACH = "{{node}}"
WORKER = "{{node}} worker {{worker}}"
MALFORMED = rate("svcmesh_malformed_requests_total", "reason", ON_NODE)
REFUSED = rate("svcmesh_connections_refused_total", "reason", ON_NODE)
AGENT = f'{ON_NODE},job=~"(.+/)?svcmesh-agent"'


def _each(metric: str, legend: str = EACH) -> Query:
    return Query(f"{metric}{{{ON_NODE}}}", legend)


def _increase(metric: str, word: str) -> Query:
    return Query(f"sum by (node) (increase({metric}{{{ON_NODE}}}[$__rate_interval]))", f"{EACH} {word}")


NOW = Row(
    "Now",
    (
        stat(
            "Agent",
            "What /readyz says, of the worst node that is chosen.",
            f"min(svcmesh_ready{{{ON_NODE}}})",
            mappings=(Mapping(0, "not ready", "red"), Mapping(1, "ready", "green")),
        ),
        stat("Workers", "Alive, over the chosen nodes.", f"sum(svcmesh_workers{{{ON_NODE}}})"),
        stat(
            "Shedding",
            "Whether a worker refuses requests because those under way fill its memory.",
            f"max(svcmesh_worker_shedding{{{ON_NODE}}})",
            mappings=(Mapping(0, "no", "green"), Mapping(1, "shedding", "red")),
        ),
        stat(
            "Lag of the loop",
            "How late the last heartbeat of the busiest worker was.",
            f"max(svcmesh_worker_loop_lag_seconds{{{ON_NODE}}})",
            "s",
            thresholds=(0.01, 0.05),
        ),
        stat(
            "Series used",
            "The share of the ceiling (--max-series), on the node that uses most.",
            f"max(svcmesh_series{{{ON_NODE}}} / svcmesh_series_limit{{{ON_NODE}}})",
            "percentunit",
            thresholds=(0.8, 1),
        ),
        stat(
            "Series folded",
            "Ports and sources that are counted together for lack of room.",
            f"max(svcmesh_series_folded{{{ON_NODE}}})",
            thresholds=(1, 100),
        ),
    ),
)
TRAFFIC = Row(
    "Traffic of the node's pods",
    (
        Panel(
            "Requests",
            "The ten Services that are called most. A line leads to the Service.",
            (Query(f"topk(10, {rate('svcmesh_requests_total', SERVICE, ON_NODE)})", NAMED),),
            "reqps",
            links=(TO_SERVICE,),
        ),
        Panel(
            "Failed requests",
            "By node. If one node alone has them, look at that node.",
            (Query(failed("node", ON_NODE), EACH),),
            "percentunit",
        ),
        Panel(
            "Refused",
            "Malformed requests, connections closed at once, and requests that were shed, by reason.",
            (
                Query(f"{MALFORMED} > 0", "request: {{reason}}"),
                Query(f"{REFUSED} > 0", "connection: {{reason}}"),
                Query(rate("svcmesh_requests_shed_total", "", ON_NODE), "shed"),
            ),
            "ops",
        ),
    ),
)
WORKERS = Row(
    "Workers",
    (
        Panel(
            "Lag of the loop",
            "What every request on the worker waits at worst.",
            (_each("svcmesh_worker_loop_lag_seconds", WORKER),),
            "s",
        ),
        Panel(
            "Age of the heartbeat",
            "Above a few seconds the worker hangs.",
            (_each("svcmesh_worker_heartbeat_age_seconds", WORKER),),
            "s",
        ),
        Panel(
            "Restarts",
            "Workers that died and were replaced; forgone locks: a worker was stopped or starved.",
            (
                _increase("svcmesh_worker_restarts_total", "restarts"),
                _increase("svcmesh_shared_locks_forgone_total", "forgone locks"),
            ),
        ),
        Panel(
            "Connections",
            "Of clients; to endpoints with a request; to endpoints and idle.",
            (
                _each("svcmesh_worker_client_connections", f"{WORKER} clients"),
                _each("svcmesh_worker_upstream_connections_active", f"{WORKER} active"),
                _each("svcmesh_worker_upstream_connections_idle", f"{WORKER} idle"),
            ),
        ),
        Panel(
            "Requests under way",
            "waiting: for a connection to an endpoint.",
            (
                _each("svcmesh_worker_exchanges", f"{WORKER} all"),
                _each("svcmesh_worker_requests_waiting", f"{WORKER} waiting"),
            ),
        ),
        Panel(
            "Connections paused",
            "Nothing is read from them, because the receiver is slower.",
            (_each("svcmesh_worker_connections_paused", WORKER),),
        ),
        Panel("Longest pause", "Of these.", (_each("svcmesh_worker_longest_pause_seconds", WORKER),), "s"),
        Panel(
            "Shedding",
            "1 while the worker refuses new requests.",
            (_each("svcmesh_worker_shedding", WORKER),),
            mappings=(Mapping(0, "no", "green"), Mapping(1, "shedding", "red")),
        ),
        Panel(
            "Tasks",
            "They follow the traffic. If they only grow, report it.",
            (_each("svcmesh_worker_tasks", WORKER), _each("svcmesh_agent_tasks", f"{EACH} agent")),
        ),
    ),
)
OWN = Row(
    "The agent itself",
    (
        Panel(
            "CPU of the agent's process",
            "Without the workers: for those see the pod.",
            (Query(f"rate(process_cpu_seconds_total{{{AGENT}}}[$__rate_interval])", EACH),),
            "percentunit",
        ),
        Panel(
            "Memory of the agent's process",
            "Without the workers: for those see the pod.",
            (Query(f"process_resident_memory_bytes{{{AGENT}}}", EACH),),
            "bytes",
        ),
        Panel(
            "Series",
            "Shown, the ceiling, and what had to be folded.",
            (
                _each("svcmesh_series", f"{EACH} shown"),
                _each("svcmesh_series_limit", f"{EACH} ceiling"),
                _each("svcmesh_series_folded", f"{EACH} folded"),
                Query(
                    f"increase(svcmesh_series_expired_total{{{ON_NODE}}}[$__rate_interval])",
                    f"{EACH} expired",
                ),
            ),
        ),
        Panel(
            "Lines lost",
            "Of the log, and of the access log by reason.",
            (
                Query(rate("svcmesh_log_lines_lost_total", "process", ON_NODE), "log of {{process}}"),
                Query(rate("svcmesh_access_log_dropped_total", "reason", ON_NODE), "access log: {{reason}}"),
            ),
            "ops",
        ),
        Panel(
            "Traces",
            "Spans that the collector of --traces took or refused; requests whose spans wait or were lost.",
            (
                Query(rate("svcmesh_trace_spans_sent_total", "node", ON_NODE), f"{EACH} spans a second"),
                Query(rate("svcmesh_trace_spans_rejected_total", "node", ON_NODE), f"{EACH} spans refused"),
                _each("svcmesh_traced_requests_waiting", f"{EACH} waiting"),
                Query(rate("svcmesh_traced_requests_dropped_total", "reason", ON_NODE), "lost: {{reason}}"),
            ),
        ),
        Panel(
            "Malformed requests to the admin port",
            "Neither Prometheus nor kubelet: a port scanner perhaps.",
            (Query(rate("svcmesh_admin_malformed_requests_total", "node", ON_NODE), EACH),),
            "ops",
        ),
    ),
)
LOG = Row(
    "Log",
    (
        Panel(
            "Log of the agent",
            "From Loki. Which label has the node's name depends on the collector: choose it above.",
            (Query('{namespace="$mesh_namespace",$node_label=~"$node"}'),),
            kind="logs",
        ),
    ),
)

BOARD = Board(
    uid="svcmesh-node",
    title="svc.mesh / Node agent",
    what="The agent of a node and its workers.",
    variables=(OF_NODE,),
    rows=(NOW, TRAFFIC, WORKERS, OWN, LOG),
    with_logs=True,
)
"""What `/d/svcmesh-node` shows."""
