"""The boards against Grafana's published schema, and mistakes that must be found."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.manifests.grafana_schema import problems
from tests.manifests.test_monitoring import BOARDS


@pytest.mark.parametrize("name", BOARDS)
def test_grafana_knows_every_field_and_every_value(name: str) -> None:
    assert problems(BOARDS[name]) == []


MISTAKES: list[tuple[str, str, Any, str]] = [
    ("", "graphTooltip", 7, "graph_tooltip: 7 is no DashboardCursorSync"),
    ("", "graphToolTip", 1, "graphToolTip: no such field"),
    ("", "editable", "yes", "editable: 'yes' is no bool"),
    ("", "schemaVersion", "39", "schema_version: '39' is no int"),
    ("", "templating.list.0.type", "datasorce", "'datasorce' is no VariableType"),
    ("", "templating.list.0.default", "a", "default: no such field"),
    ("", "links.0.type", "dashboard", "'dashboard' is no DashboardLinkType"),
    ("", "links.0.keeptime", True, "keeptime: no such field"),
    ("", "annotations.list.0.colour", "red", "colour: no such field"),
    ("", "annotations.list.0.enable", 1, "enable: 1 is no bool"),
    ("", "panels.1.gridPos.w", "4", "grid_pos.w: '4' is no int"),
    ("", "panels.1.gridPos.width", 4, "gridPos.width: no such field"),
    ("", "panels.0.collapsed", "no", "collapsed: 'no' is no bool"),
    ("stat", "type", "singlestatt", "no panel is a 'singlestatt'"),
    ("stat", "options.reduceOptions.calcs", "last", "calcs: 'last' is no list"),
    ("stat", "options.graphmode", "area", "graphmode: no such field"),
    ("stat", "options.graphMode", "aera", "'aera' is no BigValueGraphMode"),
    ("stat", "fieldConfig.defaults.unit", "second", "no unit is called 'second'"),
    ("stat", "fieldConfig.defaults.units", "s", "units: no such field"),
    ("stat", "fieldConfig.defaults.min", "0", "min: '0' is no float"),
    ("stat", "fieldConfig.defaults.thresholds.mode", "percent", "'percent' is no ThresholdsMode"),
    ("stat", "fieldConfig.defaults.thresholds.steps.0.value", "1", "value: '1' is no float"),
    ("stat", "fieldConfig.defaults.mappings", [{"type": "values", "options": {}}], "KeyError('values')"),
    ("timeseries", "options.legend.displayMode", "lists", "'lists' is no LegendDisplayMode"),
    ("timeseries", "options.legend.placement", "below", "placement: 'below'"),
    ("timeseries", "options.tooltip.mode", "all", "'all' is no TooltipDisplayMode"),
    ("timeseries", "options.showHeader", True, "showHeader: no such field"),
    ("timeseries", "targets.0.exprs", "up", "exprs: no such field"),
    ("timeseries", "targets.0.expr", ["up"], "expr: ['up'] is no str"),
    ("timeseries", "targets.0.datasource.type", "promotheus", "no source is a 'promotheus'"),
    ("timeseries", "targets.0.expr", "up{node=~'$nodes'}", "there is no variable $nodes"),
    ("timeseries", "fieldConfig.defaults.links.0.url", "/d/a?from=${from}", "there is no variable $from"),
    ("table", "fieldConfig.overrides.0.properties.0.id", "units", "no option is called 'units'"),
    ("table", "fieldConfig.overrides.0.properties.0.value", "seconds", "no unit is called 'seconds'"),
    ("table", "fieldConfig.overrides.0.matcher.option", "a", "option: no such field"),
    ("table", "targets.0.format", "tabel", "'tabel' is no PromQueryFormat"),
    ("table", "transformations.0.id", "merged", "'merged' is not known"),
    ("table", "options.showHeader", "true", "show_header: 'true' is no bool"),
    ("logs", "options.sortOrder", "Newest", "'Newest' is no LogsSortOrder"),
    ("logs", "options.wrapLogMessages", True, "wrapLogMessages: no such field"),
    ("logs", "targets.0.queryType", 1, "query_type: 1 is no str"),
]
"""The kind of panel ("" is the board itself), the field, what is put there, and what must be said of it."""


@pytest.mark.parametrize(
    ("kind", "field", "wrong", "said"),
    MISTAKES,
    ids=[f"{kind} {field} {wrong}" for kind, field, wrong, _ in MISTAKES],
)
def test_a_mistake_is_found(kind: str, field: str, wrong: object, said: str) -> None:
    board = copy.deepcopy(next(one for one in BOARDS.values() if not kind or first(one, kind) is not None))
    place: Any = first(board, kind) if kind else board
    assert problems(board) == []
    *way, last = field.split(".")
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = wrong
    assert any(said in one for one in problems(board)), problems(board)


def first(board: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """Return the first panel of a kind that has what the mistakes change."""
    for panel in board["panels"]:
        if panel["type"] == kind:
            fields = panel["fieldConfig"]["defaults"]
            if (kind != "stat" or "thresholds" in fields) and (kind != "timeseries" or fields["links"]):
                found: dict[str, Any] = panel
                return found
    return None
