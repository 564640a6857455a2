"""Writes what workers have counted by method of gRPC as Prometheus text, straight from their memory."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from middleware.grpc import GrpcStatus
from nodeagent.admin.families import METHODS
from nodeagent.stats.methods import read_rows
from nodeagent.stats.region import StatsRegion

PIECE_ROWS: Final = 256


def method_lines(labels: Mapping[tuple[str, int], str], regions: Sequence[StatsRegion]) -> Iterator[bytes]:
    """Yield the lines, summed over all workers, in pieces; some pieces are empty.

    `labels` are those of the plan's ports, by Service and port; other ports are not shown.
    """
    merged: dict[tuple[str, str], list[int]] = {}
    for region in regions:
        for count, row in enumerate(read_rows(region.methods)):
            if count % PIECE_ROWS == 0:
                yield b""
            port = labels.get((row.service, row.port)) if row is not None else None
            if row is None or port is None:
                continue
            before = merged.get((port, row.method))
            calls = row.calls if before is None else list(map(operator.add, before, row.calls))
            merged[port, row.method] = calls
    shown = sorted(merged.items())
    for at in range(0, len(shown), PIECE_ROWS):
        yield "".join(_lines(shown[at : at + PIECE_ROWS])).encode()


def _lines(rows: Sequence[tuple[tuple[str, str], list[int]]]) -> Iterator[str]:
    for (port, method), calls in rows:
        start = f'{METHODS.name}{{{port},method="{method}",grpc_status="'
        for status, number in zip(GrpcStatus, calls, strict=True):
            if number:
                yield f'{start}{status.name}"}} {number}\n'
