"""`meshctl check`: file, line, object, field, what is wrong, what would be right, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from discovery.compat import PREFIXES, Compat
from discovery.files.reading import read_once
from nodeagent.agent.report import Report
from nodeagent.meshctl.check import node_settings, plan_of, report_on
from nodeagent.meshctl.main import main
from nodeagent.plan.diff import diff_plans, diff_services
from nodeagent.plan.model import EMPTY_PLAN
from nodeagent.plan.problems import name_of

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = sorted(
    path.parent.name
    for path in GOLDEN.glob("*/cluster.yaml")
    if "laptop" not in path.parent.name and not (path.parent / "before.yaml").exists()
)

GOOD = """\
apiVersion: v1
kind: Service
metadata:
  name: shop
  annotations:
    svc.mesh/enabled: "true"
spec:
  ports:
    - {name: http, port: 80}
"""

BAD = """\
# a comment
apiVersion: v1
kind: Service
metadata:
  name: cart
  annotations:
    svc.mesh/enabled: "true"
    # how often
    svc.mesh/retry-attempts: many
spec:
  ports:
    - name: http
      port: 80
    - name: dns
      protocol: UDP
      port: 53
"""


def slices(name: str) -> str:
    return f"""\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}, {{name: dns, port: 53, protocol: UDP}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"""


def check(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["check", *arguments])
    return result.exit_code, result.output


def findings(*paths: Path) -> list[dict[str, Any]]:
    """What is found, but for Services without endpoints: those are for `test_endpoints.py`."""
    found: list[dict[str, Any]] = json.loads(check("--format", "json", *map(str, paths))[1])["problems"]
    return [one for one in found if one["severity"] != "warning"]


def test_nothing_wrong(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(GOOD + slices("shop"))
    assert check(str(tmp_path)) == (0, "1 Service checked, 1 in the mesh, 0 problems\n")


def test_a_problem_and_a_note(tmp_path: Path) -> None:
    file = tmp_path / "cart.yaml"
    file.write_text(BAD + slices("cart"))
    code, output = check(str(file))
    assert code == 1
    assert output == (
        f"{file}:9: error: Service default/cart: svc.mesh/retry-attempts: many\n"
        '    wrong:  "many" is not a whole number\n'
        "    right:  a whole number from 0 to 10\n"
        "    effect: retry is off\n"
        f"{file}:15: info: Service default/cart: spec.ports[1].protocol: UDP\n"
        "    note:   UDP is not carried yet\n"
        "    right:  a TCP port\n"
        "    effect: port dns (53/UDP) has no mesh address; the rest of the Service has\n"
        "1 Service checked, 1 in the mesh, 1 problem, 1 note\n"
    )


def test_notes_alone_are_not_wrong(tmp_path: Path) -> None:
    (tmp_path / "cart.yaml").write_text(BAD.replace("many", '"2"') + slices("cart"))
    code, output = check(str(tmp_path))
    assert (code, output.splitlines()[-1]) == (0, "1 Service checked, 1 in the mesh, 0 problems, 1 note")


def test_as_json(tmp_path: Path) -> None:
    file = tmp_path / "cart.yaml"
    file.write_text(BAD + slices("cart"))
    code, output = check("--format", "json", str(file))
    document = json.loads(output)
    assert code == 1
    assert (document["services"], document["meshed"], document["errors"]) == (1, 1, 1)
    assert document["problems"][0] == {
        "file": str(file),
        "line": 9,
        "severity": "error",
        "object": "Service default/cart",
        "field": "svc.mesh/retry-attempts",
        "value": "many",
        "reason": '"many" is not a whole number',
        "expected": "a whole number from 0 to 10",
        "effect": "retry is off",
        "paste": "",
    }


def test_a_value_without_quotes(tmp_path: Path) -> None:
    """YAML makes it a boolean, so for Kubernetes there is no annotation at all: easily done, hard to see."""
    file = tmp_path / "shop.yaml"
    file.write_text(GOOD.replace('"true"', "true"))
    (found,) = findings(file)
    assert (found["line"], found["field"]) == (6, "svc.mesh/enabled")
    assert found["expected"].startswith('"true", in quotes')


def test_annotations_without_enabled_are_noted(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(GOOD.replace('svc.mesh/enabled: "true"', 'svc.mesh/retry-attempts: "2"'))
    (found,) = findings(file)
    assert (found["line"], found["severity"]) == (6, "info")
    assert found["reason"] == "has no effect without svc.mesh/enabled"


def test_a_deliberate_false_is_not_noted(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(GOOD.replace('"true"', '"false"'))
    assert findings(file) == []


def test_duplicates_in_two_paths_and_a_file_named_twice(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(GOOD)
    two.write_text(GOOD)
    assert findings(one, one, tmp_path / "." / "one.yaml") == []
    (found,) = findings(one, two)
    assert (found["file"], found["line"], found["field"]) == (str(two), 4, "metadata.name")


def test_a_broken_document_does_not_hide_the_others(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(f"{GOOD}---\nkind: [\n---\n{BAD}")
    places = [(found["line"], found["severity"]) for found in findings(file)]
    assert places == [(12, "error"), (21, "error"), (27, "info")]


def test_items_of_a_list(tmp_path: Path) -> None:
    indented = "".join(f"    {line}\n" for line in BAD.splitlines()[1:])
    file = tmp_path / "list.yaml"
    file.write_text(f"apiVersion: v1\nkind: List\nitems:\n  -\n{indented}")
    assert [found["line"] for found in findings(file)] == [12, 18]


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    code, output = check(str(tmp_path / "none"))
    assert code == 2
    assert "does not exist" in output


def test_colours_only_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.yaml").write_text(BAD)
    assert "\x1b" not in check(str(tmp_path))[1]
    monkeypatch.delenv("NO_COLOR", raising=False)
    on_terminal = CliRunner().invoke(main, ["check", str(tmp_path)], color=True)
    assert "\x1b[" in on_terminal.output
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in CliRunner().invoke(main, ["check", str(tmp_path)], color=True).output


@pytest.mark.parametrize("case", CASES)
def test_check_and_agent_agree(case: str) -> None:
    """What check calls wrong is what an agent reports that reads these files first."""
    file = GOLDEN / case / "cluster.yaml"
    compat: Compat | None = "traefik-mesh" if case.startswith("compat-") else None
    events = read_once(str(file), compat=compat)
    report = report_on(events, plan_of(events, node_settings(compat)))
    errors = [f.problem for f in report.findings if f.problem.severity == "error"]
    checked = {
        (p.name, p.field, p.reason.replace(str(file), "cluster.yaml")) for p in errors if p.kind != "File"
    }
    plan = json.loads((GOLDEN / case / "plan.json").read_text())
    problems = [*plan["problems"], *(p for service in plan["services"].values() for p in service["problems"])]
    told = [p for p in problems if p["severity"] == "error" and p["kind"] != "File"]
    assert checked == {(p["name"], p["field"], p["reason"]) for p in told}
    text = file.read_text().splitlines()
    for finding in report.findings:
        if finding.problem.field.startswith(("svc.mesh/", *PREFIXES)):
            assert finding.problem.field in text[finding.line - 1]


@pytest.mark.parametrize("case", CASES)
def test_a_problem_has_the_same_place_in_the_log_and_here(case: str) -> None:
    """Of every kind of problem that there is: file and line are those of what is to be mended."""
    file = GOLDEN / case / "cluster.yaml"
    compat: Compat | None = "traefik-mesh" if case.startswith("compat-") else None
    events = read_once(str(file), compat=compat)
    plan = plan_of(events, node_settings(compat))
    changed = diff_services(EMPTY_PLAN, plan)
    with capture_logs() as logged:
        Report().tell(EMPTY_PLAN, plan, changed, diff_plans(changed), 0.0)
    lines = [line for line in logged if line["event"] == "problem_found"]
    keys = ("object", "field", "reason", "file", "line")
    told = {tuple(line.get(key, "") for key in keys) for line in lines}
    findings = report_on(events, plan).findings
    checked = {(name_of(f.problem), f.problem.field, f.problem.reason, f.file, f.line) for f in findings}
    assert told <= checked
    notes = {found for found in checked - told if "has no effect without svc.mesh/enabled" in found[2]}
    assert checked - told == notes, "of Services that do not ask for the mesh only check says anything"
    assert all(path == str(file) and line for *_, path, line in told)
    assert all(said for said, *_ in told)


def test_the_agreement_is_about_every_kind_of_object() -> None:
    kinds = set()
    for case in CASES:
        compat: Compat | None = "traefik-mesh" if case.startswith("compat-") else None
        events = read_once(str(GOLDEN / case / "cluster.yaml"), compat=compat)
        plan = plan_of(events, node_settings(compat))
        kinds |= {(problem.kind, problem.severity) for problem in plan.all_problems()}
    assert kinds >= {
        ("File", "error"), ("Service", "error"), ("Service", "warning"), ("Service", "info"),
        ("EndpointSlice", "error"), ("Endpoints", "info"), ("TrafficTarget", "error"),
    }  # fmt: skip
