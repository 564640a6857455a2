"""Reports malformed packets, but does not let their sender fill the log."""

from __future__ import annotations

import msgspec
import structlog

INTERVAL = 10.0
"""Seconds between two lines."""

log = structlog.get_logger()


class MalformedReport(msgspec.Struct, frozen=True):
    """How many malformed packets came since the last report, and from where the last of them did."""

    count: int
    source: str


class MalformedTally:
    """Gathers malformed packets into at most one report every `interval` seconds."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._next_report = float("-inf")
        self._count = 0
        self._source = ""

    def add(self, source: str) -> None:
        """Count one packet from the address `source`."""
        self._count += 1
        self._source = source

    def take(self, now: float) -> MalformedReport | None:
        """Return a report if there is something to report and it is time; `now` is in seconds."""
        if not self._count or now < self._next_report:
            return None
        report = MalformedReport(self._count, self._source)
        self._count = 0
        self._next_report = now + self._interval
        return report


def log_malformed(report: MalformedReport) -> None:
    """Write the one line that stands for all packets of a report."""
    log.warning("dns_malformed_query", count=report.count, source=report.source)
