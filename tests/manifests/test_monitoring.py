"""Dashboard and PodMonitor: they ask for what exists. (Alerts: test_alerts.py.)"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.manifests import dashboard
from hack.metrics import families
from nodeagent.cli.flags import ADMIN_PORT
from tests.manifests.objects import MANIFESTS, Object, only

OF_A_HISTOGRAM = ("_bucket", "_sum", "_count")


def known_metrics() -> set[str]:
    """Return the names that are declared, counters with their `_total`."""
    return {family.name for family in families()}


def exists(metric: str) -> bool:
    names = known_metrics()
    return metric in names or any(
        metric.removesuffix(end) in names for end in ("_total", *OF_A_HISTOGRAM) if metric.endswith(end)
    )


def panels() -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = json.loads(dashboard.COPIES[0].read_text())["panels"]
    return shown


@pytest.mark.parametrize("copy", dashboard.COPIES, ids=lambda path: path.parent.name)
def test_the_dashboard_is_up_to_date(copy: Path) -> None:
    assert copy.read_text() == dashboard.render(), "run `make docs`"


def test_every_metric_in_the_monitoring_exists() -> None:
    texts = [path.read_text() for path in (MANIFESTS / "monitoring").iterdir()]
    asked = {name for text in texts for name in re.findall(r"\bsvcmesh_[a-z_]+", text)}
    assert len(asked) > 15
    assert [name for name in sorted(asked) if not exists(name)] == []


def test_a_metric_that_does_not_exist_is_noticed() -> None:
    assert not exists("svcmesh_unicorns_total")
    assert not exists("svcmesh_services_bucket_total")
    assert exists("svcmesh_request_duration_seconds_bucket")


def test_panels_have_a_place_of_their_own_and_balanced_queries() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in panels()}) == len(places)
    queries = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    assert [
        query
        for query in queries
        for left, right in ("()", "{}", "[]")
        if query.count(left) != query.count(right)
    ] == []


def test_the_pod_monitor_selects_the_agents_and_asks_at_the_admin_port(base: list[Object]) -> None:
    monitor = yaml.safe_load((MANIFESTS / "monitoring" / "podmonitor.yaml").read_text())
    assert monitor["spec"]["selector"] == only(base, "DaemonSet")["spec"]["selector"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert "port" not in endpoint
    (address,) = [one for one in endpoint["relabelings"] if one["targetLabel"] == "__address__"]
    assert address["replacement"] == f"$1:{ADMIN_PORT}"
