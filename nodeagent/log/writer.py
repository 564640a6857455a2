"""Writes lines to a descriptor without ever blocking or raising: a thread does it, from a bounded queue.

Standard error of a pod is a pipe that the container runtime reads, and of a laptop perhaps one that nobody
reads. A write to a full one blocks and one to a closed one raises; neither may happen to the loop that
carries traffic. What finds no room in the queue, and what the system refuses, is counted and gone, and the
log itself says so: a `Gap` takes the place of the lines that are missing, and is written there.

Lines that *yield* (those of the access log) leave a part of the queue to all others, so that a flood of
requests does not cost the line that explains it.

The descriptor cannot be made non-blocking instead: that would be so for every process that shares it.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from nodeagent.log.gap import Gap

MOST_BYTES: Final = 1024 * 1024
"""Bytes that wait to be written, before further lines are lost."""
YIELDING_SHARE: Final = 0.75
"""The part of them that lines which yield may take."""
RESUME_SHARE: Final = 0.5
"""Once such lines were lost, they are taken again below this part: few long gaps, not many short ones."""
GATHER_TIME: Final = 0.05
"""Seconds that lines which yield wait for others, so that many are written at one go: to wake the thread for
each of them costs as much as to serve a request."""
GATHERED_SHARE: Final = 0.25
"""They wait no longer once they take this part of the room."""
BATCH_BYTES: Final = select.PIPE_BUF
"""Lines are written together up to this: what a pipe that several processes share takes as one piece."""


class _Batch:
    """Lines that are written together, and what each is about."""

    __slots__ = ("about", "pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.about: list[str] = []
        self.size = 0


class LineWriter:
    """Writes whole lines to a descriptor, in order. Safe to use by any thread.

    `say` renders the line that stands for a gap; without it gaps are only counted.
    """

    def __init__(
        self,
        descriptor: int,
        most_bytes: int = MOST_BYTES,
        say: Callable[[Gap], str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._descriptor = descriptor
        self._most_bytes = most_bytes
        self._yielding_bytes = int(most_bytes * YIELDING_SHARE)
        self._resume_bytes = int(most_bytes * RESUME_SHARE)
        self._gathered_bytes = int(most_bytes * GATHERED_SHARE)
        self._say = say
        self._now = now
        self._waiting: deque[_Batch | Gap] = deque()
        self._bytes = 0
        self._shedding = False
        """Lines that yield were lost, and there is not much more room yet."""
        self._refused: Gap | None = None
        """Lines that the system refused, to be told as soon as it takes one."""
        self._changed = threading.Condition()
        self._runner: threading.Thread | None = None
        self._idle = False
        """The thread waits, and everything is written."""
        self._hurry = False
        """Something that waits has to be written now."""
        self._gathering = False
        """The thread lets lines come together that are in no hurry."""
        self._round = 0
        """Batches and gaps that are written before more are gathered."""
        self._lost = 0
        self._lost_yielding = 0

    @property
    def lost(self) -> int:
        """How many lines were not written, since the beginning."""
        return self._lost

    @property
    def lost_yielding(self) -> int:
        """How many of them yielded and found no room."""
        return self._lost_yielding

    def tell_gaps(self, say: Callable[[Gap], str]) -> None:
        """Have gaps rendered by `say` from now on."""
        self._say = say

    def write(self, line: str, about: str = "", yields: bool = False) -> bool:
        """Have this written; return whether there was room for it. `about`: see `Gap`."""
        return self.write_piece(line.encode("utf-8", "backslashreplace"), about, yields)

    def write_piece(self, piece: bytes, about: str = "", yields: bool = False) -> bool:
        """As `write`, of a line in UTF-8."""
        with self._changed:
            if not self._has_room(len(piece), yields) or not self._started():
                self._lose(about, yields)
                return False
            size = len(piece)
            batch = self._waiting[-1] if self._waiting else None
            if not isinstance(batch, _Batch) or batch.size + size > BATCH_BYTES:
                batch = _Batch()
                self._waiting.append(batch)
            batch.pieces.append(piece)
            batch.about.append(about)
            batch.size += size
            self._bytes += size
            self._hurry = self._hurry or not yields or self._bytes > self._gathered_bytes
            if self._idle or (self._gathering and self._hurry):
                self._idle = self._gathering = False
                self._changed.notify_all()
        return True

    def _has_room(self, size: int, yields: bool) -> bool:
        if not yields:
            return self._bytes + size <= self._most_bytes
        if self._shedding:
            self._shedding = self._bytes > self._resume_bytes
        if not self._shedding:
            self._shedding = self._bytes + size > self._yielding_bytes
        return not self._shedding

    def _lose(self, about: str, yields: bool) -> None:
        """Count a line that found no room, at its place: there is never more than one gap for a line."""
        self._lost += 1
        self._lost_yielding += yields
        now = self._now()
        last = self._waiting[-1] if self._waiting else None
        if not isinstance(last, Gap):
            last = Gap(now, now)
            self._waiting.append(last)
        last.add(about, now)

    def _started(self) -> bool:
        """Start the thread with the first line. If the system grants no thread, there is no log.

        Not in `__init__`: a thread keeps the capabilities that it was started with.
        """
        if self._runner is None:
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._runner = thread
        return True

    def close(self, seconds: float) -> bool:
        """Wait until everything is written, `seconds` at most; return whether it is."""
        end = time.monotonic() + seconds
        with self._changed:
            self._hurry, self._gathering = True, False
            self._changed.notify_all()
            while self._runner is not None and not self._idle and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._idle if self._runner is not None else not self._waiting

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._idle = True
                    self._changed.notify_all()
                    self._changed.wait()
                if not self._round:
                    self._gather()
                batch = self._waiting.popleft()
                self._round -= 1
            if isinstance(batch, Gap):
                self._tell(batch)
                continue
            if self._refused is not None:
                self._tell(self._refused)
            refusal = self._put(b"".join(batch.pieces))
            with self._changed:
                self._bytes -= batch.size
                if refusal:
                    self._lost += len(batch.pieces)
            if refusal:
                self._remember(refusal, batch)

    def _gather(self) -> None:
        """Wait for more lines, if none of those that wait is in a hurry, and begin a round."""
        if not self._hurry:
            self._gathering = True
            self._changed.wait_for(lambda: self._hurry, GATHER_TIME)
            self._gathering = False
        self._hurry = False
        self._round = len(self._waiting)

    def _remember(self, refusal: str, batch: _Batch) -> None:
        """Keep what the system refused, for the line that tells of it."""
        now = self._now()
        if self._refused is None:
            self._refused = Gap(now, now)
        self._refused.refused = refusal
        for about in batch.about:
            self._refused.add(about, now)

    def _tell(self, gap: Gap) -> None:
        """Write the line that stands for a gap; one that the system refuses too is told with the next."""
        said = self._say(gap).encode("utf-8", "backslashreplace") if self._say is not None else b""
        refusal = self._put(said)
        if not refusal:
            self._refused = None if gap is self._refused else self._refused
        elif self._refused is None:
            self._refused = gap
            gap.refused = refusal
        elif gap is not self._refused:
            self._refused.lines += gap.lines
            self._refused.about += gap.about
            self._refused.until = gap.until

    def _put(self, piece: bytes) -> str:
        """Write all of it, and return why not; a descriptor that somebody made non-blocking is waited for."""
        rest = memoryview(piece)
        while rest:
            try:
                # Not within the brackets: compiled, a slice of a memoryview evaluates its bounds twice.
                written = os.write(self._descriptor, rest)
                rest = rest[written:]
            except BlockingIOError:
                select.select((), (self._descriptor,), (), 1.0)
            except OSError as error:
                return error.strerror or str(error)
        return ""
