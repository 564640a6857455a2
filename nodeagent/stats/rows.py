"""A bounded table of named rows of counters, in memory that a worker writes and the agent reads.

    rows ever used | row | row | ...
    row:  length | epoch | name | counters

The first number only grows, and rows after it are not read: memory that was never used costs nothing. Only
the worker writes a row; a row is free if the length is 0. The length is written last and cleared first, and
the epoch grows with each new name, so that a reader knows whether all that it has read belongs together. The
next worker with this memory continues with the rows that it finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_USED: Final = 0
_ROWS_AT: Final = 8
_LENGTH: Final = 0
_EPOCH: Final = 1
_NAME: Final = 2
_CACHE_LINE: Final = 8


class Shape:
    """The size of a table: bytes that a name may have, counters of a row, and rows."""

    __slots__ = ("cells", "counters", "counters_at", "name_bytes", "row")

    def __init__(self, name_bytes: int, counters: int, rows: int) -> None:
        self.name_bytes = name_bytes
        self.counters = counters
        self.counters_at = _NAME + -(-name_bytes // 8)
        """The first counter of a row, from its beginning."""
        self.row = -(-(self.counters_at + counters) // _CACHE_LINE) * _CACHE_LINE
        """Cells of a row: whole cache lines."""
        self.cells = _ROWS_AT + rows * self.row
        """Cells of all."""


class Tag(NamedTuple):
    """Which row is whose: the row's first cell, its epoch, its owner (`namespace/service port`), its name."""

    at: int
    epoch: int
    owner: str
    name: str


class NamedRows:
    """The rows of one worker, as it writes them. `cells` may hold those of its predecessor."""

    def __init__(self, cells: memoryview, shape: Shape) -> None:
        self.cells = cells
        self._shape = shape
        self._counters_at = shape.counters_at
        self._free: list[int] = []
        self._found: dict[str, dict[str, int]] = {}
        """The predecessor's rows by owner and name, until the owner claims them."""
        used = cells[_USED] if len(cells) else 0
        for at in range(_ROWS_AT, _ROWS_AT + used * shape.row, shape.row):
            tag = read_tag(cells, at, shape)
            if tag is None:
                self._free.append(at)
            else:
                self._found.setdefault(tag.owner, {})[tag.name] = at

    def claim(self, owner: str) -> dict[str, int]:
        """Return the rows that the predecessor made for this owner, by name."""
        return self._found.pop(owner, {})

    def take(self, owner: str, name: str) -> int | None:
        """Return the first cell of a new row; None if there is none left, or its names are too long.

        `name` has no space in it.
        """
        encoded = f"{owner} {name}".encode()
        shape = self._shape
        if len(encoded) > shape.name_bytes:
            return None
        at = self._free_row()
        if at is None:
            return None
        cells = self.cells
        cells[at + _EPOCH] += 1
        padded = encoded.ljust(8 * (shape.row - _NAME), b"\0")
        cells[at + _NAME : at + shape.row] = memoryview(padded).cast("q")
        cells[at + _LENGTH] = len(encoded)
        return at

    def _free_row(self) -> int | None:
        if self._free:
            return self._free.pop()
        cells, size = self.cells, self._shape.row
        at = _ROWS_AT + cells[_USED] * size if len(cells) else 0
        if at + size <= len(cells):
            cells[_USED] += 1
            return at
        for rows in self._found.values():  # of ports that left while there was no worker
            self.give_back(rows.values())
        self._found.clear()
        return self._free.pop() if self._free else None

    def give_back(self, rows: Iterable[int]) -> None:
        """Let rows be used for something else."""
        for at in rows:
            self.cells[at + _LENGTH] = 0
            self._free.append(at)

    def counter(self, at: int, number: int) -> int:
        """Return the cell of a counter of a row."""
        return at + self._counters_at + number


def read_tags(cells: memoryview, shape: Shape) -> Iterator[Tag | None]:
    """Yield which rows are whose; None for those that are free."""
    size = shape.row
    end = _ROWS_AT + cells[_USED] * size
    for number, length in enumerate(cells[_ROWS_AT:end:size].tolist()):
        yield read_tag(cells, _ROWS_AT + number * size, shape) if length else None


def read_marks(cells: memoryview, shape: Shape) -> tuple[list[int], list[int]]:
    """Return the lengths and epochs of all rows: while they are the same, so is what `read_tags` yields."""
    size = shape.row
    end = _ROWS_AT + cells[_USED] * size
    return cells[_ROWS_AT:end:size].tolist(), cells[_ROWS_AT + _EPOCH : end : size].tolist()


def read_tag(cells: memoryview, at: int, shape: Shape) -> Tag | None:
    """Return whose row it is; None if it is free, or becomes another's while it is read."""
    length, epoch = cells[at : at + _NAME]
    if not 0 < length <= shape.name_bytes:
        return None
    text = cells[at + _NAME : at + shape.counters_at].tobytes()[:length]
    if (cells[at + _LENGTH], cells[at + _EPOCH]) != (length, epoch):
        return None
    owner, _, name = text.decode().rpartition(" ")
    return Tag(at, epoch, owner, name)


def read_counters(cells: memoryview, at: int, epoch: int, shape: Shape) -> bytes | None:
    """Return the counters of a row, as they stand in memory; None if it is not that of the epoch any more."""
    first = at + shape.counters_at
    numbers = cells[first : first + shape.counters].tobytes()
    return numbers if cells[at + _LENGTH] and cells[at + _EPOCH] == epoch else None
