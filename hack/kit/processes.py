"""Processes that a tool or a test starts, and that do not outlive it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hack.kit.waiting import until

SETTLE = 2.0
"""Seconds that a killed group may take to vanish."""
TAIL = 15
"""Lines of a log that tell why a program failed."""


class ProcessFailed(Exception):
    """A program ended or was not ready in time; the message has the end of its log."""


class Process(subprocess.Popen[str]):
    """A program in its own session: Ctrl-C reaches only us, and we end it properly.

    Its output is added to the file `log`; without one, its errors go where ours go, and the rest is dropped.
    If we are killed (more exactly: when the thread that started it ends), the kernel sends it `last_signal`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path | None = None,
        *,
        last_signal: signal.Signals | None = signal.SIGTERM,
        prefix: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.log = log
        words = [*guarded(last_signal), *prefix, *command]
        with contextlib.ExitStack() as stack:
            output = subprocess.DEVNULL if log is None else stack.enter_context(log.open("a"))
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output if log else None}
            super().__init__(words, text=True, start_new_session=True, **{**streams, **options})

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.poll() is None

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        code = self.returncode
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def check(self) -> None:
        """Look whether it still runs.

        Raises:
            ProcessFailed: it has ended.
        """
        if not self.running:
            raise ProcessFailed(
                f"{self.name} ended ({self.ending}): {shlex.join(self.command)}{self.last_words()}"
            )

    def last_words(self) -> str:
        """Return the end of its log, on lines of its own."""
        if self.log is None:
            return ""
        return "".join(f"\n{line}" for line in self.log.read_text(errors="replace").splitlines()[-TAIL:])

    def stop(self, grace: float = 5.0) -> bool:
        """Ask it to end, and kill it after `grace` seconds; return whether it ended by itself, with status 0.

        Processes that it started and left behind, such as the workers of a killed agent, are killed with it.
        """
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(grace)
        clean = self.returncode == 0
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()
            until(lambda: os.killpg(self.pid, signal.SIGKILL), SETTLE)
        self.wait()
        return clean


def wait_until(
    condition: Callable[[], object], process: Process, seconds: float = 30.0, every: float = 0.005
) -> None:
    """Wait until the condition holds while the process lives.

    Raises:
        ProcessFailed: the process ended, or the time is up.
    """
    try:
        until(condition, seconds, every, process.check)
    except TimeoutError:
        raise ProcessFailed(
            f"{process.name} was not ready within {seconds:g} s{process.last_words()}"
        ) from None


def guarded(last_signal: signal.Signals | None = signal.SIGTERM) -> list[str]:
    """Return what to start a command by, so that the kernel sends it this signal if we are killed."""
    if last_signal is None or shutil.which("setpriv") is None:
        return []
    return ["setpriv", "--pdeathsig", last_signal.name.removeprefix("SIG")]
