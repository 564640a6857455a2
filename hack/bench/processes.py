"""Processes of the benchmark: each on its core, none outlives it, whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from hack.kit.waiting import until

START_TIME = 30.0
STOP_TIME = 5.0


class BenchError(Exception):
    """The benchmark cannot go on; the message says why."""


class Child:
    """A process in a session of its own: Ctrl-C reaches only the benchmark, which ends it in order."""

    def __init__(
        self, name: str, command: Sequence[str], core: int, log: Path, environment: Mapping[str, str] | None
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                on_core(core, command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=environment,
            )

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        return self._process.pid

    def check(self) -> None:
        """Look whether it still runs.

        Raises:
            BenchError: it has ended.
        """
        if (code := self._process.poll()) is not None:
            last = "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])
            raise BenchError(f"{self.name} ended with status {code}: {' '.join(self.command)}\n{last}")

    def stop(self) -> None:
        """End it, and whatever it has started, within `STOP_TIME`."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIME)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


class Crew:
    """The children that run now; as a context manager it ends them all. `commands` are for the record."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.commands: dict[str, str] = {}
        self._children: list[Child] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._children):
            child.stop()
        self._children.clear()

    def start(
        self, name: str, command: Sequence[str], core: int, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start a process on a core; what it says goes to a file in the directory."""
        self.commands[name] = " ".join(command)
        child = Child(name, command, core, self.directory / f"{name}.log", environment)
        self._children.append(child)
        return child

    def stop(self, child: Child) -> None:
        """End one process."""
        child.stop()
        self._children.remove(child)


def on_core(core: int, command: Sequence[str]) -> list[str]:
    """Return the command pinned to a core and told to end if we are killed."""
    prefix = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    return [*prefix, "taskset", "-c", str(core), *command]


def run(command: Sequence[str], core: int, seconds: float) -> str:
    """Run a command that ends by itself within `seconds` and return what it printed.

    Raises:
        BenchError: it failed or did not end.
    """
    try:
        done = subprocess.run(
            on_core(core, command),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} did not end within {seconds:g} s") from None
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed: {done.stderr or done.stdout}")
    return done.stdout


def wait_until(
    condition: Callable[[], bool], child: Child, seconds: float = START_TIME, every: float = 0.005
) -> None:
    """Wait until the condition holds while the process lives.

    Raises:
        BenchError: the process ended, or the time is up.
    """
    try:
        until(condition, seconds, every, child.check)
    except TimeoutError:
        raise BenchError(f"{child.name} was not ready within {seconds:g} s") from None
