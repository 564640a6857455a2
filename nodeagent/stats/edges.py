"""What each source asks of each port: the counters of an edge, in rows of a worker's memory.

An edge is a port of a Service and a source, `namespace/kind/name` of the client's workload (`nodeagent.
worker.sources`). Its row has the first `EDGE_COLUMNS` columns of a slot, at the same places, and each request
is counted once: in the row of its edge, or in the slot of its port if the edge has none. So the numbers of a
port are those of its slot and all its rows together.

An edge has no row if its port has `MOST_SOURCES` already, if the worker has no row left, or if its name is
too long. The row of an edge that was idle for `IDLE` seconds, and those of a port that leaves the plan, are
free again: what they have counted is added to the slot of the port (`fold`). A worker may be killed at any
moment, also within that. So the sums are first written down apart (`_SUMS`), then which row it is (`_ROW`),
and only then into the slot; the next worker finishes what it finds, once.

    folds | row | slot | sums          behind them the table of `nodeagent.stats.rows`

`folds` is odd while something moves, so that a reader knows whether slot and rows belong together.
"""

from __future__ import annotations

from operator import add
from typing import Final

from nodeagent.stats.columns import EDGE_COLUMNS
from nodeagent.stats.rows import NamedRows, Shape

ROWS: Final = 4096
MOST_SOURCES: Final = 128
"""Of one port, in one worker. A node has at most 110 pods, unless somebody raises that limit."""
IDLE: Final = 900.0
"""Seconds."""
SWEPT: Final = 256
"""Rows that are looked at in one second."""

FOLDS: Final = 0
_ROW: Final = 1
_SLOT: Final = 2
_SUMS: Final = 3
ROWS_AT: Final = -(-(_SUMS + EDGE_COLUMNS) // 8) * 8
SHAPE: Final = Shape(name_bytes=296, counters=EDGE_COLUMNS, rows=ROWS)
CELLS: Final = ROWS_AT + SHAPE.cells
"""Of all."""


class EdgeRows:
    """The rows of one worker, as it writes them. `cells` are all its counters, slots included; the rows begin
    at `first`, and without memory for them there are none.
    """

    def __init__(self, cells: memoryview, first: int | None = None) -> None:
        self._cells = cells
        self._first = first if first is not None else len(cells)
        """Of the memory of edges."""
        self._rows_at = self._first + ROWS_AT
        self._ports: dict[str, PortEdges] = {}
        """Those that have rows, by owner."""
        self._seen: dict[int, tuple[int, float]] = {}
        """By row: what it had counted at the last look, and since when that is so."""
        self._queue: list[tuple[PortEdges, str, int]] = []
        self.epoch = 0
        """Grows whenever a source may belong to another row than before."""
        if first is not None and self._cells[first + FOLDS] % 2:
            self._finish()
        self.table = NamedRows(cells[self._rows_at :], SHAPE)

    def of_port(self, service: str, port: int, slot: int, alone: bool) -> PortEdges:
        """Return the edges of a port; `slot` is its first cell. Not `alone` there, it gets no rows."""
        return PortEdges(self, f"{service} {port}", slot, alone)

    def forget(self) -> None:
        """Have each connection find its row again: sources may have changed."""
        self.epoch += 1

    def tick(self, now: float) -> None:
        """Once a second: look at some rows, and free those that have been idle for long."""
        if not self._queue:
            self._queue = [
                (port, source, at) for port in self._ports.values() for source, at in port.rows.items()
            ]
            known = {at for _, _, at in self._queue}
            self._seen = {at: seen for at, seen in self._seen.items() if at in known}
        for _ in range(min(SWEPT, len(self._queue))):
            port, source, at = self._queue.pop()
            if port.rows.get(source) != at:
                continue
            first = self.first_of(at)
            counted = sum(self._cells[first : first + EDGE_COLUMNS].tolist())
            before, since = self._seen.get(at, (-1, now))
            if counted != before:
                self._seen[at] = (counted, now)
            elif now - since >= IDLE:
                port.drop(source)

    def first_of(self, at: int) -> int:
        """Return the first counter of a row, as a cell of all counters."""
        return self._rows_at + self.table.counter(at, 0)

    def sum_of(self, first: int, count: int) -> int:
        """Return the sum of so many cells."""
        return sum(self._cells[first : first + count].tolist())

    def used_by(self, port: PortEdges) -> None:
        """Take note of a port that has rows."""
        self._ports[port.owner] = port

    def unused_by(self, port: PortEdges) -> None:
        """Take note of a port that has none any more."""
        if self._ports.get(port.owner) is port:
            del self._ports[port.owner]

    def fold(self, at: int, slot: int) -> None:
        """Add what a row has counted to the slot that begins at this cell, and free the row."""
        cells, first, row = self._cells, self._first, self.first_of(at)
        sums = list(
            map(add, cells[slot : slot + EDGE_COLUMNS].tolist(), cells[row : row + EDGE_COLUMNS].tolist())
        )
        for number, value in enumerate(sums):
            cells[first + _SUMS + number] = value
        cells[first + _SLOT] = slot
        cells[first + _ROW] = self._rows_at + at
        cells[first + FOLDS] += 1
        self._finish()
        self.table.give_back((at,))
        self.epoch += 1

    def _finish(self) -> None:
        """Move what is written down; from here to the end nothing changes if it is done twice."""
        cells, first = self._cells, self._first
        slot, row = cells[first + _SLOT], cells[first + _ROW]
        cells[slot : slot + EDGE_COLUMNS] = cells[first + _SUMS : first + _SUMS + EDGE_COLUMNS]
        cells[row] = 0  # its length: it is free
        cells[first + FOLDS] += 1


class PortEdges:
    """The edges of one port. `close` it when the port leaves the plan: from then on its slot counts."""

    __slots__ = ("_alone", "_slot", "_table", "owner", "rows")

    def __init__(self, table: EdgeRows, owner: str, slot: int, alone: bool) -> None:
        self._table = table
        self._slot = slot
        self._alone = alone
        self.owner = owner
        self.rows: dict[str, int] = table.table.claim(owner)
        """By source."""
        if self.rows:
            table.used_by(self)
            if not alone:
                self.close()

    def find(self, source: str) -> int:
        """Return the first cell of what counts the requests of a source: of its row, or of the slot."""
        at = self.rows.get(source)
        if at is None:
            if not self._alone or len(self.rows) >= MOST_SOURCES:
                return self._slot
            at = self._table.table.take(self.owner, source)
            if at is None:
                return self._slot
            self.rows[source] = at
            self._table.used_by(self)
        return self._table.first_of(at)

    def total(self, column: int, columns: int) -> int:
        """Return the sum of so many columns over the slot and all rows; 0 if others share the slot."""
        if not self._alone:
            return 0
        firsts = (self._slot, *(self._table.first_of(at) for at in self.rows.values()))
        return sum(self._table.sum_of(first + column, columns) for first in firsts)

    def move(self, slot: int, alone: bool) -> None:
        """Count in another slot from now on."""
        if (slot, alone) != (self._slot, self._alone):
            self.close()
            self._slot, self._alone = slot, alone
            self._table.forget()

    def drop(self, source: str) -> None:
        """Free the row of a source."""
        self._table.fold(self.rows.pop(source), self._slot)
        if not self.rows:
            self._table.unused_by(self)

    def close(self) -> None:
        """Free all rows, and take none any more."""
        self._alone = False
        for source in list(self.rows):
            self.drop(source)
