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


BOARDS: dict[str, dict[str, Any]] = {name: json.loads(text) for name, text in dashboard.files().items()}


@pytest.mark.parametrize("copy", dashboard.copies(), ids=lambda path: f"{path.parts[-4]}-{path.name}")
def test_the_boards_are_up_to_date(copy: Path) -> None:
    assert copy.read_text() == dashboard.copies()[copy], "run `make docs`"


def test_no_board_is_left_that_nothing_makes() -> None:
    for folder in dashboard.FOLDERS:
        assert {path.name for path in folder.iterdir()} == set(BOARDS)


def test_kustomize_takes_every_board() -> None:
    document = yaml.safe_load((MANIFESTS / "monitoring" / "kustomization.yaml").read_text())
    (generator,) = document["configMapGenerator"]
    assert {Path(name).name for name in generator["files"]} == set(BOARDS)


def test_every_metric_has_its_panel() -> None:
    shown = {name for text in dashboard.files().values() for name in re.findall(r"\bsvcmesh_[a-z_]+", text)}
    shown |= {name.removesuffix(end) for name in shown for end in OF_A_HISTOGRAM}
    assert known_metrics() - shown == set()


@pytest.mark.parametrize("name", BOARDS)
def test_stat_tiles_come_first(name: str) -> None:
    heading, *panels = BOARDS[name]["panels"]
    kinds = [panel["type"] for panel in panels[: [one["type"] for one in panels].index("row")]]
    assert heading["type"] == "row"
    assert set(kinds) == {"stat"}


def test_a_link_leads_to_a_board_and_a_variable_that_exist() -> None:
    variables = {
        board["uid"]: {one["name"] for one in board["templating"]["list"]} for board in BOARDS.values()
    }
    links = [
        link["url"]
        for board in BOARDS.values()
        for panel in board["panels"]
        if "fieldConfig" in panel
        for link in panel["fieldConfig"]["defaults"]["links"]
    ]
    assert links
    for url in links:
        (uid,) = re.findall(r"^/d/([\w-]+)\?", url)
        assert set(re.findall(r"var-(\w+)=", url)) <= variables[uid], url


def test_a_breaker_is_open_and_not_2() -> None:
    mapped = [
        panel["fieldConfig"]["defaults"]["mappings"][0]["options"]["2"]["text"]
        for board in BOARDS.values()
        for panel in board["panels"]
        if any("circuit_breaker_state" in target["expr"] for target in panel.get("targets", ()))
    ]
    assert mapped
    assert set(mapped) == {"open"}


def panels_of(kind: str) -> list[dict[str, Any]]:
    return [panel for board in BOARDS.values() for panel in board["panels"] if panel["type"] == kind]


@pytest.mark.parametrize("tile", panels_of("stat"), ids=lambda one: one["title"])
def test_a_tile_has_no_colour_that_nobody_chose(tile: dict[str, Any]) -> None:
    """Where a board has no thresholds, Grafana makes a number red from 80 on, be it requests or Services."""
    first, *others = tile["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert first["value"] is None
    assert others or first["color"] == "text"
    values = [one["value"] for one in others]
    assert values == sorted(values)


def test_the_title_of_a_tile_fits_on_a_narrow_screen() -> None:
    """A sixth of 1,000 pixels has room for some 17 letters; Grafana cuts off what is longer."""
    assert [tile["title"] for tile in panels_of("stat") if len(tile["title"]) > 17] == []


def test_tiles_are_red_where_little_is_bad() -> None:
    red = {
        tile["title"]
        for tile in panels_of("stat")
        if tile["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["color"] == "red"
    }
    assert red == {"Agents ready", "Endpoints in use"}


def test_the_axis_of_a_state_ends_at_the_last_state() -> None:
    states = [
        panel["fieldConfig"]["defaults"]
        for panel in panels_of("timeseries")
        if "mappings" in panel["fieldConfig"]["defaults"]
    ]
    assert states
    for shown in states:
        assert shown["max"] == max(map(int, shown["mappings"][0]["options"]))
        assert shown["decimals"] == 0


def test_a_line_without_a_namespace_has_no_slash_before_its_name() -> None:
    for panel in panels_of("timeseries"):
        renames = [one["options"] for one in panel["transformations"] if one["id"] == "renameByRegex"]
        assert bool(renames) == any("}}/{{" in target["legendFormat"] for target in panel["targets"])
        for rename in renames:
            pattern = rename["renamePattern"].replace("$", "\\")
            assert re.sub(rename["regex"], pattern, "/other of clients") == "other of clients"
            assert re.sub(rename["regex"], pattern, "shop/web") == "shop/web"


def test_every_metric_in_the_monitoring_exists() -> None:
    texts = [path.read_text() for path in (MANIFESTS / "monitoring").rglob("*") if path.is_file()]
    asked = {name for text in texts for name in re.findall(r"\bsvcmesh_[a-z_]+", text)}
    assert len(asked) > 15
    assert [name for name in sorted(asked) if not exists(name)] == []


def test_a_metric_that_does_not_exist_is_noticed() -> None:
    assert not exists("svcmesh_unicorns_total")
    assert not exists("svcmesh_services_bucket_total")
    assert exists("svcmesh_request_duration_seconds_bucket")


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_a_place_of_their_own(name: str) -> None:
    panels = BOARDS[name]["panels"]
    cells = [
        (place["x"] + right, place["y"] + down)
        for place in (panel["gridPos"] for panel in panels)
        for right in range(place["w"])
        for down in range(place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_pod_monitor_selects_the_agents_and_asks_at_the_admin_port(base: list[Object]) -> None:
    monitor = yaml.safe_load((MANIFESTS / "monitoring" / "podmonitor.yaml").read_text())
    assert monitor["spec"]["selector"] == only(base, "DaemonSet")["spec"]["selector"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert "port" not in endpoint
    (address,) = [one for one in endpoint["relabelings"] if one["targetLabel"] == "__address__"]
    assert address["replacement"] == f"$1:{ADMIN_PORT}"
