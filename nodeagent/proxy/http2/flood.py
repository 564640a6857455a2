"""How much a peer may do that is useless and costs us.

CVE-2016-6581, 2019-9511 to 9518, 2023-44487, 2025-8671; tests/http2/attacks.py has them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MOST_CONTROLS: Final = 1000
"""PING, SETTINGS, PRIORITY, WINDOW_UPDATE and empty or unknown frames that may come in a row."""
CONTROLS_PER_SECOND: Final = 100.0
MOST_RESETS: Final = 200
"""Streams that may be broken off in a row: reset soon after they began, or because of the peer's faults."""
RESETS_PER_SECOND: Final = 20.0
RAPID: Final = 0.5
"""Seconds. A stream that is reset later was limited by the number of streams already."""
SMALL_HEAD: Final = 1024
"""Bytes of a head that is not counted: as many of them as there may be streams are little."""
HEADS_AT_ONCE: Final = 128 * 1024
"""Bytes that the larger heads under way on a connection may have, whatever has come for them,"""
HEADS_PER_BYTE: Final = 64
"""and for each byte of header blocks. What honest heads repeat has room in the table once, so they are."""


class Inflation:
    """Compares heads with the header blocks that they came as: little on the wire may be much here."""

    __slots__ = ("_came", "_taken")

    def __init__(self) -> None:
        self._came = 0
        self._taken = 0
        """Bytes of heads: no fewer than are under way, and just those at the last look."""

    def takes(self, size: int, came: int, under_way: Callable[[], int]) -> bool:
        """Whether a head of `size` bytes, of a block of `came`, may be served beside those under way."""
        self._came += came
        most = HEADS_AT_ONCE + HEADS_PER_BYTE * self._came
        if self._taken + size > most:
            self._taken = under_way()
            if self._taken + size > most:
                return False
        self._taken += size
        return True


class Patience:
    """A store of patience that faults take from; time and useful work fill it again.

    Add to `left` for useful work; what is too much of it is cut off when some is spent.
    """

    __slots__ = ("_most", "_now", "_per_second", "_since", "left")

    def __init__(self, most: float, per_second: float, now: Callable[[], float]) -> None:
        self._most = self.left = most
        self._per_second = per_second
        self._now = now
        self._since = now()

    def spend(self, cost: float = 1.0) -> bool:
        """Take one; False if none is left."""
        self.left = left = min(self.left, self._most) - cost
        if left >= 0:
            return True
        now = self._now()  # looked at only now: the clock costs more than counting does
        self.left = min(left + (now - self._since) * self._per_second, self._most)
        self._since = now
        return self.left >= 0
