"""What a Grafana board is made of, and its JSON: panels, links, value mappings, annotations, variables.

The Grafana Foundation SDK could make the same JSON. It was not taken: its builders cover all of Grafana, our
boards use four panel types, and a test can read a query with its unit from these few types. The shapes are
those of Grafana 10 (`schemaVersion` 39). A test compares the JSON with the SDK's types, field by field.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
LOGS: Final = {"type": "loki", "uid": "${logs}"}
COLUMNS: Final = 24
SIZES: Final = {"stat": (4, 4), "timeseries": (8, 7), "table": (24, 10), "logs": (24, 10)}
"""Width and height by type, in Grafana's grid."""

Kind = Literal["stat", "timeseries", "table", "logs"]


class Query(msgspec.Struct, frozen=True):
    """A PromQL expression, and what its lines, or its column of a table, are called."""

    expr: str
    legend: str = ""
    unit: str = ""
    """Of a column; the panel's if it is not given."""
    exemplars: bool = False
    """Whether the exemplars of its buckets are shown as points that lead to traces."""


class Mapping(msgspec.Struct, frozen=True):
    """What is shown in place of a number. Red, yellow and green never stand alone: the text says it too."""

    value: int
    text: str
    color: Literal["green", "yellow", "red", "blue"]


class Link(msgspec.Struct, frozen=True):
    """A link from a point, a line or a row of a table to another board."""

    title: str
    url: str


class Panel(msgspec.Struct, frozen=True):
    """One panel. `thresholds` are the values from which a stat is yellow and red; below `least` it is red.

    A stat with neither has no colour.
    """

    title: str
    what: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "timeseries"
    mappings: tuple[Mapping, ...] = ()
    links: tuple[Link, ...] = ()
    thresholds: tuple[float, float] | None = None
    least: float | None = None


class Row(msgspec.Struct, frozen=True):
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


class Variable(msgspec.Struct, frozen=True):
    """A choice at the top of a board; `query` asks Prometheus for the values."""

    name: str
    query: str
    label: str = ""


class Board(msgspec.Struct, frozen=True):
    """A whole board."""

    uid: str
    title: str
    what: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    with_logs: bool = False


def braced(labels: str) -> str:
    """Return the selector of a metric."""
    return f"{{{labels}}}" if labels else ""


def rate(metric: str, by: str, labels: str = "") -> str:
    """Return the sum of a counter's rate by some labels; with no labels the whole sum."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({metric}{braced(labels)}[$__rate_interval]))"


def stat(
    title: str,
    what: str,
    expr: str,
    unit: str = "short",
    *,
    legend: str = "",
    mappings: tuple[Mapping, ...] = (),
    thresholds: tuple[float, float] | None = None,
    least: float | None = None,
) -> Panel:
    """Return a tile with one number, or with one for each line, which `legend` names."""
    queries = (Query(expr, legend),)
    return Panel(title, what, queries, unit, "stat", mappings, thresholds=thresholds, least=least)


def board_json(board: Board) -> dict[str, Any]:
    """Return the board as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in board.rows:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
        panels.append({"type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []})
        top += 1
        left = height = 0
        for panel in row.panels:
            wide, high = SIZES[panel.kind]
            if left + wide > COLUMNS or (height and high != height):
                top, left = top + height, 0
            panels.append(_panel(panel, {"h": high, "w": wide, "x": left, "y": top}))
            left, height = left + wide, high
        top += height
    for number, shown in enumerate(panels, 1):
        shown["id"] = number
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.what,
        "tags": ["svcmesh"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "title": "svc.mesh",
                "tags": ["svcmesh"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "annotations": {"list": [_annotation(*one) for one in ANNOTATIONS]},
        "templating": {"list": _variables(board)},
        "panels": panels,
    }


ANNOTATIONS: Final = (
    ("Upgrades", "count(count by (version) (svcmesh_build_info)) > 1", "agents of several versions", True),
    ("Plans", "sum(changes(svcmesh_plan_version[1m])) > 0", "the plan changed", False),
)
"""Name, expression, text, and whether it is shown at first: plans change with every endpoint."""


def _annotation(name: str, expr: str, text: str, shown: bool) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": shown,
        "expr": expr,
        "step": "60s",
        "titleFormat": text,
        "iconColor": "purple" if shown else "blue",
    }


def _variables(board: Board) -> list[dict[str, Any]]:
    sources = [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
    shown: list[dict[str, Any]] = [*sources]
    if board.with_logs:
        shown.append({"name": "logs", "type": "datasource", "query": "loki", "label": "Loki"})
        for name, label, value in (
            ("mesh_namespace", "Namespace of the mesh", "svcmesh"),
            ("node_label", "Loki's label of the node", "node_name"),
        ):
            shown.append(
                {
                    "name": name,
                    "label": label,
                    "type": "textbox",
                    "query": value,
                    "current": {"text": value, "value": value},
                }
            )
    return shown + [_variable(one) for one in board.variables]


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "label": variable.label or variable.name,
        "type": "query",
        "datasource": SOURCE,
        "query": variable.query,
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    source = LOGS if panel.kind == "logs" else SOURCE
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.what,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _columns(panel)},
        "options": _options(panel),
        "transformations": _transformations(panel),
        "targets": [_target(panel, index, query) for index, query in enumerate(panel.queries)],
    }


def _columns(panel: Panel) -> list[dict[str, Any]]:
    """Return the units of a table's columns."""
    return [
        {
            "matcher": {"id": "byName", "options": query.legend},
            "properties": [{"id": "unit", "value": query.unit}],
        }
        for query in panel.queries
        if query.unit
    ]


def _transformations(panel: Panel) -> list[dict[str, Any]]:
    """Return what makes one table of several queries, with the queries' names as headings.

    Of a line, what takes the slash away that is left if the namespace is empty, as of `other` and `node`.
    """
    if panel.kind != "table":
        named = any("}}/{{" in query.legend for query in panel.queries)
        rename = {"id": "renameByRegex", "options": {"regex": "^/(.*)", "renamePattern": "$1"}}
        return [rename] if named else []
    names = {f"Value #{_ref(index)}": query.legend for index, query in enumerate(panel.queries)}
    return [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": names}},
    ]


def _ref(index: int) -> str:
    return chr(ord("A") + index)


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "links": [{"title": one.title, "url": one.url} for one in panel.links],
    }
    if panel.mappings:
        options = {str(one.value): {"text": one.text, "color": one.color} for one in panel.mappings}
        defaults["mappings"] = [{"type": "value", "options": options}]
        if panel.kind == "timeseries":
            # The axis ends at the last state, and shows whole numbers only: there is no state between two.
            defaults |= {"max": max(one.value for one in panel.mappings), "decimals": 0}
    if panel.kind == "stat":
        defaults["thresholds"] = {"mode": "absolute", "steps": _steps(panel)}
    return defaults


def _steps(panel: Panel) -> list[dict[str, Any]]:
    """Return the colours of a stat, each with its least value.

    A stat without any would get Grafana's own: green, and red from 80 on.
    """
    if panel.least is not None:
        return [{"color": "red", "value": None}, {"color": "green", "value": panel.least}]
    if panel.thresholds is not None:
        yellow, red = panel.thresholds
        return [
            {"color": "green", "value": None},
            {"color": "yellow", "value": yellow},
            {"color": "red", "value": red},
        ]
    return [{"color": "text", "value": None}]


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduced, "graphMode": "area", "colorMode": "value"}
    if panel.kind == "timeseries":
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "logs":
        return {"showTime": True, "wrapLogMessage": True, "sortOrder": "Descending"}
    return {"showHeader": True}


def _target(panel: Panel, index: int, query: Query) -> dict[str, Any]:
    target: dict[str, Any] = {
        "refId": _ref(index),
        "datasource": LOGS if panel.kind == "logs" else SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
    }
    if query.exemplars:
        target["exemplar"] = True
    if panel.kind == "table":
        target |= {"instant": True, "range": False, "format": "table"}
    return target
