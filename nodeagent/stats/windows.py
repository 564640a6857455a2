"""Rolling windows that all workers of a node share, such as what a circuit breaker counts.

The memory holds `PLACES` places. A place has a head, which all workers read and any may write, and a row of
buckets for each worker, which only that worker writes: counting takes no lock, and a sum is read from all
rows. A row is a page, so that places nobody uses cost nothing.

    head:    owner | used | moment | stage            on a cache line of its own
    row:     bucket of the second that is 0, 1, ... 15 modulo 16
    bucket:  epoch | counter 0 | counter 1 | ...

`owner` is a 64-bit hash of what the window is for. A worker looks for its place when it first uses a window,
and takes an unused place if there is none; later it only compares the owner. A place that was not used for
`IDLE` seconds may get another owner; a worker that has lost its place looks for one again. So places follow
what is in use, not what is in the plan, and need not be given back.

The epoch contains half of that hash and the second: a bucket of another owner, of a second that is over, or
of a worker that died while it initialised it, is not counted, and nothing has to be cleared. A bucket is
reused 6 s after it left the window, so nobody reads one that is half initialised.

Places are taken and moments set under a lock (`exclusion`), both rarely. If all places in which a window may
be are in use, or the lock cannot be taken, the worker counts for itself and tries again `RETRY` seconds
later. A moment that must be set is then set without the lock, and two workers may both take themselves for
the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from operator import add
from typing import Final, Self

import structlog

from middleware.contract import MOST_COUNTERS, WINDOW_SECONDS
from nodeagent.stats.exclusion import Exclusion
from nodeagent.stats.region import CELL_BYTES, SharedMemory

log = structlog.get_logger()

PLACES: Final = 16_384
PROBES: Final = 256
"""Places in which a window may be, one after another."""
IDLE: Final = 60
"""Seconds; a user that needs its moment for longer adds nothing meanwhile (`add` without indices)."""
RETRY: Final = 10
SECOND: Final = 1_000_000_000

_OWNER: Final = 0
_USED: Final = 1
"""The second in which a worker last began to count, or took the place."""
_MOMENT: Final = 2
_STAGE: Final = 3
_HEAD: Final = 8
_BUCKET: Final = MOST_COUNTERS + 1
_BUCKETS: Final = 16
_ROW: Final = _BUCKETS * _BUCKET
_ROWS_AT: Final = PLACES * _HEAD
_LOCKED: Final = (0, CELL_BYTES)
"""The bytes that stand for all heads; only workers that look for a place or set a moment need them."""
_NOWHERE: Final = memoryview(bytes(_HEAD * CELL_BYTES)).cast("q")
"""The head of a window that has no place yet."""
_ZEROS: Final = memoryview(bytes(MOST_COUNTERS * CELL_BYTES)).cast("q")


def owner_of(key: bytes, counters: int) -> int:
    """Return what stands for a window in memory: the same in every process, never 0."""
    digest = blake2b(b"%d|%b" % (counters, key), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


class SharedWindows(SharedMemory):
    """The windows of a node, as the worker with this index uses them: implements `proxy.runtime.Windows`.

    `forgone` is called for each lock that could not be taken. For use by one thread.
    """

    def __init__(
        self,
        fd: int,
        workers: int,
        index: int = 0,
        forgone: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(fd, _ROWS_AT + PLACES * workers * _ROW)
        self.workers = workers
        self.index = index
        self.now = now
        self._exclusion = Exclusion(fd, forgone)
        self._exhausted = False

    @classmethod
    def create(cls, workers: int) -> Self:
        """Make windows that nobody uses yet; pass their `fd` to every worker."""
        return cls(cls.allocate("svcmesh-windows", _ROWS_AT + PLACES * workers * _ROW), workers)

    def window(self, key: bytes, counters: int) -> SharedWindow:
        """Return the window of this key and so many counters.

        Raises:
            ValueError: a window has not that many.
        """
        if not 1 <= counters <= MOST_COUNTERS:
            raise ValueError(f"a window has 1 to {MOST_COUNTERS} counters, not {counters}")
        return SharedWindow(self, owner_of(key, counters), counters)

    def find(self, owner: int) -> int | None:
        """Return the first cell of the head of the owner's place; None if there is none for it now."""
        at = self._look(owner)
        if at is not None:
            return at
        if not self.lock():
            return None
        try:
            at = self._take(owner, int(self.now()))
        finally:
            self.unlock()
        if at is None and not self._exhausted:
            self._exhausted = True
            log.warning(
                "node_windows_exhausted", places=PLACES, reason="further windows count for one worker"
            )
        return at

    def rows(self, at: int) -> list[int]:
        """Return the first cells of all workers' rows of the place whose head is at this cell."""
        first = _ROWS_AT + at // _HEAD * self.workers * _ROW
        return [first + worker * _ROW for worker in range(self.workers)]

    def lock(self) -> bool:
        """Keep others from taking places and setting moments; False if that cannot be had now."""
        return self._exclusion.enter(*_LOCKED)

    def unlock(self) -> None:
        """Let them again."""
        self._exclusion.leave(*_LOCKED)

    def _look(self, owner: int) -> int | None:
        """Return the head of the place that the owner has already; no lock is needed for that."""
        for at in self._probes(owner):
            known = self.cells[at + _OWNER]
            if known == owner:
                return at
            if known == 0:  # an owner is never replaced by none, so the search ends here
                break
        return None

    def _take(self, owner: int, second: int) -> int | None:
        """Return the head of the owner's place, which it may get only now: one that is not in use."""
        known = self._look(owner)  # another worker may have been faster
        if known is not None:
            return known
        cells = self.cells
        best, oldest = None, second - IDLE
        for at in self._probes(owner):
            if cells[at + _OWNER] == 0:
                best = at if best is None else best
                break
            if cells[at + _USED] < oldest:
                best, oldest = at, cells[at + _USED]
        if best is not None:
            # The owner comes last: a process killed half-way leaves the place to the one that had it.
            cells[best + _MOMENT] = cells[best + _STAGE] = 0
            cells[best + _USED] = second
            cells[best + _OWNER] = owner
        return best

    def _probes(self, owner: int) -> Iterator[int]:
        return ((owner + probe) % PLACES * _HEAD for probe in range(PROBES))


class SharedWindow:
    """One window. Implements `middleware.contract.NodeWindow`."""

    __slots__ = (
        "_at",
        "_bucket",
        "_cells",
        "_counters",
        "_ends",
        "_older",
        "_owner",
        "_recent",
        "_retry",
        "_row",
        "_rows",
        "_summed",
        "_tag",
        "_windows",
    )

    def __init__(self, windows: SharedWindows, owner: int, counters: int) -> None:
        self._windows = windows
        self._owner = owner
        self._tag = owner >> 32 << 32
        self._counters = counters
        self._cells = _NOWHERE
        self._at = 0
        self._rows: list[int] = []
        self._row = 0
        self._bucket = 0
        """The first counter of the bucket of this second."""
        self._ends = 0.0
        """When this second ends, or the head has to be looked at."""
        self._retry = float("inf")
        """When to look for a place, if this worker counts for itself."""
        self._summed = (-1, 0)
        """The second and the moment that `_older` and `_recent` are for."""
        self._older: list[int] = []
        self._recent = range(0)

    def moment(self) -> int:
        """Return when counting last began anew."""
        cells, at = self._cells, self._at
        if cells[at] != self._owner:
            self._find()
            cells, at = self._cells, self._at
        return cells[at + _MOMENT]

    def add(self, now: float, indices: Iterable[int], moment: int) -> bool:
        """Add 1 to these counters, unless the moment is another by now."""
        if now >= self._ends:
            self._turn(now)
        cells, at = self._cells, self._at
        if cells[at + _MOMENT] != moment:
            return False
        bucket = self._bucket
        for index in indices:
            cells[bucket + index] += 1
        return True

    def sums(self, now: float) -> Sequence[int]:
        """Return every counter's sum over the window and all workers.

        What is older than a second or two does not change any more and is added up once a second.
        """
        moment = self.moment()
        newest = int(now)
        if self._summed != (newest, moment):
            oldest = max(newest - WINDOW_SECONDS, moment // SECOND) + 1
            self._older = self._sum([0] * self._counters, range(oldest, newest - 1))
            self._recent = range(max(newest - 1, oldest), newest + 1)
            self._summed = (newest, moment)
        return self._sum(self._older, self._recent)

    def _sum(self, sums: list[int], seconds: range) -> list[int]:
        """Return the sums and what all workers have counted in these seconds."""
        cells, tag, counters = self._cells, self._tag, self._counters
        for row in self._rows:
            for second in seconds:
                bucket = row + second % _BUCKETS * _BUCKET
                if cells[bucket] == tag + second:
                    counted = cells[bucket + 1 : bucket + 1 + counters]
                    sums = list(map(add, sums, counted))
        return sums

    def begin(self, now: float, seen: int) -> bool:
        """Make `now` the moment if that is still `seen`."""
        if self.moment() != seen:
            return False
        locked = self._windows.lock()
        try:
            if self.moment() != seen:
                return False
            self._cells[self._at + _STAGE] = 0
            self._cells[self._at + _MOMENT] = round(now * SECOND)
            return True
        finally:
            if locked:
                self._windows.unlock()

    def reach(self, moment: int, stage: int) -> bool:
        """Return True to the first worker that says so of this stage after the moment."""
        if self._is_past(moment, stage):
            return False
        locked = self._windows.lock()
        try:
            if self._is_past(moment, stage):
                return False
            self._cells[self._at + _STAGE] = stage
            return True
        finally:
            if locked:
                self._windows.unlock()

    def _is_past(self, moment: int, stage: int) -> bool:
        return self.moment() != moment or self._cells[self._at + _STAGE] >= stage

    def _turn(self, now: float) -> None:
        """Make the bucket of this second the one that is counted in."""
        if now >= self._retry or self._cells[self._at] != self._owner:
            self._find()
        second, cells = int(now), self._cells
        cells[self._at + _USED] = second
        bucket = self._row + second % _BUCKETS * _BUCKET
        if cells[bucket] != self._tag + second:
            # In this order: a reader that sees the epoch sees counters of this second.
            cells[bucket] = 0
            cells[bucket + 1 : bucket + 1 + self._counters] = _ZEROS[: self._counters]
            cells[bucket] = self._tag + second
        self._bucket = bucket + 1
        self._ends = second + 1.0

    def _find(self) -> None:
        """Take a place, or count for this worker alone."""
        windows = self._windows
        at = windows.find(self._owner)
        self._ends, self._summed = 0.0, (-1, 0)
        if at is not None:
            self._cells, self._at, self._rows = windows.cells, at, windows.rows(at)
            self._row = self._rows[windows.index]
            self._retry = float("inf")
            return
        self._retry = windows.now() + RETRY
        if self._cells is windows.cells or self._cells is _NOWHERE:
            self._cells = memoryview(bytearray((_HEAD + _ROW) * CELL_BYTES)).cast("q")
            self._cells[_OWNER] = self._owner
            self._at, self._rows, self._row = 0, [_HEAD], _HEAD
