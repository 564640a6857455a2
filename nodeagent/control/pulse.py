"""Whether a process still turns its loop, judged by a number that it changes every second.

The judge looks once a second and counts looks, not seconds: where it was itself held up, with the whole
container frozen say, it has not looked, and nothing is counted against anybody.
"""

from __future__ import annotations


class Pulse:
    """The looks at one process; a new process gets a new pulse."""

    def __init__(self) -> None:
        self._seen = 0
        self._missed = 0

    def look(self, number: int) -> int:
        """Return in how many looks, this one included, the number has been what it was before."""
        if number != self._seen:
            self._seen = number
            self._missed = 0
        else:
            self._missed += 1
        return self._missed
