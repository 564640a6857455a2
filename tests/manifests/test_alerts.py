"""The alerts: each fires when it should and not when it should not, exists in metrics, and has its page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from discovery.dns.counters import RESULTS
from hack.manifests import rules
from hack.manifests.boards.words import FAILED_STATUSES
from hack.manifests.dashboard import files
from middleware.grpc import GrpcStatus
from nodeagent.stats.columns import UPSTREAM_ERRORS
from tests.manifests.alerts import SCENARIOS, Scenario, objective
from tests.manifests.objects import ROOT
from tests.manifests.test_monitoring import exists
from tests.manifests.tools import invoke, run

PAGE = ROOT / "docs" / "alerts.md"
INSTALL = ROOT / "docs" / "install.md"
EVERY_RULE: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(rules.RULES.read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in EVERY_RULE if "alert" in rule]
RECORDED = {rule["record"] for rule in EVERY_RULE if "record" in rule}
NAMES = [alert["alert"] for alert in ALERTS]
OF_OTHERS = {"kube_daemonset_status_desired_number_scheduled", "kube_daemonset_status_number_ready"}
"""What kube-state-metrics has."""
LABELS = {
    "reason": {*UPSTREAM_ERRORS, "no_route"},
    "result": set(RESULTS),
    "code_class": {"none", "1xx", "2xx", "3xx", "4xx", "5xx"},
    "grpc_status": {status.name for status in GrpcStatus},
    "daemonset": {"svcmesh-agent"},
}


@pytest.fixture(scope="session")
def promtool() -> Path:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not there (Debian: prometheus)")
    return Path(found)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: f"{one.alert}: {one.what}")
def test_an_alert_fires_when_it_should(promtool: Path, tmp_path: Path, scenario: Scenario) -> None:
    """Prometheus keeps a series ALERTS of what fires: that of this alert is looked at."""
    (alert,) = [one for one in ALERTS if one["alert"] == scenario.alert]
    names = ", ".join(["alertname", "severity", *(scenario.fires or {})])
    expected = {"alertname": scenario.alert, **alert["labels"], **(scenario.fires or {})}
    sample = {"labels": "{" + ", ".join(f'{k}="{v}"' for k, v in expected.items()) + "}", "value": 1}
    question = {
        "expr": f'count by ({names}) (ALERTS{{alertname="{scenario.alert}",alertstate="firing"}})',
        "eval_time": f"{scenario.minutes}m",
        "exp_samples": [] if scenario.fires is None else [sample],
    }
    done = check(promtool, tmp_path, scenario.series, [question])
    assert done.returncode == 0, done.stdout + done.stderr


def check(
    promtool: Path, folder: Path, series: dict[str, str], questions: list[dict[str, Any]]
) -> CompletedProcess[str]:
    """Ask what the rules make of these series."""
    written = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "1m", "input_series": written, "promql_expr_test": questions}
    document = {"rule_files": [str(rules.RULES)], "evaluation_interval": "1m", "tests": [test]}
    (folder / "test.yaml").write_text(yaml.safe_dump(document))
    return invoke(promtool, "test", "rules", folder / "test.yaml")


def test_an_error_budget_is_of_all_nodes_and_by_the_strictest_objective(
    promtool: Path, tmp_path: Path
) -> None:
    """Two in 4,000 are bad, and one in 1,000 may be; one agent does not know the objective yet."""
    of = 'namespace="shop",service="cart",port="80",sli="availability"'
    series: dict[str, str] = {}
    for node, bad, ratio in (("n1", 2, 0.999), ("n2", 0, 0.99)):
        asked = objective("0+2000x300", f"0+{bad}x300", ratio=ratio)
        series |= {name.replace("}", f',node="{node}"}}'): values for name, values in asked.items()}
    expected = {
        **{f"svcmesh:objective_burn:rate{window}": 0.5 for window in ("5m", "1h", "6h", "3d", "30d")},
        "svcmesh:objective_budget_left:ratio30d": 0.5,
    }
    questions = [
        {
            "expr": f"round({name}, 0.125)",
            "eval_time": "290m",
            "exp_samples": [{"labels": f"{{{of}}}", "value": value}],
        }
        for name, value in expected.items()
    ]
    done = check(promtool, tmp_path, series, questions)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_scenario_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    for quiet in (False, True):
        assert {one.alert for one in SCENARIOS if (one.fires is None) is quiet} == set(NAMES)


def test_prometheus_takes_the_rules(promtool: Path) -> None:
    assert f"SUCCESS: {len(EVERY_RULE)} rules found" in run(promtool, "check", "rules", rules.RULES)


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_says_what_it_has_to(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"Svcmesh[A-Z]\w+", alert["alert"])
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert alert["annotations"]["runbook"] == f"docs/alerts.md#{alert['alert'].lower()}"
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}


def test_every_metric_and_every_label_value_in_an_alert_exists() -> None:
    metrics = {name for rule in EVERY_RULE for name in re.findall(r"\b(?:svcmesh|kube)_\w+", rule["expr"])}
    assert [name for name in sorted(metrics) if not exists(name) and name not in OF_OTHERS] == []
    for alert in ALERTS:
        for label, texts in re.findall(r'(\w+)!?=~?"([^"]+)"', alert["expr"]):
            if label != "job":
                assert set(texts.split("|")) <= LABELS[label], alert["alert"]


def test_calls_fail_by_the_same_statuses_everywhere() -> None:
    named = re.findall(r'grpc_status=~"([A-Z_|]+)"', "".join(rule["expr"] for rule in EVERY_RULE))
    assert named
    assert {tuple(one.split("|")) for one in named} == {FAILED_STATUSES}
    page = (ROOT / "docs" / "grpc.md").read_text()
    assert re.findall(r'grpc_status=~"([A-Z_|]+)"', page) == ["|".join(FAILED_STATUSES)]


def test_what_a_rule_reads_of_other_rules_is_recorded_and_everything_recorded_is_used() -> None:
    """A rule reads what was recorded above it, so that both are of the same moment."""
    recorded: set[str] = set()
    read = {name for board in files().values() for name in recorded_names(board)}
    for rule in EVERY_RULE:
        read |= recorded_names(rule["expr"])
        assert recorded_names(rule["expr"]) <= recorded, rule
        recorded |= {rule["record"]} if "record" in rule else set()
    assert recorded == RECORDED == read


def recorded_names(text: str) -> set[str]:
    return set(re.findall(r"\bsvcmesh:\w+:\w+", text))


@pytest.mark.parametrize("path", rules.copies(""), ids=lambda path: path.name)
def test_the_copies_are_up_to_date(path: Path) -> None:
    assert path.read_text() == rules.copies(rules.RULES.read_text())[path], "run `make docs`"


def sections() -> dict[str, str]:
    parts = re.split(r"^### (\w+)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_page_has_a_section_for_every_alert_in_their_order() -> None:
    assert list(sections()) == NAMES


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_a_section_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    text = sections()[alert["alert"]]
    duration = f", after {alert['for']}" if "for" in alert else ""
    assert text.startswith(f"\n*{alert['labels']['severity']}{duration}*\n")
    assert re.findall(r"^\*\*(.*?)\.\*\*", text, re.MULTILINE) == ["What users see", "Look at", "Do"]


def test_metrics_on_the_page_exist() -> None:
    named = set(re.findall(r"`(svcmesh_\w+)", PAGE.read_text()))
    assert named
    assert [name for name in sorted(named) if not exists(name)] == []


def test_prometheus_takes_the_configuration_in_the_documentation(promtool: Path, tmp_path: Path) -> None:
    (found,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", INSTALL.read_text(), re.DOTALL)
    config = yaml.safe_load(found)
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "svcmesh-agent", "by which SvcmeshAgentDown finds it"
    # Debian's Prometheus is built without the discovery of pods.
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    shutil.copy(rules.RULES, tmp_path)
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    said = run(promtool, "check", "config", tmp_path / "prometheus.yml")
    assert f"SUCCESS: {len(EVERY_RULE)} rules found" in said
