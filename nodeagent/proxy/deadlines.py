"""Time limits: there are many, and most are cancelled, so setting one costs less than a timer of the loop.

Deadlines are kept in buckets by the time when they pass, and the loop has one timer, for the next bucket. A
deadline passes up to 1/64 of its length late, at least a few milliseconds, so that many share a bucket.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Final

FINEST: Final = 4
"""Milliseconds; a power of two, as all widths of buckets are."""


def _nothing() -> None:
    """What a cancelled deadline would call."""


class Deadline:
    """Calls `call()` unless it is cancelled before. Made by `Deadlines.set`."""

    __slots__ = ("_bucket", "call")

    def __init__(self, call: Callable[[], None], bucket: dict[Deadline, None] | None) -> None:
        self.call = call
        self._bucket = bucket

    @property
    def runs(self) -> bool:
        """Whether it may still pass."""
        return self._bucket is not None

    def cancel(self) -> None:
        """Cancel it; nothing happens if it has passed."""
        bucket = self._bucket
        if bucket is not None:
            self._bucket = None
            self.call = _nothing  # what it led to mostly leads back here: no work for the collector
            bucket.pop(self, None)

    def passed(self) -> None:
        """Note that its time has come, and do what it is for."""
        self._bucket = None
        call, self.call = self.call, _nothing
        call()


class Deadlines:
    """The deadlines of one loop. `now` is a clock in seconds that agrees with the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self._loop = loop
        self._now = now
        self._buckets: dict[int, dict[Deadline, None]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0

    def set(self, seconds: float, call: Callable[[], None]) -> Deadline:
        """Have `call` called when this many seconds have passed."""
        milliseconds = max(int(seconds * 1000), 1)
        width = max(FINEST, 1 << max((milliseconds >> 6).bit_length() - 1, 0))
        when = -(-(int(self._now() * 1000) + milliseconds) // width) * width
        bucket = self._buckets.get(when)
        if bucket is None:
            bucket = self._buckets[when] = {}
            heapq.heappush(self._order, when)
            if self._timer is None or when < self._armed_for:
                self._arm()
        deadline = Deadline(call, bucket)
        bucket[deadline] = None
        return deadline

    def run(self) -> None:
        """Call what is due now."""
        now = int(self._now() * 1000)
        while self._order and self._order[0] <= now:
            bucket = self._buckets.pop(heapq.heappop(self._order))
            while bucket:  # what is called may cancel others of the same bucket
                bucket.popitem()[0].passed()

    def close(self) -> None:
        """Forget everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()
        self._order.clear()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = self._order[0]
        delay = max(self._armed_for / 1000 - self._now(), 0)
        self._timer = self._loop.call_later(delay + 0.001, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self.run()
        self._rearm()

    def _rearm(self) -> None:
        if self._order and self._timer is None:  # what was called may have set it
            self._arm()
