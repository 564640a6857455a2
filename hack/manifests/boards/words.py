"""What several boards share: selectors, labels, variables, links and queries of the golden signals."""

from __future__ import annotations

from typing import Final

from hack.manifests.boards.panels import Link, Mapping, Panel, Query, Variable, rate
from middleware.grpc import GrpcStatus, http_code

PORT: Final = 'namespace=~"$namespace",service=~"$service"'
ON_NODE: Final = 'node=~"$node"'
SERVICE: Final = "namespace, service"
NAMED: Final = "{{namespace}}/{{service}}"
FAILED_STATUSES: Final = tuple(status.name for status in GrpcStatus if http_code(200, status) >= 500)
"""Of gRPC, as everything in the mesh counts them: breakers, objectives, `meshctl stat`."""
BAD_CALLS: Final = f',grpc_status=~"{"|".join(FAILED_STATUSES)}"'
BAD_CALLS_SAID: Final = f"The share of {', '.join(FAILED_STATUSES[:-1])} and {FAILED_STATUSES[-1]}."

OF_NAMESPACE: Final = Variable("namespace", "label_values(svcmesh_connections_total, namespace)")
OF_SERVICE: Final = Variable(
    "service", 'label_values(svcmesh_connections_total{namespace=~"$namespace"}, service)'
)
OF_NODE: Final = Variable("node", "label_values(svcmesh_build_info, node)")

TO_SERVICE: Final = Link(
    "Service",
    "/d/svcmesh-service?var-namespace=${__field.labels.namespace}&var-service=${__field.labels.service}"
    "&${__url_time_range}",
)
TO_SERVICE_OF_ROW: Final = Link(
    "Service",
    "/d/svcmesh-service?var-namespace=${__data.fields.namespace}&var-service=${__data.fields.service}"
    "&${__url_time_range}",
)
TO_NODE: Final = Link("Node", "/d/svcmesh-node?var-node=${__field.labels.node}&${__url_time_range}")

BREAKER: Final = (
    Mapping(0, "closed", "green"),
    Mapping(1, "recovering", "yellow"),
    Mapping(2, "open", "red"),
)


def failed(by: str, labels: str) -> str:
    """Return the share of answers with a status of 500 or more."""
    bad = rate("svcmesh_requests_total", by, f'{labels},code_class="5xx"')
    return f"{bad} / {rate('svcmesh_requests_total', by, labels)}"


def failed_calls(by: str, labels: str) -> str:
    """Return the share of gRPC calls that failed by the fault of the server."""
    bad = rate("svcmesh_grpc_calls_total", by, labels + BAD_CALLS)
    return f"{bad} / {rate('svcmesh_grpc_calls_total', by, labels)}"


def quantile(share: str, labels: str, by: str = "") -> str:
    """Return a percentile of the duration of requests."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate('svcmesh_request_duration_seconds_bucket', grouped, labels)})"


def budget_left(by: str, labels: str) -> str:
    """Return the least that is left of an error budget, 0 to 1."""
    grouped = f"min by ({by})" if by else "min"
    return f"{grouped} (svcmesh:objective_budget_left:ratio30d{{{labels}}})"


def burn_rate(by: str, window: str, labels: str) -> str:
    """Return how many times as fast as allowed error budgets are used up."""
    return f"max by ({by}) (svcmesh:objective_burn:rate{window}{{{labels}}})"


def percentiles(labels: str) -> tuple[Query, ...]:
    """Return the lines of the usual percentiles; the exemplars are the same for each, so one has them."""
    return tuple(
        Query(quantile(share, labels), name, exemplars=name == "p99")
        for share, name in (("0.5", "p50"), ("0.9", "p90"), ("0.99", "p99"))
    )


def of_service(title: str, what: str, *metrics: tuple[str, str], unit: str = "ops") -> Panel:
    """Return a panel with the rates of counters of a port, each (metric, word), by Service."""
    lines = tuple(Query(rate(metric, SERVICE, PORT), f"{NAMED} {word}".strip()) for metric, word in metrics)
    return Panel(title, what, lines, unit, links=(TO_SERVICE,))


def highest(
    title: str, what: str, metric: str, unit: str = "short", mappings: tuple[Mapping, ...] = ()
) -> Panel:
    """Return a panel with the highest value of a gauge of a port that any node shows."""
    lines = (Query(f"max by ({SERVICE}) ({metric}{{{PORT}}})", NAMED),)
    return Panel(title, what, lines, unit, links=(TO_SERVICE,), mappings=mappings)
