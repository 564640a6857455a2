"""One program of a control plane: started, stopped and started again with the same arguments.

It never outlives the thread that started it: the kernel kills it when that ends. So start a plane from a
thread that lives as long as it does, such as the main one.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from hack.kit.processes import Process, wait_until


class Component:
    """A process with a log file; `ready` says whether it serves."""

    def __init__(self, name: str, command: Sequence[str], log: Path, ready: Callable[[], bool]) -> None:
        self._name = name
        self._command = command
        self._log = log
        self._ready = ready
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """Its process id while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self, seconds: float = 60.0) -> None:
        """Start it and wait until it serves.

        Raises:
            ProcessFailed: it ended, or does not after `seconds`.
        """
        self._process = Process(self._name, self._command, self._log, last_signal=signal.SIGKILL)
        wait_until(self._ready, self._process, seconds, every=0.02)

    def stop(self, grace: float = 3.0) -> None:
        """End it in order, or after `grace` seconds the hard way (an API server waits for open watches)."""
        if self._process is not None:
            self._process.stop(grace)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
