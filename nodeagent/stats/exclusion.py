"""Keeps processes that share a piece of memory from changing the same part of it at once.

A POSIX record lock on the bytes of the part: the kernel releases it when its holder is killed. It is held for
a few microseconds. But a holder that is *stopped* (SIGSTOP, a debugger, a frozen control group) keeps it, and
must not stop all others: nobody waits longer than `PATIENCE`, and after waiting without success, not again
for the same part for `PAUSE`. The caller decides what to do then.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable

PATIENCE = 0.01
"""Seconds. Longer than a holder is usually kept from its core by others, and hardly seen by a client: the
worker's loop stands still."""
PAUSE = 1.0
"""Seconds for which nobody waits again for a part whose lock could not be taken."""
NAP = 0.00005
"""Seconds between two tries: the holder may need this very core to come to an end."""


class Exclusion:
    """Locks on the memory behind a descriptor, for use by one thread.

    `forgone` is called for each lock that could not be taken.
    """

    def __init__(self, fd: int, forgone: Callable[[], None]) -> None:
        self._fd = fd
        self._forgone = forgone
        self._impatient: dict[int, float] = {}
        """By the first byte of a part: until when it is not waited for."""

    def enter(self, start: int, length: int) -> bool:
        """Lock these bytes; return False if another process did not let go of them in time."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except (BlockingIOError, PermissionError):  # POSIX allows both EAGAIN and EACCES
            return self._wait(start, length)
        return True

    def leave(self, start: int, length: int) -> None:
        """Unlock them."""
        fcntl.lockf(self._fd, fcntl.LOCK_UN, length, start)

    def _wait(self, start: int, length: int) -> bool:
        now = time.monotonic()
        deadline = now + PATIENCE if now >= self._impatient.get(start, 0.0) else now
        while time.monotonic() < deadline:
            time.sleep(NAP)  # noqa: TID251 blocks the loop: so does every lock, and this one not for long
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
            except (BlockingIOError, PermissionError):
                continue
            self._impatient.pop(start, None)
            return True
        if deadline > now:
            self._impatient[start] = deadline + PAUSE
        self._forgone()
        return False
