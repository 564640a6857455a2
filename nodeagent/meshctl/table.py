"""A table for people, for terminals of any width. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from nodeagent.meshctl.plain import plain

GAP: Final = "  "
LEAST: Final = 20
"""A terminal that says it is narrower is treated as if it had so many characters."""


class Table(msgspec.Struct, frozen=True):
    """Rows below a row of titles. The first column names a row."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 0
    """How many of the last columns are aligned to the right."""

    def lines(self, width: int | None = None) -> Iterator[str]:
        """Yield the table; where it is wider than `width`, each row as lines of its own."""
        rows = [[plain(cell) for cell in row] for row in self.rows]
        table = [self.titles, *rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        if width is not None and sum(widths) + len(GAP) * (len(widths) - 1) > width:
            yield from self._stacked(rows, max(width, LEAST))
            return
        first_number = len(self.titles) - self.numbers
        for row in table:
            cells = (
                cell.rjust(size) if at >= first_number else cell.ljust(size)
                for at, (cell, size) in enumerate(zip(row, widths, strict=True))
            )
            yield GAP.join(cells).rstrip()

    def _stacked(self, rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
        indent = max(map(len, self.titles[1:]), default=0) + 2 * len(GAP)
        for row in rows:
            yield from wrapped(f"{self.titles[0]} {row[0]}", width, len(GAP))
            for title, cell in zip(self.titles[1:], row[1:], strict=True):
                if cell not in ("", "-"):
                    label = f"{GAP}{title}".ljust(indent)
                    yield from wrapped(label + cell, width, min(indent, width // 2))


def wrapped(line: str, width: int, indent: int) -> list[str]:
    """Return a line as lines that are not longer than `width`; those after the first are indented."""
    return textwrap.wrap(
        line, width, subsequent_indent=" " * indent, break_on_hyphens=False, drop_whitespace=True
    ) or [""]
