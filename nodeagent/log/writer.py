"""Writes lines to a descriptor without ever blocking or raising: a thread does it, from a bounded queue.

Standard error of a pod is a pipe that the container runtime reads, and of a laptop perhaps one that nobody
reads. A write to a full one blocks and one to a closed one raises; neither may happen to the loop that
carries traffic. What finds no room in the queue, and what the system refuses, is counted and gone.

The descriptor cannot be made non-blocking instead: that would be so for every process that shares it.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from typing import Final

MOST_BYTES: Final = 1024 * 1024
"""Bytes that wait to be written, before further lines are lost."""


class LineWriter:
    """Writes text to a descriptor, in order, each piece with one system call. Safe to use by any thread."""

    def __init__(self, descriptor: int, most_bytes: int = MOST_BYTES) -> None:
        self._descriptor = descriptor
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[bytes, int]] = deque()
        """Pieces, and how many lost ones each tells of."""
        self._bytes = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._lost = 0
        self._told = 0

    @property
    def lost(self) -> int:
        """How many pieces were not written, since the beginning."""
        return self._lost

    @property
    def untold(self) -> int:
        """`lost`, for the next line to tell; 0 if the last line that was written told the same."""
        return self._lost if self._lost != self._told else 0

    def write(self, text: str, tells: int = 0) -> bool:
        """Have this written; return whether there was room for it. `tells`: the `untold` that it says."""
        piece = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._bytes + len(piece) > self._most_bytes:
                self._lost += 1
                return False
            if not self._started():
                self._lost += 1
                return False
            self._waiting.append((piece, tells))
            self._bytes += len(piece)
            self._changed.notify_all()
        return True

    def _started(self) -> bool:
        """Start the thread with the first piece. If the system grants no thread, there is no log.

        Not in `__init__`: a thread keeps the capabilities that it was started with.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def close(self, seconds: float) -> bool:
        """Wait until everything is written, `seconds` at most; return whether it is."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._bytes and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self._bytes

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                piece, tells = self._waiting.popleft()
            written = self._write_piece(piece)
            with self._changed:
                self._bytes -= len(piece)
                self._lost += not written
                self._told = tells if written and tells else self._told
                self._changed.notify_all()

    def _write_piece(self, piece: bytes) -> bool:
        """Write all of it; a descriptor that somebody else made non-blocking is waited for."""
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select((), (self._descriptor,), (), 1.0)
            except OSError:
                return False
        return True
