"""One program of a control plane: started, stopped and started again with the same arguments.

It never outlives the thread that started it: the kernel kills it (PR_SET_PDEATHSIG) when that ends.
So start a plane from a thread that lives as long as it does, such as the main one.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

POLL = 0.02


class ComponentFailed(Exception):
    """A program ended or did not become ready; the message has the end of its log."""


class Component:
    """A process with a log file; `ready` says whether it serves."""

    def __init__(self, name: str, command: Sequence[str], log: Path, ready: Callable[[], bool]) -> None:
        self.name = name
        self.log = log
        self._command = ["setpriv", "--pdeathsig", "KILL", *command]
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id while it runs."""
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        """Start the process without waiting for it."""
        assert not self.running
        if shutil.which("setpriv") is None:
            raise ComponentFailed("setpriv is not installed (Debian: util-linux)")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Wait until it serves.

        Raises:
            ComponentFailed: it ended, or does not after `seconds`.
        """
        deadline = time.monotonic() + seconds
        pause = threading.Event()
        while not self._ready():
            if not self.running or time.monotonic() > deadline:
                end = self.log.read_text(errors="replace")[-3000:]
                what = "is not ready" if self.running else "ended"
                raise ComponentFailed(f"{self.name} {what}; the end of {self.log}:\n{end}")
            pause.wait(POLL)

    def start(self, seconds: float = 60.0) -> None:
        """Start it and wait until it serves; see `wait_ready`."""
        self.launch()
        self.wait_ready(seconds)

    def stop(self, grace: float = 3.0) -> None:
        """End it in order, or after `grace` seconds the hard way (an API server waits for open watches)."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
