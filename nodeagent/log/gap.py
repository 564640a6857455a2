"""What stands in the log for lines that are missing, as a value."""

from __future__ import annotations

from collections import Counter

import msgspec


class Gap(msgspec.Struct):
    """Lines that are missing at one place of the log. Times are Unix times."""

    since: float
    until: float
    lines: int = 0
    about: Counter[str] = msgspec.field(default_factory=Counter)
    """How many, by what they were about; lines about nothing in particular are in `lines` alone."""
    refused: str = ""
    """What the system said when they were to be written; empty: there was no room for them."""

    def add(self, about: str, now: float) -> None:
        """Count one more line."""
        self.lines += 1
        self.until = now
        if about:
            self.about[about] += 1
