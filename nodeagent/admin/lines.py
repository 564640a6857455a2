"""Prometheus text of what a port or an edge has counted: which lines it has, by family.

prometheus_client needs 10 µs for a line; this needs well under 1 µs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import Final

from nodeagent.admin.families import DURATION, METHODS, PortFamily, Series, port_families
from nodeagent.admin.family import PORT_LABELS, SOURCE_LABELS, Family
from nodeagent.admin.port_facts import PORT_FACTS
from nodeagent.stats.columns import DURATION_BOUNDS, DURATION_BUCKETS, DURATION_SUM, EDGE_COLUMNS, Layout
from nodeagent.stats.exemplars import NO_EXEMPLARS, Exemplar

Lines = dict[str, list[str]]
"""The lines of a port or an edge, by the name of the family."""

_LES: Final = (*(repr(bound) for bound in DURATION_BOUNDS), "+Inf")


class LineWriter:
    """Writes the lines of ports and edges."""

    def __init__(self, layout: Layout) -> None:
        families = port_families(layout)
        self._of_edges = [_Writer(family) for family in families if family.by_source]
        self._of_ports = [_Writer(family) for family in families if not family.by_source]
        self.families: tuple[Family, ...] = (*families, DURATION, METHODS, *PORT_FACTS)
        """All that ports have, in the order of the page."""

    def of_edge(
        self, labels: str, numbers: Sequence[int], exemplars: Mapping[int, Exemplar] = NO_EXEMPLARS
    ) -> Lines:
        """Return the lines of what a source has asked; `labels` are those of port and source, `exemplars`
        those of the buckets that have one.
        """
        lines: Lines = {}
        for writer in self._of_edges:
            writer.write(lines, labels, numbers, False)
        _write_histogram(lines, labels, numbers, exemplars)
        return lines

    def of_port(
        self, labels: str, counted: list[int], gauges: Mapping[int, int], layers: Collection[str]
    ) -> Lines:
        """Return the lines of what a port has whoever asks; those of the middleware that it uses always."""
        numbers = [0] * EDGE_COLUMNS + counted[EDGE_COLUMNS:]
        for column, number in gauges.items():
            numbers[column] = number
        lines: Lines = {}
        for writer in self._of_ports:
            writer.write(lines, labels, numbers, writer.always or writer.middleware in layers)
        return lines


class _Writer:
    """Writes the lines of one family."""

    def __init__(self, family: PortFamily) -> None:
        shared = len(PORT_LABELS) + (len(SOURCE_LABELS) if family.by_source else 0)
        self._name = family.name
        self._series = [
            (f"{_further(family.labels[shared:], each)}}}", each.column, each.usual) for each in family.series
        ]
        self._gates = family.gate or tuple(each.column for each in family.series)
        self.middleware = family.middleware
        self.always = family.always

    def write(self, lines: Lines, labels: str, numbers: Sequence[int], always: bool) -> None:
        """Add the family's lines, if it has something to tell."""
        if not always and not any(numbers[column] for column in self._gates):
            return
        start = f"{self._name}{{{labels}"
        lines[self._name] = [
            f"{start}{further} {numbers[column]}\n"
            for further, column, usual in self._series
            if usual or numbers[column]
        ]


def _further(labels: Sequence[str], series: Series) -> str:
    """Return the label that a family has besides those of its port, as text after them."""
    return "".join(f',{label}="{series.value}"' for label in labels)


def _write_histogram(
    lines: Lines, labels: str, numbers: Sequence[int], exemplars: Mapping[int, Exemplar]
) -> None:
    totals = list(accumulate(numbers[DURATION_BUCKETS:DURATION_SUM]))
    if not totals[-1]:
        return
    start = f'{DURATION.name}_bucket{{{labels},le="'
    written = lines[DURATION.name] = [
        *(f'{start}{le}"}} {total}\n' for le, total in zip(_LES, totals, strict=True)),
        f"{DURATION.name}_sum{{{labels}}} {numbers[DURATION_SUM] / 1e6!r}\n",
        f"{DURATION.name}_count{{{labels}}} {totals[-1]}\n",
    ]
    for bucket, exemplar in exemplars.items():
        if numbers[DURATION_BUCKETS + bucket]:
            written[bucket] = f"{written[bucket][:-1]} {exemplar.text()}\n"


def port_labels(service: str, namespace: str, port: str) -> str:
    """Return the labels of a port without braces, values escaped."""
    return f'service="{_escape(service)}",namespace="{_escape(namespace)}",port="{port}"'


def source_labels(namespace: str, workload: str) -> str:
    """Return the labels of a source without braces, values escaped."""
    return f'source_namespace="{_escape(namespace)}",source_workload="{_escape(workload)}"'


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def series_of(lines: Lines) -> int:
    """Return how many time series these are."""
    return sum(map(len, lines.values()))
