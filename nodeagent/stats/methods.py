"""gRPC calls by method, in rows of a worker's memory that the agent reads without asking it.

A client may send any path, so a path does not count as a method because it was requested: it gets a row once
an endpoint has answered it as a method (`GrpcExchange` says so), if it looks like one, and if its port has
rows left. All other calls are counted in one row of their port, "other". So there are never more than
`MOST_METHODS` names for a port, and `ROWS` rows for a worker, whatever clients send; a call beyond that is
still counted by its status with the others of its port (`columns.GRPC_CALLS`).

    rows ever used | row | row | ...
    row:  length | epoch | name | calls by status

The first number only grows, and rows after it are not read: memory that was never used costs nothing. The
name consists of Service, port and method. Only the worker writes a row; a row is free if the length is 0. The
length is written last and cleared first, and the epoch grows with each new name, so that a reader knows
whether all that it has read belongs together. The next worker with this memory continues with the rows that
it finds; the rows of a port are free again when the port leaves the plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from middleware.grpc import GrpcStatus

ROWS: Final = 4096
MOST_METHODS: Final = 64
"""Of one port, in one worker."""
OTHER: Final = "other"
"""Instead of a method's name, which has a slash in it."""

_USED: Final = 0
_ROWS_AT: Final = 8
_LENGTH: Final = 0
_EPOCH: Final = 1
_NAME: Final = 2
_NAME_CELLS: Final = 37
_NAME_BYTES: Final = 8 * _NAME_CELLS
_CALLS: Final = _NAME + _NAME_CELLS
ROW: Final = _CALLS + len(GrpcStatus)
"""Cells of a row: whole cache lines."""
CELLS: Final = _ROWS_AT + ROWS * ROW
"""Of all."""

_METHOD: Final = re.compile(rb"/([A-Za-z_][\w.]{0,120}/[A-Za-z_]\w{0,60})", re.ASCII)
"""As protobuf spells it: `/package.Service/Method`."""


class MethodCalls(NamedTuple):
    """A row, as it is read."""

    service: str
    """`namespace/name`."""
    port: int
    method: str
    """`package.Service/Method`, or `OTHER`."""
    calls: list[int]
    """By status."""


class MethodRows:
    """The rows of one worker, as it writes them. `cells` may hold those of its predecessor."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        self._free: list[int] = []
        self._found: dict[tuple[str, int], dict[str, int]] = {}
        """Of the predecessor, by Service and port."""
        used = cells[_USED] if len(cells) else 0
        for row in range(_ROWS_AT, _ROWS_AT + used * ROW, ROW):
            known = _read(cells, row)
            if known is None:
                self._free.append(row)
            else:
                self._found.setdefault((known.service, known.port), {})[known.method] = row

    def of_port(self, service: str, port: int) -> PortMethods:
        """Return the methods of a port, which has none yet."""
        return PortMethods(self, service, port, self._found.pop((service, port), {}))

    def take(self, service: str, port: int, method: str) -> int | None:
        """Return the first cell of a new row; None if there is none left, or the name is too long."""
        name = f"{service} {port} {method}".encode()
        if len(name) > _NAME_BYTES:
            return None
        row = self._free_row()
        if row is None:
            return None
        cells = self._cells
        cells[row + _EPOCH] += 1
        cells[row + _NAME : row + ROW] = memoryview(name.ljust(8 * (ROW - _NAME), b"\0")).cast("q")
        cells[row + _LENGTH] = len(name)
        return row

    def _free_row(self) -> int | None:
        if self._free:
            return self._free.pop()
        cells = self._cells
        row = _ROWS_AT + cells[_USED] * ROW if len(cells) else 0
        if row + ROW <= len(cells):
            cells[_USED] += 1
            return row
        for rows in self._found.values():  # of ports that left while there was no worker
            self.give_back(rows.values())
        self._found.clear()
        return self._free.pop() if self._free else None

    def give_back(self, rows: Iterable[int]) -> None:
        """Let rows be used for something else."""
        for row in rows:
            self._cells[row + _LENGTH] = 0
            self._free.append(row)

    def count(self, row: int, status: GrpcStatus) -> None:
        """Count a call."""
        self._cells[row + _CALLS + status] += 1


class PortMethods:
    """The methods of one port. `close` it when the port leaves the plan."""

    __slots__ = ("_other", "_port", "_rows", "_service", "_table")

    def __init__(self, table: MethodRows, service: str, port: int, rows: dict[str, int]) -> None:
        self._table = table
        self._service = service
        self._port = port
        self._other = rows.pop(OTHER, None)
        self._rows = {f"/{method}".encode(): row for method, row in rows.items()}
        """By path."""

    def count(self, path: bytes, status: GrpcStatus, exists: bool) -> None:
        """Count a call; `exists` says that an endpoint has answered it as a method that there is."""
        row = self._rows.get(path)
        if row is None:
            row = self._learn(path) if exists and len(self._rows) < MOST_METHODS else None
            if row is None:
                row = self._row_of_others()
                if row is None:
                    return
        self._table.count(row, status)

    def close(self) -> None:
        """Give its rows back."""
        rows = [*self._rows.values()]
        if self._other is not None:
            rows.append(self._other)
        self._table.give_back(rows)
        self._rows.clear()
        self._other = None

    def _learn(self, path: bytes) -> int | None:
        match = _METHOD.fullmatch(path)
        if match is None:
            return None
        row = self._table.take(self._service, self._port, match[1].decode())
        if row is not None:
            self._rows[path] = row
        return row

    def _row_of_others(self) -> int | None:
        if self._other is None:
            self._other = self._table.take(self._service, self._port, OTHER)
        return self._other


def read_rows(cells: memoryview) -> Iterator[MethodCalls | None]:
    """Yield what the rows of a worker say; None for those that say nothing."""
    end = _ROWS_AT + cells[_USED] * ROW
    for number, length in enumerate(cells[_ROWS_AT:end:ROW].tolist()):
        yield _read(cells, _ROWS_AT + number * ROW) if length else None


def _read(cells: memoryview, row: int) -> MethodCalls | None:
    """Return what a row says; None if it is free, or becomes another while it is read."""
    length, epoch = cells[row : row + _NAME]
    if not 0 < length <= _NAME_BYTES:
        return None
    name = cells[row + _NAME : row + _CALLS].tobytes()[:length]
    calls = cells[row + _CALLS : row + ROW].tolist()
    if (cells[row + _LENGTH], cells[row + _EPOCH]) != (length, epoch):
        return None
    service, port, method = name.decode().rsplit(" ", 2)
    return MethodCalls(service, int(port), method, calls)
