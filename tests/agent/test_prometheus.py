"""Every query of every board, and every rule, in a real Prometheus that scrapes an agent under traffic."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from hack.kit.manifests import ENABLED
from hack.kit.waiting import until
from hack.manifests import rules
from hack.manifests.boards.panels import ANNOTATIONS, Board, Panel, Query
from hack.manifests.dashboard import BOARDS
from tests.agent.harness import Agent, Whoami, endpoints, load, service
from tests.agent.prometheus import Prometheus, Sample, prometheus
from tests.manifests.autoscaling import adapter_queries, adapter_rules, keda_queries

EVERYTHING = {
    "retry-attempts": "2",
    "hedge": "90%",
    "circuit-breaker": "NetworkErrorRatio() > 0.9",
    "rate-limit": "1000000/s burst=1000000",
    "max-requests": "100 queue=100",
    "cache": "on",
    "mirror": "nothing.shop 1%",
    "fault": "delay 1ms 1%",
    "rewrite": "prefix /old /new",
    "redirect": "307 prefix=/gone path=/there",
    "cors": "https://shop.example",
    "health-check": "tcp interval=1s",
    "objective": "99.9% 250ms",
}
"""What makes the families of every middleware appear."""

NOT_MADE = {
    "svcmesh_grpc_calls_total": "whoami speaks no gRPC",
    "svcmesh_grpc_method_calls_total": "whoami speaks no gRPC",
    "svcmesh_outlier_ejections_total": "no endpoint is ejected",
    "svcmesh_endpoints_ejected": "no endpoint is ejected",
    "svcmesh_endpoints_unhealthy": "every endpoint is well",
    "svcmesh_endpoint_ejections_total": "every endpoint is well",
    "svcmesh_failovers_total": "no Service has a failover",
    "svcmesh_trace_spans_rejected_total": "there is no collector",
    "svcmesh_trace_spans_sent_total": "there is no collector",
    "svcmesh_traced_requests_waiting": "there is no collector",
    "svcmesh_traced_requests_dropped_total": "there is no collector",
    "svcmesh_snapshot_written_timestamp_seconds": "the agent has no folder for its state",
}
"""Families without a series, or at 0, in this traffic, and why. Panels of other families must have lines."""

LINES = [
    (board, panel, query)
    for board in BOARDS
    for row in board.rows
    for panel in row.panels
    for query in panel.queries
    if panel.kind != "logs"
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen requests that succeed, and those of a Service without an endpoint."""
    folder = tmp_path_factory.mktemp("prometheus")
    cluster = folder / "cluster"
    cluster.mkdir()
    whoami = Whoami("a")
    asked = {**ENABLED, **{f"svc.mesh/{name}": value for name, value in EVERYTHING.items()}}
    (cluster / "web.yaml").write_text(service("web", asked) + endpoints("web", [whoami.port]))
    (cluster / "empty.yaml").write_text(
        service("empty", {**ENABLED, "svc.mesh/objective": "99%"}).replace("10.96.7.10", "10.96.7.11")
        + endpoints("empty", [])
    )
    agent = Agent(cluster)
    try:
        until(agent.ready)
        with prometheus(folder, agent.admin_port, rules.RULES) as server, load(agent, 2):

            def both_are_asked() -> bool:
                _ask_in_vain(agent)
                rates = server.query("sum by (service) (rate(svcmesh_requests_total[5s])) > 0")
                return {one.labels["service"] for one in rates} == {"web", "empty"}

            until(both_are_asked)
            yield server
    finally:
        agent.stop()
        whoami.process.kill()
        whoami.process.wait()


def _ask_in_vain(agent: Agent) -> None:
    connection = agent.connect("empty.shop")
    try:
        connection.request("GET", "/")
        assert connection.getresponse().status == 503
    finally:
        connection.close()


def filled(expr: str) -> str:
    """Put in what Grafana puts in where All is chosen of each variable."""
    text = re.sub(r"\$__rate_interval|\$__interval", "1m", expr)
    return re.sub(r"\$(namespace|service|node|workload)\b", ".*", text)


def label(board: Board, panel: Panel, query: Query) -> str:
    return f"{board.uid}: {panel.title}: {query.legend}"


@pytest.mark.parametrize(("board", "panel", "query"), LINES, ids=[label(*line) for line in LINES])
def test_a_panel_has_lines_with_the_labels_that_it_names(
    server: Prometheus, board: Board, panel: Panel, query: Query
) -> None:
    expr = filled(query.expr)
    assert "$" not in expr
    metrics = set(re.findall(r"\bsvcmesh_[a-z_]+", expr))
    if metrics & NOT_MADE.keys() or "> 0" in expr:
        samples = server.query(expr)
    else:
        samples = until(lambda: finite(server.query(expr)))
    named = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    for sample in samples:
        assert named - left_empty(sample) <= sample.labels.keys(), sample
        assert sample.value >= 0 or math.isnan(sample.value), sample
    if panel.kind == "stat":
        assert len(samples) <= 2 if "by (namespace, service)" in expr else len(samples) <= 1
    if panel.unit == "percentunit":
        assert all(one.value <= 1 or "cpu" in expr for one in finite(samples)), samples
    links = {name for link in panel.links for name in re.findall(r"__field\.labels\.(\w+)", link.url)}
    assert all(links - left_empty(sample) <= sample.labels.keys() for sample in samples), links
    if panel.mappings:
        assert {sample.value for sample in samples} <= {float(one.value) for one in panel.mappings}


def left_empty(sample: Sample) -> set[str]:
    """Return the labels that are empty of what is counted together, or of no pod: they do not arrive."""
    empty = {"namespace", "port"} if sample.labels.get("service") == "other" else set()
    if sample.labels.get("source_workload") in ("node", "unknown", "other"):
        empty |= {"source_namespace"}
    return empty


def finite(samples: list[Sample]) -> list[Sample]:
    """Leave out what is no number: a share of nothing."""
    return [one for one in samples if math.isfinite(one.value)]


def test_the_boards_show_the_requests_and_their_failures(server: Prometheus) -> None:
    counts = 'sum by (service) (svcmesh_requests_total{code_class="5xx"})'
    failed = {one.labels["service"]: one.value for one in server.query(counts)}
    assert failed["web"] == 0
    assert failed["empty"] > 0


@pytest.mark.parametrize("one", ANNOTATIONS, ids=lambda one: one[0])
def test_an_annotation_is_a_query(server: Prometheus, one: tuple[str, str, str, bool]) -> None:
    server.query(one[1])


def test_the_error_budget_of_an_objective_follows_what_callers_got(server: Prometheus) -> None:
    def left() -> dict[tuple[str, str], float]:
        samples = finite(server.query("svcmesh:objective_budget_left:ratio30d"))
        return {(one.labels["service"], one.labels["sli"]): one.value for one in samples}

    until(lambda: len(left()) == 3)
    found = left()
    assert found["web", "availability"] == 1
    assert found["empty", "availability"] == 0
    assert 0 <= found["web", "latency"] <= 1
    burn = server.query('svcmesh:objective_burn:rate1h{service="empty"}')
    assert [round(one.value) for one in burn] == [100], "all requests are bad, and one in a hundred may be"


def complaints(exposition: str) -> str:
    """Return what `promtool check metrics` says of names, units, help texts and types."""
    promtool = shutil.which("promtool")
    assert promtool, "it comes with prometheus"
    command = [promtool, "check", "metrics"]
    done = subprocess.run(command, input=exposition, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode == 0) == (not done.stderr)
    return done.stdout + done.stderr


def test_promtool_has_nothing_to_say_against_what_an_agent_shows(server: Prometheus) -> None:
    (target,) = server.get("targets")["activeTargets"]
    with urllib.request.urlopen(target["scrapeUrl"], timeout=10) as answer:
        exposition = answer.read().decode()
    assert exposition.count("# TYPE svcmesh_") > 50
    assert complaints(exposition) == ""
    wrong = "# HELP svcmesh_wrong_count Wrong.\n# TYPE svcmesh_wrong_count counter\nsvcmesh_wrong_count 1\n"
    assert "counter metrics should have" in complaints(exposition + wrong)


def test_every_rule_is_evaluated_without_an_error(server: Prometheus) -> None:
    def evaluated() -> list[dict[str, object]]:
        groups = server.get("rules")["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        return found if all(rule["health"] != "unknown" for rule in found) else []

    found = until(evaluated)
    assert [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []
    assert len(found) >= 39


def test_the_alert_of_a_service_without_an_endpoint_waits_for_its_time(server: Prometheus) -> None:
    def pending() -> set[str]:
        return {
            alert["labels"]["service"]
            for alert in server.get("alerts")["alerts"]
            if alert["labels"]["alertname"] == "SvcmeshNoEndpoint"
        }

    assert until(pending) == {"empty"}


@pytest.mark.parametrize("name", adapter_queries())
def test_prometheus_adapter_finds_one_number_for_a_service(server: Prometheus, name: str) -> None:
    query = adapter_queries()[name]
    assert "<<" not in query
    (sample,) = until(lambda: server.query(query))
    assert sample.labels == {"service": "web"}
    assert sample.value > 0


def test_the_adapter_discovers_series_by_the_labels_that_it_maps_to_objects(server: Prometheus) -> None:
    for rule in adapter_rules():
        found = server.query(rule["seriesQuery"])
        assert {one.labels["service"] for one in found} == {"web", "empty"}
        assert all(rule["resources"]["overrides"].keys() <= one.labels.keys() for one in found)


@pytest.mark.parametrize("query", keda_queries())
def test_keda_finds_one_number_for_each_trigger(server: Prometheus, query: str) -> None:
    (sample,) = until(lambda: server.query(query))
    assert sample.value > 0
