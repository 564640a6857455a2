"""What workers have counted by method of gRPC: summed over workers, and as Prometheus text."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from middleware.grpc import GrpcStatus
from nodeagent.admin.families import METHODS
from nodeagent.stats.methods import read_rows
from nodeagent.stats.region import SlotKey, StatsRegion

PIECE_ROWS: Final = 256


class MethodCounts:
    """Calls by method and status, of ports."""

    def __init__(self) -> None:
        self._found: dict[SlotKey, dict[str, list[int]]] = {}

    def of(self, key: SlotKey) -> Mapping[str, list[int]]:
        """Return the calls of a port by method; each list is by status."""
        return self._found.get(key, {})

    def add(self, key: SlotKey, method: str, calls: list[int]) -> None:
        """Add what a worker has counted."""
        methods = self._found.setdefault(key, {})
        before = methods.get(method)
        methods[method] = calls if before is None else list(map(operator.add, before, calls))


def read_methods(
    counts: MethodCounts, ports: Mapping[tuple[str, int], SlotKey], regions: Sequence[StatsRegion]
) -> Iterator[None]:
    """Add the calls of these ports, by Service and port as rows are named, with a pause now and then."""
    for region in regions:
        for count, row in enumerate(read_rows(region.methods)):
            if count % PIECE_ROWS == 0:
                yield
            key = ports.get((row.service, row.port)) if row is not None else None
            if row is not None and key is not None:
                counts.add(key, row.method, row.calls)


def method_lines(labels: str, methods: Mapping[str, list[int]]) -> dict[str, list[str]]:
    """Return the lines of a port, by the name of the family; none without calls."""
    lines = [
        f'{METHODS.name}{{{labels},method="{method}",grpc_status="{status.name}"}} {number}\n'
        for method, calls in sorted(methods.items())
        for status, number in zip(GrpcStatus, calls, strict=True)
        if number
    ]
    return {METHODS.name: lines} if lines else {}
