"""One Service: what its callers get, who they are, its endpoints, and what the mesh does for it."""

from __future__ import annotations

from hack.manifests.boards.panels import Board, Panel, Query, Row, Variable, rate, stat
from hack.manifests.boards.words import (
    BAD_CALLS,
    BAD_CALLS_SAID,
    BREAKER,
    NAMED,
    OF_NAMESPACE,
    OF_SERVICE,
    PORT,
    SERVICE,
    TO_NODE,
    budget_left,
    burn_rate,
    failed,
    failed_calls,
    highest,
    of_service,
    percentiles,
    quantile,
)

SOURCE = "source_namespace, source_workload"
FROM = "{{source_namespace}}/{{source_workload}}"
CALLER = 'source_workload=~"$workload"'

NOW = Row(
    "Now",
    (
        stat("Requests", "A second.", rate("svcmesh_requests_total", "", PORT), "reqps"),
        stat(
            "Failed",
            "The share of answers with a status of 500 or more.",
            failed("", PORT),
            "percentunit",
            thresholds=(0.01, 0.05),
        ),
        stat("p50", "Half of the requests took less.", quantile("0.5", PORT), "s"),
        stat("p99", "99 of 100 requests took less.", quantile("0.99", PORT), "s"),
        stat(
            "Endpoints in use",
            "As the node sees it that has fewest.",
            f"min by ({SERVICE}) (svcmesh_endpoints_in_use{{{PORT}}})",
            legend=NAMED,
            least=1,
        ),
        stat(
            "Circuit breaker",
            "The worst state of any node.",
            f"max(svcmesh_circuit_breaker_state{{{PORT}}})",
            mappings=BREAKER,
            thresholds=(1, 2),
        ),
    ),
)
BY_GOAL = "namespace, service, port, sli"
OF_PORT = "{{service}}:{{port}}"
OF_GOAL = f"{OF_PORT} {{{{sli}}}}"
OBJECTIVE = Row(
    "Objective (svc.mesh/objective), by the mesh's rules",
    (
        Panel(
            "Objectives and error budgets",
            "budget left: the share of the error budget of 30 days (failed or slow requests that are allowed)"
            " that is not used up. burn: how many times as fast as allowed it is used up; at 1 it lasts for"
            " 30 days.",
            (
                Query(f"max by ({BY_GOAL}) (svcmesh_objective_ratio{{{PORT}}})", "objective", "percentunit"),
                Query(
                    "label_replace(max by (namespace, service, port)"
                    f' (svcmesh_objective_latency_seconds{{{PORT}}}), "sli", "latency", "", "")',
                    "within",
                    "s",
                ),
                Query(budget_left(BY_GOAL, PORT), "budget left", "percentunit"),
                *(
                    Query(burn_rate(BY_GOAL, window, PORT), f"burn {window}")
                    for window in ("1h", "6h", "1d", "3d")
                ),
            ),
            kind="table",
        ),
        Panel(
            "Error budget left",
            "Of 30 days. 0: it is used up, and the objective is missed.",
            (Query(budget_left(BY_GOAL, PORT), OF_GOAL),),
            "percentunit",
        ),
        Panel(
            "Burn rate of an hour",
            "At 1, the budget is used up in 30 days. From 14.4 on, a critical alert fires.",
            (Query(burn_rate(BY_GOAL, "1h", PORT), OF_GOAL),),
        ),
        Panel(
            "Bad requests",
            "availability: failed; latency: took longer than promised.",
            (
                Query(rate("svcmesh_objective_requests_total", "service, port", PORT), f"{OF_PORT} all"),
                Query(rate("svcmesh_objective_bad_requests_total", BY_GOAL, PORT), OF_GOAL),
            ),
            "reqps",
        ),
    ),
)
OWNER = Row(
    "For the owner: what callers get",
    (
        Panel(
            "Responses by class",
            "none: the client left before there was a response.",
            (Query(rate("svcmesh_requests_total", "code_class", PORT), "{{code_class}}"),),
            "reqps",
        ),
        Panel("Failed requests", "By port.", (Query(failed("port", PORT), "port {{port}}"),), "percentunit"),
        Panel("Duration", "From a request's head to the end of its response.", percentiles(PORT), "s"),
        Panel(
            "Requests by node",
            "The node of the caller. A line leads to the node.",
            (Query(rate("svcmesh_requests_total", "node", PORT), "{{node}}"),),
            "reqps",
            links=(TO_NODE,),
        ),
        of_service(
            "Answers of the mesh's own",
            "In place of an endpoint; the log event request_failed has the reason.",
            ("svcmesh_mesh_responses_total", ""),
            unit="reqps",
        ),
        of_service(
            "Bytes",
            "HTTP and TCP.",
            ("svcmesh_request_bytes_total", "from clients"),
            ("svcmesh_response_bytes_total", "to clients"),
            unit="Bps",
        ),
        of_service(
            "New connections",
            "Of clients, and to endpoints; resends: the endpoint had closed a kept connection.",
            ("svcmesh_connections_total", "of clients"),
            ("svcmesh_upstream_connections_total", "to endpoints"),
            ("svcmesh_upstream_resends_total", "resends"),
        ),
        Panel(
            "Open connections of clients",
            "Now, over all nodes.",
            (Query(f"sum by ({SERVICE}) (svcmesh_connections_active{{{PORT}}})", NAMED),),
        ),
    ),
)
CALLERS = Row(
    "Who calls it",
    (
        Panel(
            "Requests by caller",
            "The workload of the client, from its address. other: too many to have a line each.",
            (Query(rate("svcmesh_requests_total", SOURCE, PORT), FROM),),
            "reqps",
        ),
        Panel(
            "Failed requests by caller",
            "Status 500 or more.",
            (Query(failed(SOURCE, PORT), FROM),),
            "percentunit",
        ),
        Panel(
            "p99 by caller", "Duration.", (Query(quantile("0.99", PORT, SOURCE), FROM, exemplars=True),), "s"
        ),
    ),
)
AS_CALLER = Row(
    "For a caller: what the workload gets from the Services it calls",
    (
        Panel(
            "Requests",
            "Of the workloads chosen above, by the Service that they call.",
            (Query(rate("svcmesh_requests_total", SERVICE, CALLER), NAMED),),
            "reqps",
        ),
        Panel(
            "Failed requests", "Status 500 or more.", (Query(failed(SERVICE, CALLER), NAMED),), "percentunit"
        ),
        Panel("p99", "Duration.", (Query(quantile("0.99", CALLER, SERVICE), NAMED, exemplars=True),), "s"),
    ),
)
GRPC = Row(
    "gRPC",
    (
        Panel(
            "Calls by status",
            "What callers got; CANCELLED: they left, or their deadline passed.",
            (Query(rate("svcmesh_grpc_calls_total", "grpc_status", PORT), "{{grpc_status}}"),),
            "reqps",
        ),
        Panel(
            "Failed calls",
            BAD_CALLS_SAID,
            (Query(failed_calls(SERVICE, PORT), NAMED),),
            "percentunit",
        ),
        Panel(
            "Failed calls by method",
            "other: no endpoint has known the method yet, or there are too many of them.",
            (
                Query(
                    rate("svcmesh_grpc_method_calls_total", "method, grpc_status", PORT + BAD_CALLS),
                    "{{method}} {{grpc_status}}",
                ),
            ),
            "reqps",
        ),
    ),
)
ENDPOINTS = Row(
    "Endpoints and balancing",
    (
        Panel(
            "Endpoints",
            "Of the plan, and those that are neither unhealthy nor ejected, on the node with fewest.",
            (
                Query(f"max by ({SERVICE}) (svcmesh_endpoints{{{PORT}}})", f"{NAMED} all"),
                Query(f"min by ({SERVICE}) (svcmesh_endpoints_in_use{{{PORT}}})", f"{NAMED} in use"),
            ),
        ),
        Panel(
            "Endpoints failing",
            "Each try is counted, those that a retry made good too.",
            (
                Query(
                    rate("svcmesh_upstream_errors_total", f"{SERVICE}, reason", PORT), NAMED + " {{reason}}"
                ),
            ),
            "ops",
        ),
        highest(
            "Unhealthy",
            "Endpoints that fail health checks, on the node that finds most.",
            "svcmesh_endpoints_unhealthy",
        ),
        highest(
            "Ejected",
            "Endpoints that outlier detection has ejected, on the node with most.",
            "svcmesh_endpoints_ejected",
        ),
        of_service(
            "Ejections",
            "By outlier detection, and by health checks.",
            ("svcmesh_outlier_ejections_total", "outlier"),
            ("svcmesh_endpoint_ejections_total", "health check"),
        ),
        of_service(
            "Failover",
            "Sent to the Service of svc.mesh/failover: none of its own endpoints is healthy.",
            ("svcmesh_failovers_total", ""),
            unit="reqps",
        ),
    ),
)
RESILIENCE = Row(
    "Retries, hedges and circuit breakers",
    (
        of_service("Retries", "Requests sent once more.", ("svcmesh_retries_total", "")),
        of_service(
            "Retries that the budget forbade",
            "The client got the error that a retry might have hidden.",
            ("svcmesh_retry_budget_exhausted_total", ""),
        ),
        of_service(
            "Hedges", "Sent to a second endpoint because the first was slow.", ("svcmesh_hedges_total", "")
        ),
        highest(
            "Circuit breaker",
            "The highest state of any node.",
            "svcmesh_circuit_breaker_state",
            mappings=BREAKER,
        ),
        of_service(
            "Breaker decisions",
            "Openings, and what an open or recovering breaker did with requests.",
            ("svcmesh_circuit_breaker_opened_total", "opened"),
            ("svcmesh_circuit_breaker_rejected_total", "rejected"),
            ("svcmesh_circuit_breaker_fallback_total", "fallback"),
        ),
    ),
)
LIMITS = Row(
    "Limits",
    (
        of_service(
            "Rate limit",
            "limited: answered with 429; store away: decided without the store of the cluster's limits.",
            ("svcmesh_rate_limited_total", "limited"),
            ("svcmesh_rate_limit_store_away_total", "store away"),
            unit="reqps",
        ),
        highest("Requests at once", "The limit in force in each worker.", "svcmesh_concurrency_limit"),
        of_service(
            "Queue of max-requests",
            "queued: had to wait; refused: too many, or waited too long.",
            ("svcmesh_concurrency_queued_total", "queued"),
            ("svcmesh_concurrency_limited_total", "refused"),
            unit="reqps",
        ),
    ),
)
CACHE = Row(
    "Cache",
    (
        of_service(
            "Answers",
            "From the cache fresh or stale, from an equal request under way, or from an endpoint (miss).",
            ("svcmesh_cache_hits_total", "hit"),
            ("svcmesh_cache_stale_total", "stale"),
            ("svcmesh_cache_collapsed_total", "collapsed"),
            ("svcmesh_cache_misses_total", "miss"),
            unit="reqps",
        ),
        of_service(
            "What is kept",
            "Responses stored, found still valid, dropped for room, and purged.",
            ("svcmesh_cache_stored_total", "stored"),
            ("svcmesh_cache_validated_total", "validated"),
            ("svcmesh_cache_evicted_total", "evicted"),
            ("svcmesh_cache_purged_total", "purged"),
        ),
        highest("Bytes kept", "In the worker that has most.", "svcmesh_cache_bytes", "bytes"),
    ),
)
ROUTES = Row(
    "Routing and tests",
    (
        of_service(
            "Mirror",
            "Copies sent, copies without a response in time, and requests not copied.",
            ("svcmesh_mirrored_requests_total", "sent"),
            ("svcmesh_mirror_failures_total", "failed"),
            ("svcmesh_mirror_left_out_total", "left out"),
            unit="reqps",
        ),
        of_service(
            "Redirects and rewrites",
            "By the mesh; preflights: answered for CORS.",
            ("svcmesh_redirects_total", "redirects"),
            ("svcmesh_rewrites_total", "rewrites"),
            ("svcmesh_cors_preflights_total", "preflights"),
            unit="reqps",
        ),
        of_service(
            "Faults on purpose",
            "Requests held up or answered with an error.",
            ("svcmesh_faults_delayed_total", "delayed"),
            ("svcmesh_faults_aborted_total", "aborted"),
            unit="reqps",
        ),
    ),
)

BOARD = Board(
    uid="svcmesh-service",
    title="svc.mesh / Service",
    what="One Service, from its owner's and from a caller's side.",
    variables=(
        OF_NAMESPACE,
        OF_SERVICE,
        Variable("workload", "label_values(svcmesh_requests_total, source_workload)", "calling workload"),
    ),
    rows=(NOW, OBJECTIVE, OWNER, CALLERS, AS_CALLER, GRPC, ENDPOINTS, RESILIENCE, LIMITS, CACHE, ROUTES),
)
"""What `/d/svcmesh-service` shows."""
