"""The examples for autoscalers. (In a real Prometheus: tests/agent/test_prometheus.py.)"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.manifests.autoscaling import FOLDER, adapter_queries, keda_queries
from tests.manifests.objects import ROOT
from tests.manifests.test_monitoring import exists
from tests.manifests.tools import invoke

QUERIES = [*adapter_queries().values(), *keda_queries()]


def test_the_hpa_asks_for_what_the_adapter_has() -> None:
    hpa = yaml.safe_load((FOLDER / "hpa.yaml").read_text())
    asked = [metric["object"]["metric"]["name"] for metric in hpa["spec"]["metrics"]]
    assert sorted(asked) == sorted(adapter_queries())


def test_the_metrics_exist_and_no_placeholder_is_left() -> None:
    for query in QUERIES:
        assert "<<" not in query
        names = re.findall(r"svcmesh_[a-z_]+", query)
        assert names
        assert all(map(exists, names))


def test_the_page_names_each_file_and_each_metric() -> None:
    page = (ROOT / "docs" / "autoscaling.md").read_text()
    for name in (*(path.name for path in FOLDER.iterdir()), *adapter_queries()):
        assert f"`{name}`" in page or f"/{name}" in page, name


@pytest.mark.parametrize("query", QUERIES)
def test_without_requests_the_number_is_0_and_not_missing(tmp_path: Path, query: str) -> None:
    """An HPA that lacks a metric removes no pods."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not there (Debian: prometheus)")
    labels = 'namespace="shop",service="web"'
    idle = [
        {"series": f"svcmesh_requests_total{{{labels}}}", "values": "5x10"},
        {"series": f'svcmesh_request_duration_seconds_bucket{{{labels},le="0.1"}}', "values": "5x10"},
        {"series": f'svcmesh_request_duration_seconds_bucket{{{labels},le="+Inf"}}', "values": "5x10"},
    ]
    expected = {"labels": '{service="web"}' if query in adapter_queries().values() else "{}", "value": 0}
    question = {"expr": query, "eval_time": "8m", "exp_samples": [expected]}
    test = {"interval": "1m", "input_series": idle, "promql_expr_test": [question]}
    document = {"rule_files": [], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document))
    done = invoke(promtool, "test", "rules", tmp_path / "test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
