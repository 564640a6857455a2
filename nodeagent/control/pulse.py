"""Whether the loop of a process still runs, judged by a number that the process changes every second.

The observer looks once a second and counts looks, not seconds: if it was held up itself, for example because
the whole container was frozen, it has not looked, and nothing is counted.
"""

from __future__ import annotations


class Pulse:
    """The looks at one process. A new process gets a new `Pulse`."""

    def __init__(self) -> None:
        self._seen = 0
        self._missed = 0

    def look(self, number: int) -> int:
        """Return for how many looks in a row, including this one, the number has not changed."""
        if number != self._seen:
            self._seen = number
            self._missed = 0
        else:
            self._missed += 1
        return self._missed
