"""The page of objectives says what is so."""

from __future__ import annotations

import re

import pytest
import yaml

from discovery.model import ServicePort
from middleware.grpc import GrpcStatus, http_code
from middleware.values import format_duration
from nodeagent.admin.objectives import OBJECTIVE_FAMILIES, OBJECTIVE_SHARE
from nodeagent.plan.model import Objective
from nodeagent.plan.objective import PERCENT, parse_objective, read_objective
from nodeagent.plan.of_port import OfPort
from nodeagent.settings import MOST_SERIES
from nodeagent.stats.columns import DURATION_BOUNDS
from tests.manifests.test_alerts import ALERTS, RECORDED
from tests.middleware.pages import DOCS, blocks, rows

PAGE = (DOCS / "objectives.md").read_text()
VALUES = rows(PAGE, "| value | promises |")
ALERT_ROWS = rows(
    PAGE, "| alert | burn rate | in the last | the budget is gone in | severity | needs an objective above |"
)


def test_the_example() -> None:
    (block,) = blocks(PAGE, "yaml")
    service = yaml.safe_load(block)
    said = parse_objective(service["metadata"]["annotations"])
    assert isinstance(said, OfPort)
    ports = [ServicePort(port["name"], port["port"]) for port in service["spec"]["ports"]]
    assert [said.of(port) for port in ports] == [
        Objective(99_900, 0.25, 99_900),
        Objective(99_950, 0.5, 99_000),
        None,
    ]


@pytest.mark.parametrize("row", VALUES, ids=lambda row: row[0])
def test_what_a_value_promises(row: list[str]) -> None:
    objective = read_objective(row[0].strip("`"))
    promised = [float(number) for number in re.findall(r"([\d.]+) %", row[1])]
    times = [float(number) / 1000 for number in re.findall(r"(\d+) ms", row[1])]
    if objective is None:
        assert promised == times == []
        return
    shares = [objective.available, objective.fast] if objective.within else [objective.available]
    assert promised == [share / PERCENT for share in shares]
    assert times == ([objective.within] if objective.within else [])


def test_the_times_that_the_mesh_counts_by() -> None:
    *others, last = map(format_duration, DURATION_BOUNDS)
    listed = f"A time must be one that the mesh counts by: {', '.join(others)} or {last}."
    assert listed in " ".join(PAGE.split())


def test_the_statuses_of_grpc_that_are_bad() -> None:
    (row,) = [row for row in rows(PAGE, "| request | availability | latency |") if row[0].startswith("gRPC")]
    bad = [status.name for status in GrpcStatus if http_code(200, status) >= 500]
    assert re.findall(r"\b[A-Z_]{4,}\b", row[0]) == bad


def test_the_metrics_and_the_recorded_series() -> None:
    metrics = {row[0].strip("`") for row in rows(PAGE, "| metric | what |")}
    assert metrics == {family.name for family in OBJECTIVE_FAMILIES}
    burn, left = rows(PAGE, "| series | what |")
    first = burn[0].strip("`")
    windows = [first.partition(":rate")[2], *re.findall(r"`(\w+)`", burn[1])]
    named = {f"svcmesh:objective_burn:rate{window}" for window in windows} | {left[0].strip("`")}
    assert named == {name for name in RECORDED if "burn" in name or "left" in name}


def test_how_many_ports_there_is_room_for() -> None:
    assert f"{int(MOST_SERIES * OBJECTIVE_SHARE) // 6} ports" in PAGE
    assert f"the usual {MOST_SERIES:,}" in PAGE


@pytest.mark.parametrize("row", ALERT_ROWS, ids=lambda row: row[0])
def test_an_alert(row: list[str]) -> None:
    """The budget is of 30 days; where every request is bad the burn rate is 1 / (1 - objective)."""
    name, factor, windows, gone, severity, least = row
    (alert,) = [one for one in ALERTS if name.startswith(f"[{one['alert']}]")]
    assert severity == alert["labels"]["severity"]
    asked = re.findall(r"svcmesh:objective_burn:rate(\w+) > ([\d.]+)", alert["expr"])
    assert asked == [(window, factor) for window in windows.split(" and ")]
    assert int(gone.split()[0]) == int(30 / float(factor))
    assert float(least.rstrip("%")) == pytest.approx(100 * (1 - 1 / float(factor)), abs=0.1)


def test_every_alert_of_an_objective_is_in_the_table() -> None:
    assert len(ALERT_ROWS) == sum("objective_burn" in alert["expr"] for alert in ALERTS) == 4
