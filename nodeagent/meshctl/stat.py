"""The table of services that `meshctl stat` and `meshctl top` print, for terminals of any width. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, get_args

import click

from nodeagent.log.console import printable
from nodeagent.meshctl.said import answered_line, why_line
from nodeagent.stats.overview import Live, ServiceName, ServiceRow
from nodeagent.stats.signals import Signals

SortBy = Literal["name", "rate", "success", "p50", "p95", "p99"]
SORTS: Final[tuple[SortBy, ...]] = get_args(SortBy)
COLUMNS: Final = ("SERVICE", "RATE", "SUCCESS", "P50", "P95", "P99", "5XX", "CALLERS", "NODES")
OBJECTIVE: Final = "OBJECTIVE"
"""The last column, if a Service has one."""
DROPPED: Final = ("NODES", "CALLERS", "5XX", "P50", "P95")
"""Columns that a narrow terminal does not get, in the order in which they are left out; then `OBJECTIVE`."""
LEAST_NAME: Final = 12
"""Characters of a name that are shown at least, before columns are left out."""
GAP: Final = "  "
GOOD: Final = 0.99
"""A share of success below which a row is marked."""
BAD: Final = 0.95


def sort_services(services: Sequence[ServiceRow], by: SortBy) -> list[ServiceRow]:
    """Return the rows in order: names from A, success from the lowest, all else from the highest."""

    def key(row: ServiceRow) -> tuple[Any, ...]:
        name, signals = (row.service, row.namespace), row.signals
        if by == "name":
            return name
        if by == "success":
            return (1.0 if signals.success is None else signals.success, -signals.rate, name)
        number = getattr(signals, by)
        return (0.0 if number is None else -number, name)

    return sorted(services, key=key)


def table_lines(
    live: Live, by: SortBy = "name", width: int | None = None, colour: bool = False, most: int | None = None
) -> Iterator[str]:
    """Yield the header and a row for each Service, at most `most`, none longer than `width`."""
    services = sort_services(live.overview.services, by)
    callers: dict[ServiceName, int] = {}
    for edge in live.overview.edges:
        name = ServiceName(edge.namespace, edge.service)
        callers[name] = callers.get(name, 0) + 1
    rows = [
        (*_cells(row, callers.get(ServiceName(row.namespace, row.service), 0)), row.objective or "-")
        for row in services[:most]
    ]
    lines = [(*COLUMNS, OBJECTIVE), *rows]
    if not any(row.objective for row in services):
        lines = [cells[:-1] for cells in lines]
    table, widths = _fit(lines, width)
    for number, cells in enumerate(table):
        first, *numbers = (cells[at].rjust(widths[at]) for at in range(len(cells)))
        line = GAP.join((cells[0].ljust(len(first)), *numbers))
        if colour:
            line = click.style(line, bold=True) if number == 0 else _paint(line, services[number - 1].signals)
        yield line.rstrip()


def _paint(line: str, signals: Signals) -> str:
    if signals.success is None or signals.success >= GOOD:
        return line
    return click.style(line, fg="yellow" if signals.success >= BAD else "red")


def _cells(row: ServiceRow, callers: int) -> tuple[str, ...]:
    signals = row.signals
    return (
        printable(str(ServiceName(row.namespace, row.service))),
        show_rate(signals.rate),
        show_share(signals.success),
        *(show_seconds(each) for each in (signals.p50, signals.p95, signals.p99)),
        str(signals.classes.get("5xx", 0)),
        str(callers),
        str(row.nodes),
    )


def _fit(table: list[tuple[str, ...]], width: int | None) -> tuple[list[tuple[str, ...]], list[int]]:
    """Leave columns out, then cut names, until no row is longer than `width`."""
    left_out = [name for name in (*DROPPED, OBJECTIVE) if name in table[0]]
    while True:
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        if width is None or sum(widths) + len(GAP) * (len(widths) - 1) <= width:
            return table, widths
        room = width - sum(widths[1:]) - len(GAP) * (len(widths) - 1)
        if room >= min(LEAST_NAME, widths[0]) or not left_out:
            room = max(room, 2)
            table = [(cut(cells[0], room), *cells[1:]) for cells in table]
            return table, [min(widths[0], room), *widths[1:]]
        gone = table[0].index(left_out.pop(0))
        table = [(*cells[:gone], *cells[gone + 1 :]) for cells in table]


def cut(text: str, width: int) -> str:
    """Return a text that is not longer than `width`; what is missing shows as `…`."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def show_rate(rate: float) -> str:
    """Return requests per second: `0.3/s`, `42/s`, `1.2k/s`."""
    if rate >= 9999.5:
        return f"{rate / 1000:.0f}k/s"
    if rate >= 999.5:
        return f"{rate / 1000:.1f}k/s"
    return f"{rate:.1f}/s" if rate < 9.95 else f"{rate:.0f}/s"


def show_share(share: float | None) -> str:
    """Return a share as per cent; what is not all never shows as 100 %."""
    if share is None:
        return "-"
    if share < 1.0:
        return f"{min(share * 100, 99.99):.2f}%"
    return "100%"


def show_seconds(seconds: float | None) -> str:
    """Return a duration of three digits: `0.42ms`, `12ms`, `1.2s`."""
    if seconds is None:
        return "-"
    if seconds >= 0.9995:
        return f"{seconds:.1f}s"
    return f"{seconds * 1000:.0f}ms" if seconds >= 0.00995 else f"{seconds * 1000:.2g}ms"


def summary_lines(live: Live, shown: int | None = None) -> Iterator[str]:
    """Yield why agents have not answered, what is missing, and what the table is of."""
    overview = live.overview
    for agent in live.agents:
        if agent.reason:
            yield why_line(agent.node, agent.agent, agent.reason)
    if overview.left_out:
        yield f"{overview.left_out} ports and sources are missing: the agents had no room for them"
    count = len(overview.services)
    services = f"{count} Service{'' if count == 1 else 's'} used in the last {overview.window:.0f} s"
    some = f" ({shown} shown)" if shown is not None and shown < count else ""
    yield f"{services}{some}; {answered_line(live.agents)}"
