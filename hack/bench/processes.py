"""Processes of the benchmark, each on its core."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hack.kit.processes import Process, guarded


class BenchError(Exception):
    """The benchmark cannot continue; the message says why."""


class ProcessGroup:
    """The running processes; as a context manager it ends all of them, the last one first. `commands` are for
    the record.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.commands: dict[str, str] = {}
        self._processes: list[Process] = []

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *_: object) -> None:
        while self._processes:
            self._processes.pop().stop()

    def start(
        self, name: str, command: Sequence[str], core: int, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start a process on a core; what it says goes to a file in the directory."""
        self.commands[name] = " ".join(command)
        log = self.directory / f"{name}.log"
        process = Process(name, command, log, prefix=_on_core(core), env=environment)
        self._processes.append(process)
        return process

    def stop(self, process: Process) -> None:
        """End one process."""
        process.stop()
        self._processes.remove(process)


def run(command: Sequence[str], core: int, seconds: float) -> str:
    """Run a command that ends by itself within `seconds` and return what it printed.

    Raises:
        BenchError: it failed or did not end.
    """
    words = [*guarded(), *_on_core(core), *command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} did not end within {seconds:g} s") from None
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed: {done.stderr or done.stdout}")
    return done.stdout


def _on_core(core: int) -> list[str]:
    return ["taskset", "-c", str(core)]
