"""From a duration to a trace: a real Prometheus scrapes an agent, and its exemplars name the trace."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hack.kit.ports import free_port
from hack.kit.waiting import until
from hack.manifests import rules
from hack.manifests.dashboard import BOARDS
from tests.agent.harness import Whoami
from tests.agent.prometheus import prometheus
from tests.agent.test_prometheus import filled
from tests.agent.test_tracing import SAMPLED, TRACE, get, running

QUERIES = [
    query.expr
    for board in BOARDS
    for row in board.rows
    for panel in row.panels
    for query in panel.queries
    if query.exemplars
]


def test_prometheus_has_the_trace_of_a_request_for_every_panel_of_durations(tmp_path: Path) -> None:
    whoami = Whoami("cart-1")
    collector = f"otlp+http://127.0.0.1:{free_port()}"
    try:
        with (
            running(tmp_path, [whoami.port], collector, tracing="0%") as agent,
            prometheus(tmp_path, agent.admin_port, rules.RULES, "exemplar-storage") as server,
        ):
            assert get(agent, {})[0] == 200, "which is not traced"
            assert get(agent, SAMPLED)[0] == 200
            asked = time.time()

            def exemplars(expr: str) -> Any:
                query, start, end = filled(expr), f"{asked - 60}", f"{asked + 60}"
                return until(lambda: server.get("query_exemplars", query=query, start=start, end=end))

            assert len(QUERIES) == 4
            for expr in QUERIES:
                (series,) = exemplars(expr)
                labels = series["seriesLabels"]
                assert labels["__name__"] == "svcmesh_request_duration_seconds_bucket"
                assert (labels["service"], labels["port"], labels["source_workload"]) == (
                    "cart",
                    "18080",
                    "node",
                )
                (exemplar,) = series["exemplars"]
                assert exemplar["labels"] == {"trace_id": TRACE}
                assert 0 < float(exemplar["value"]) <= float(labels["le"])
                assert abs(exemplar["timestamp"] - asked) < 60
    finally:
        whoami.stop()
