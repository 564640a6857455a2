"""gRPC calls by method, in rows of a worker's memory that the agent reads without asking it.

A client may send any path, so a path does not count as a method because it was requested: it gets a row once
an endpoint has answered it as a method (`GrpcExchange` says so), if it looks like one, and if its port has
rows left. All other calls are counted in one row of their port, "other". So there are never more than
`MOST_METHODS` names for a port, and `ROWS` rows for a worker, whatever clients send; a call beyond that is
still counted by its status with the others of its port (`columns.GRPC_CALLS`).

The rows are those of `nodeagent.stats.rows`; the name of one consists of Service, port and method. The rows
of a port are free again when the port leaves the plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from middleware.grpc import GrpcStatus
from nodeagent.stats.rows import NamedRows, Shape, read_counters, read_tags

ROWS: Final = 4096
MOST_METHODS: Final = 64
"""Of one port, in one worker."""
OTHER: Final = "other"
"""Instead of a method's name, which has a slash in it."""

SHAPE: Final = Shape(name_bytes=296, counters=len(GrpcStatus), rows=ROWS)
CELLS: Final = SHAPE.cells

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
        self._rows = NamedRows(cells, SHAPE)

    def of_port(self, service: str, port: int) -> PortMethods:
        """Return the methods of a port, which has none yet."""
        owner = f"{service} {port}"
        return PortMethods(self._rows, owner, self._rows.claim(owner))


class PortMethods:
    """The methods of one port. `close` it when the port leaves the plan."""

    __slots__ = ("_other", "_owner", "_rows", "_table")

    def __init__(self, table: NamedRows, owner: str, rows: dict[str, int]) -> None:
        self._table = table
        self._owner = owner
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
        self._table.cells[self._table.counter(row, status)] += 1

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
        row = self._table.take(self._owner, match[1].decode())
        if row is not None:
            self._rows[path] = row
        return row

    def _row_of_others(self) -> int | None:
        if self._other is None:
            self._other = self._table.take(self._owner, OTHER)
        return self._other


def read_rows(cells: memoryview) -> Iterator[MethodCalls | None]:
    """Yield what the rows of a worker say; None for those that say nothing."""
    for tag in read_tags(cells, SHAPE):
        calls = read_counters(cells, tag.at, tag.epoch, SHAPE) if tag is not None else None
        if tag is None or calls is None:
            yield None
            continue
        service, _, port = tag.owner.rpartition(" ")
        yield MethodCalls(service, int(port), tag.name, memoryview(calls).cast("q").tolist())
