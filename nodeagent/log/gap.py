"""What the log has in place of missing lines, as a value."""

from __future__ import annotations

from collections import Counter

import msgspec


class Gap(msgspec.Struct):
    """Lines that are missing at one place of the log. Times are Unix times."""

    since: float
    until: float
    lines: int = 0
    about: Counter[str] = msgspec.field(default_factory=Counter)
    """How many, by Service. Lines about no Service count in `lines` only."""
    refused: str = ""
    """The error of the system when the lines were written; empty: there was no room for them."""

    def add(self, about: str, now: float) -> None:
        """Count one more line."""
        self.lines += 1
        self.until = now
        if about:
            self.about[about] += 1
