"""Processes that a demo starts and that never outlive it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

SETTLE = 2.0
"""Seconds that a killed group may take to vanish."""


class Child:
    """A process in a session of its own: Ctrl-C reaches only the demo, which ends its processes in order."""

    def __init__(self, name: str, command: Sequence[str], process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.command = tuple(command)
        self._process = process

    @classmethod
    async def start(cls, name: str, command: Sequence[str], log: Path | None) -> Child:
        """Start a process; what it says goes to the file `log`, or where this process's own errors go."""
        with contextlib.ExitStack() as stack:
            output = None if log is None else stack.enter_context(log.open("ab"))
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output if output is not None else asyncio.subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
            )
        return cls(name, command, process)

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.returncode is not None

    async def wait(self) -> str:
        """Wait until it ends; return how, in words."""
        code = await self._process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def kill(self) -> None:
        """End it the hard way, as a crash does."""
        if not self.ended:
            self._process.kill()

    async def stop(self, grace: float) -> bool:
        """Ask it to end, and kill it after `grace` seconds; return whether it ended by itself, with status 0.

        Processes that it started and left behind are killed with it.
        """
        if not self.ended:
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._process.wait()
        clean = self._process.returncode == 0
        await self._sweep()
        await self._process.wait()
        return clean

    async def _sweep(self) -> None:
        """Kill what is left of its group, such as the workers of an agent that was killed."""
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            async with asyncio.timeout(SETTLE):
                while True:
                    os.killpg(self.pid, signal.SIGKILL)
                    await asyncio.sleep(0.01)
