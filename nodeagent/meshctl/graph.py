"""Who calls whom, as `meshctl graph` prints it: text, Graphviz' DOT, Mermaid. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nodeagent.log.console import printable
from nodeagent.meshctl.stat import BAD, GOOD, show_rate, show_seconds, show_share
from nodeagent.meshctl.table import Table
from nodeagent.stats.overview import Edge, Overview
from nodeagent.stats.signals import Signals

COLUMNS: Final = ("CALLER", "SERVICE", "RATE", "SUCCESS", "P50", "P95", "P99")
_COLOURS: Final = {"good": "#005a8c", "warn": "#7a4f00", "bad": "#a83200"}
_STYLES: Final = {"good": "solid", "warn": "dashed", "bad": "dotted"}
"""So that the grade shows without colours, too."""


def _caller(edge: Edge) -> str:
    """Return the caller's name: the Service that it is, or its workload."""
    if edge.source_service:
        return f"{edge.source_service}.{edge.source_namespace}"
    return f"{edge.source}.{edge.source_namespace}" if edge.source_namespace else edge.source


def _callee(edge: Edge) -> str:
    return f"{edge.service}.{edge.namespace}"


def _grade(signals: Signals) -> str:
    if signals.success is None or signals.success >= GOOD:
        return "good"
    return "warn" if signals.success >= BAD else "bad"


def _label(signals: Signals) -> str:
    sign = {"good": "✓", "warn": "▲", "bad": "✖"}[_grade(signals)]
    return f"{sign} {show_rate(signals.rate)} {show_share(signals.success)} p95 {show_seconds(signals.p95)}"


def graph_lines(overview: Overview) -> Iterator[str | Table]:
    """Yield a table with a row for each caller of each Service."""
    rows = []
    for edge in sorted(overview.edges, key=lambda edge: (_caller(edge), _callee(edge), edge.source)):
        signals = edge.signals
        times = (show_seconds(each) for each in (signals.p50, signals.p95, signals.p99))
        rate, success = show_rate(signals.rate), show_share(signals.success)
        rows.append((printable(_caller(edge)), printable(_callee(edge)), rate, success, *times))
    if rows:
        yield Table(COLUMNS, rows, numbers=len(COLUMNS) - 2)


def dot_lines(overview: Overview) -> Iterator[str]:
    """Yield a graph for `dot`."""
    yield "digraph mesh {"
    yield "  rankdir=LR;"
    yield '  node [shape=box, style=rounded, fontname="sans-serif"];'
    yield '  edge [fontname="sans-serif", fontsize=10];'
    callees = {_callee(edge) for edge in overview.edges}
    for name in sorted({_caller(edge) for edge in overview.edges if not edge.source_service} - callees):
        yield f"  {_quoted(name)} [shape=ellipse];"
    for edge in overview.edges:
        grade = _grade(edge.signals)
        yield (
            f"  {_quoted(_caller(edge))} -> {_quoted(_callee(edge))} "
            f'[label={_quoted(_label(edge.signals))}, color="{_COLOURS[grade]}", style={_STYLES[grade]}];'
        )
    yield "}"


def _quoted(text: str) -> str:
    return '"' + printable(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def mermaid_lines(overview: Overview) -> Iterator[str]:
    """Yield a flowchart for Mermaid, as Markdown of GitHub and others shows it."""
    yield "flowchart LR"
    names = sorted({name for edge in overview.edges for name in (_caller(edge), _callee(edge))})
    callees = {_callee(edge) for edge in overview.edges}
    services = callees | {_caller(edge) for edge in overview.edges if edge.source_service}
    ids = {name: f"n{number}" for number, name in enumerate(names)}
    for name in names:
        left, right = ("[", "]") if name in services else ("([", "])")
        yield f'  {ids[name]}{left}"{_escaped(name)}"{right}'
    for number, edge in enumerate(overview.edges):
        arrow = "-->" if _grade(edge.signals) == "good" else "-.->"
        yield f'  {ids[_caller(edge)]} {arrow}|"{_escaped(_label(edge.signals))}"| {ids[_callee(edge)]}'
        yield f"  linkStyle {number} stroke:{_COLOURS[_grade(edge.signals)]}"


def _escaped(text: str) -> str:
    """Return a text whose every sign that could end or change a label is an entity of Mermaid's."""
    plain = " .-_/%✓▲✖:"
    return "".join(sign if sign.isalnum() or sign in plain else f"#{ord(sign)};" for sign in text)
