"""The overview: every Service at a glance, and whether the mesh is well."""

from __future__ import annotations

from hack.manifests.boards.panels import Board, Mapping, Panel, Query, Row, rate, stat
from hack.manifests.boards.words import (
    BAD_CALLS_SAID,
    BREAKER,
    NAMED,
    OF_NAMESPACE,
    OF_SERVICE,
    PORT,
    SERVICE,
    TO_SERVICE,
    TO_SERVICE_OF_ROW,
    budget_left,
    failed,
    failed_calls,
    quantile,
)

BOARD = Board(
    uid="svcmesh-overview",
    title="svc.mesh / Overview",
    what="Every Service at a glance. A row or a line leads to the Service.",
    variables=(OF_NAMESPACE, OF_SERVICE),
    rows=(
        Row(
            "Now",
            (
                stat(
                    "Requests",
                    "A second, over all selected Services.",
                    rate("svcmesh_requests_total", "", PORT),
                    "reqps",
                ),
                stat(
                    "Failed",
                    "The share of answers with a status of 500 or more.",
                    failed("", PORT),
                    "percentunit",
                    thresholds=(0.01, 0.05),
                ),
                stat("p99", "99 of 100 requests took less.", quantile("0.99", PORT), "s"),
                stat(
                    "Breakers",
                    "The worst state of any circuit breaker.",
                    f"max(svcmesh_circuit_breaker_state{{{PORT}}})",
                    mappings=BREAKER,
                    thresholds=(1, 2),
                ),
                stat(
                    "Agents ready",
                    "Of those that Prometheus reads.",
                    "sum(svcmesh_ready) / count(svcmesh_ready)",
                    "percentunit",
                    least=1,
                ),
                stat(
                    "Out of touch",
                    "Agents that do not hear from the API server.",
                    "sum(svcmesh_source_stale)",
                    mappings=(Mapping(0, "none", "green"),),
                    thresholds=(1, 2),
                ),
                stat(
                    "Budget left",
                    "Of the error budget of 30 days: the lowest of all objectives. Needs the mesh's rules.",
                    budget_left("", PORT),
                    "percentunit",
                    mappings=(Mapping(0, "used up", "red"),),
                ),
            ),
        ),
        Row(
            "Services",
            (
                Panel(
                    "Every Service",
                    "Endpoints in use: on the node with fewest. Budget left: of svc.mesh/objective. A row"
                    " leads to the Service.",
                    (
                        Query(rate("svcmesh_requests_total", SERVICE, PORT), "requests", "reqps"),
                        Query(failed(SERVICE, PORT), "failed", "percentunit"),
                        Query(quantile("0.99", PORT, SERVICE), "p99", "s"),
                        Query(f"min by ({SERVICE}) (svcmesh_endpoints_in_use{{{PORT}}})", "endpoints in use"),
                        Query(budget_left(SERVICE, PORT), "budget left", "percentunit"),
                    ),
                    kind="table",
                    links=(TO_SERVICE_OF_ROW,),
                ),
                Panel(
                    "Requests",
                    "The ten busiest Services.",
                    (Query(f"topk(10, {rate('svcmesh_requests_total', SERVICE, PORT)})", NAMED),),
                    "reqps",
                    links=(TO_SERVICE,),
                ),
                Panel(
                    "Failed requests",
                    "The ten Services with the highest share of answers with a status of 500 or more.",
                    (Query(f"topk(10, {failed(SERVICE, PORT)})", NAMED),),
                    "percentunit",
                    links=(TO_SERVICE,),
                ),
                Panel(
                    "p99 of the duration",
                    "The ten slowest Services.",
                    (Query(f"topk(10, {quantile('0.99', PORT, SERVICE)})", NAMED, exemplars=True),),
                    "s",
                    links=(TO_SERVICE,),
                ),
                Panel(
                    "Failed gRPC calls",
                    BAD_CALLS_SAID,
                    (Query(f"topk(10, {failed_calls(SERVICE, PORT)})", NAMED),),
                    "percentunit",
                    links=(TO_SERVICE,),
                ),
                Panel(
                    "Bytes",
                    "HTTP and TCP, both ways: the ten Services with most.",
                    (
                        Query(
                            f"topk(10, {rate('svcmesh_request_bytes_total', SERVICE, PORT)}"
                            f" + {rate('svcmesh_response_bytes_total', SERVICE, PORT)})",
                            NAMED,
                        ),
                    ),
                    "Bps",
                    links=(TO_SERVICE,),
                ),
                Panel(
                    "Circuit breakers that are not closed",
                    "The highest state that any node shows. Empty is good.",
                    (Query(f"max by ({SERVICE}) (svcmesh_circuit_breaker_state{{{PORT}}}) > 0", NAMED),),
                    mappings=BREAKER,
                    links=(TO_SERVICE,),
                ),
            ),
        ),
    ),
)
"""What `/d/svcmesh-overview` shows."""
