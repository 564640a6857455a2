"""The agent's log (JSON lines): which worker is which process, and what may not be in it."""

from __future__ import annotations

from pathlib import Path

import msgspec

FORBIDDEN = frozenset(
    {
        "admin_request_failed",
        "agent_died",
        "agent_failed",
        "capture_failed",
        "listen_failed",
        "middleware_broken",
        "middleware_failed",
        "middleware_not_loaded",
        "worker_start_failed",
    }
)
"""Events that are a bug, or make the whole run worthless."""
MOST_COMPLAINTS = 50


class Line(msgspec.Struct, frozen=True):
    """The fields that are read from a line of the log."""

    event: str = ""
    worker: int = -1
    pid: int = 0
    reason: str = ""
    exception: str = ""


class AgentLog:
    """What the log has reported so far. `expected_deaths` is how many workers the soak has killed, by
    place.
    """

    def __init__(self) -> None:
        self.workers: dict[int, int] = {}
        """The process of each place."""
        self.starts = 0
        self.complaints: list[str] = []
        self._expected: dict[int, int] = {}

    def expect_death(self, worker: int) -> None:
        """The soak is about to kill the worker of this place."""
        self._expected[worker] = self._expected.get(worker, 0) + 1

    def expect_no_death(self, worker: int) -> None:
        """It was not killed after all."""
        self._expected[worker] -= 1

    def read(self, text: str) -> None:
        """Take one line."""
        if not text.strip():
            return
        try:
            line = msgspec.json.decode(text, type=Line)
        except msgspec.DecodeError:
            self._complain(f"a line that is no event: {text.strip()[:300]}")
            return
        if line.event == "worker_started":
            self.workers[line.worker] = line.pid
            self.starts += 1
        elif line.event == "worker_died":
            self._died(line)
        elif line.event in FORBIDDEN:
            self._complain(f"{line.event}: {text.strip()[:300]}")
        elif line.exception or "Traceback" in text:
            self._complain(f"a traceback: {text.strip()[:300]}")

    def _died(self, line: Line) -> None:
        left = self._expected.get(line.worker, 0)
        if left and "SIGKILL" in line.reason:
            self._expected[line.worker] = left - 1
        else:
            self._complain(f"worker {line.worker} died, and not by the soak: {line.reason}")

    def _complain(self, what: str) -> None:
        if len(self.complaints) < MOST_COMPLAINTS:
            self.complaints.append(what)


class Tail:
    """Reads what is added to a file, whole lines only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def lines(self) -> list[str]:
        """Return the lines that were completed since the last look."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]
