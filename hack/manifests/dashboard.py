"""Write the Grafana dashboard as JSON, from a table of panels (`make docs`).

The same bytes go to `manifests/monitoring` and into the chart, because neither kustomize nor Helm reads files
from outside its own folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2] / "manifests"
COPIES = (ROOT / "monitoring" / "dashboard.json", ROOT / "charts" / "svcmesh" / "files" / "dashboard.json")

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
PORT = 'namespace=~"$namespace",service=~"$service"'
RATE = "[$__rate_interval]"
WIDTH, HEIGHT = 8, 7
"""Of a panel, in Grafana's grid of 24 columns."""


class Panel(NamedTuple):
    """A time series panel: each query is (expression, legend)."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    what: str


def _rate(metric: str, by: str, labels: str = PORT) -> str:
    return f"sum by ({by}) (rate({metric}{_braced(labels)}{RATE}))"


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _quantile(share: str) -> str:
    return f"histogram_quantile({share}, {_rate('svcmesh_request_duration_seconds_bucket', 'le')})"


_SERVICE, _NAMED = "namespace, service", "{{namespace}}/{{service}}"
_BAD_CALLS = PORT + ',grpc_status=~"UNKNOWN|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|DATA_LOSS"'
_FAILED_CALLS = _rate("svcmesh_grpc_calls_total", _SERVICE, _BAD_CALLS)
_FAILED_BY_METHOD = _rate("svcmesh_grpc_method_calls_total", f"{_SERVICE}, method", _BAD_CALLS)
_FAILED = _rate("svcmesh_requests_total", _SERVICE, PORT + ',code_class="5xx"')

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Traffic",
        (
            Panel(
                "Requests",
                "reqps",
                ((_rate("svcmesh_requests_total", _SERVICE), _NAMED),),
                "Requests that ended, a second.",
            ),
            Panel(
                "Failed requests",
                "percentunit",
                ((f"{_FAILED} / {_rate('svcmesh_requests_total', _SERVICE)}", _NAMED),),
                "The share of answers with a status of 500 or more, an endpoint's or the mesh's own.",
            ),
            Panel(
                "Duration",
                "s",
                tuple(
                    (_quantile(share), name)
                    for share, name in (("0.5", "p50"), ("0.9", "p90"), ("0.99", "p99"))
                ),
                "From a request's head to the end of its response, over all selected Services.",
            ),
            Panel(
                "Responses by class",
                "reqps",
                ((_rate("svcmesh_requests_total", "code_class"), "{{code_class}}"),),
                "none: the client left before there was a response.",
            ),
            Panel(
                "Bytes",
                "Bps",
                (
                    (_rate("svcmesh_request_bytes_total", _SERVICE), f"{_NAMED} from clients"),
                    (_rate("svcmesh_response_bytes_total", _SERVICE), f"{_NAMED} to clients"),
                ),
                "HTTP and TCP.",
            ),
            Panel(
                "Open connections of clients",
                "short",
                ((f"sum by ({_SERVICE}) (svcmesh_connections_active{{{PORT}}})", _NAMED),),
                "Now, over all nodes.",
            ),
        ),
    ),
    (
        "gRPC",
        (
            Panel(
                "Calls by status",
                "reqps",
                ((_rate("svcmesh_grpc_calls_total", "grpc_status"), "{{grpc_status}}"),),
                "What callers got; CANCELLED: they left, or their deadline passed.",
            ),
            Panel(
                "Failed calls",
                "percentunit",
                ((f"{_FAILED_CALLS} / {_rate('svcmesh_grpc_calls_total', _SERVICE)}", _NAMED),),
                "The share of UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS.",
            ),
            Panel(
                "Failed calls by method",
                "reqps",
                ((_FAILED_BY_METHOD, _NAMED + " {{method}}"),),
                "other: no endpoint has known the method yet, or there are too many of them.",
            ),
        ),
    ),
    (
        "What went wrong",
        (
            Panel(
                "Endpoints failing",
                "ops",
                (
                    (
                        _rate("svcmesh_upstream_errors_total", f"{_SERVICE}, reason"),
                        _NAMED + " {{reason}}",
                    ),
                ),
                "Each try is counted, those that a retry made good too.",
            ),
            Panel(
                "Endpoints that fail health checks",
                "short",
                ((f"max by ({_SERVICE}) (svcmesh_endpoints_unhealthy{{{PORT}}})", _NAMED),),
                "The most that any node finds; the log event endpoint_unhealthy has the reason.",
            ),
            Panel(
                "Answers of the mesh's own",
                "reqps",
                ((_rate("svcmesh_mesh_responses_total", _SERVICE), _NAMED),),
                "In place of an endpoint; the log event request_failed has the reason.",
            ),
            Panel(
                "Retries",
                "ops",
                (
                    (_rate("svcmesh_retries_total", _SERVICE), _NAMED),
                    (_rate("svcmesh_retry_budget_exhausted_total", _SERVICE), f"{_NAMED} not: budget"),
                ),
                "Requests sent once more, and those that the budget forbade.",
            ),
            Panel(
                "Circuit breakers",
                "short",
                ((f"max by ({_SERVICE}) (svcmesh_circuit_breaker_state{{{PORT}}})", _NAMED),),
                "The highest state of any node: 0 closed; see docs/middleware/circuit-breaker.md.",
            ),
            Panel(
                "Rate limited",
                "reqps",
                ((_rate("svcmesh_rate_limited_total", _SERVICE), _NAMED),),
                "Answered with 429.",
            ),
            Panel(
                "Refused",
                "ops",
                (
                    (_rate("svcmesh_malformed_requests_total", "reason", ""), "request: {{reason}}"),
                    (_rate("svcmesh_connections_refused_total", "reason", ""), "connection: {{reason}}"),
                ),
                "What was no proper request, and connections closed at once.",
            ),
        ),
    ),
    (
        "Agents",
        (
            Panel(
                "Agents by version",
                "short",
                (("count by (version) (svcmesh_build_info)", "{{version}}"),),
                "Two versions, and more agents than nodes, while an upgrade is under way.",
            ),
            Panel(
                "Services and problems",
                "short",
                (("max(svcmesh_services)", "Services"), ("max(svcmesh_problems)", "problems")),
                "Problems are in the log (problem_found) and at the agent's /plan.",
            ),
            Panel(
                "Touch with the API server",
                "short",
                (("max by (pod) (svcmesh_source_stale) > 0", "{{pod}} is stale"),),
                "Empty is good. The last plan is served meanwhile.",
            ),
            Panel(
                "Workers",
                "short",
                (
                    ("sum(svcmesh_workers)", "alive"),
                    (f"sum(increase(svcmesh_worker_restarts_total{RATE}))", "restarts"),
                ),
                "Processes that carry traffic.",
            ),
            Panel(
                "Busiest worker",
                "s",
                (("max by (pod) (svcmesh_worker_loop_lag_seconds)", "{{pod}}"),),
                "How late a worker's heartbeat was: what every request on it waits at worst.",
            ),
            Panel(
                "DNS queries",
                "reqps",
                ((_rate("svcmesh_dns_queries_total", "result", ""), "{{result}}"),),
                "By result.",
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana 9 and later read it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        place = {"h": 1, "w": 24, "x": 0, "y": top}
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []})
        top += 1
        for index, panel in enumerate(row):
            column, line = index % (24 // WIDTH), index // (24 // WIDTH)
            panels.append(_panel(panel, WIDTH * column, top + HEIGHT * line))
        top += HEIGHT * -(-len(row) // (24 // WIDTH))
    for number, shown in enumerate(panels, 1):
        shown["id"] = number
    return {
        "uid": "svcmesh",
        "title": "svc.mesh",
        "tags": ["svcmesh"],
        "schemaVersion": 37,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                _variable("namespace", "label_values(svcmesh_requests_total, namespace)"),
                _variable("service", 'label_values(svcmesh_requests_total{namespace=~"$namespace"},service)'),
            ]
        },
        "panels": panels,
    }


def _panel(panel: Panel, x: int, y: int) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.what,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def render() -> str:
    """Return the file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    for copy in COPIES:
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(render())
