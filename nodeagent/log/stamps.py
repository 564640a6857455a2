"""The time of a line, as lines show it."""

from __future__ import annotations

from datetime import UTC, datetime


def utc(moment: float) -> str:
    """Return a Unix time as lines show it: `2026-03-01T09:30:00.123456Z`."""
    return Stamps().at(moment)


class Stamps:
    """Makes the times of many lines. The part that is the same for a whole second is made once."""

    def __init__(self) -> None:
        self._second = -1
        self._beginning = ""

    def at(self, moment: float) -> str:
        """Return a Unix time as lines show it."""
        second = int(moment)
        if second != self._second:
            self._beginning = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            self._second = second
        microseconds = str(1_000_000 + int((moment - second) * 1e6))  # a format of six digits takes longer
        return f"{self._beginning}{microseconds[1:]}Z"
