"""What a peer may send us (RFC 9113 section 5.2): windows that open as their bytes are passed on. Pure.

The connection's window opens on receipt, a stream's when its bytes have been passed on: the other way round
one reader that does not read would stop every stream of its connection. So what waits is bounded by the
streams' windows. They start at 64 KiB and double while the reader keeps up, as far as a budget goes.
"""

from __future__ import annotations

from typing import Final

from nodeagent.proxy.budget import Budget
from nodeagent.proxy.http2.frames import DEFAULT_WINDOW

STREAM_WINDOW: Final = DEFAULT_WINDOW
LARGEST_STREAM_WINDOW: Final = 1024 * 1024
CONNECTION_WINDOW: Final = 1024 * 1024


class ReceiveWindow:
    """What the peer may still send on a stream, or on the connection.

    Always `left + waiting + owed == size`: what it may still send, what has come and waits, and what has been
    passed on and not been credited yet.
    """

    __slots__ = ("_borrowed", "_budget", "left", "owed", "size")

    def __init__(self, size: int, budget: Budget | None = None) -> None:
        self.size = size
        self.left = size
        self.owed = 0
        self._budget = budget
        self._borrowed = 0

    @property
    def waiting(self) -> int:
        """Bytes that have come and not been passed on."""
        return self.size - self.left - self.owed

    def received(self, size: int) -> int:
        """Count bytes in; return 0, or -1: the peer was not allowed to send them."""
        self.left -= size
        return 0 if self.left >= 0 else -1

    def received_and_passed_on(self, size: int) -> int:
        """Count in and out at once; return by how much the window opens now, or -1: it was not allowed."""
        self.left = left = self.left - size
        if left < 0:
            return -1
        self.owed = owed = self.owed + size
        return self._open() if owed * 2 >= self.size else 0

    def passed_on(self, size: int) -> int:
        """Count bytes out; return by how much the window opens now, which is mostly 0.

        It opens by at least half of its size at a time.
        """
        self.owed = owed = self.owed + size
        return self._open() if owed * 2 >= self.size else 0

    def _open(self) -> int:
        owed, budget, now = self.owed, self._budget, self.size
        if (
            budget is not None
            and owed + self.left == now  # nothing waits: the reader keeps up
            and now < LARGEST_STREAM_WINDOW
            and budget.borrow(now)
        ):
            self._borrowed += now
            self.size += now
            owed += now
        self.left += owed
        self.owed = 0
        return owed

    def close(self) -> None:
        """The stream has ended: give back what was borrowed, and borrow nothing more.

        What has waited may still be passed on after that.
        """
        budget, self._budget = self._budget, None
        if budget is not None and self._borrowed:
            budget.give_back(self._borrowed)
            self._borrowed = 0
