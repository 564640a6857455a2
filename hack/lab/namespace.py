"""Where programs run in a lab: a network namespace, a node's or a pod's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from hack.kit.proc import children
from hack.kit.processes import Process, wait_until
from hack.kit.waiting import pause
from hack.lab.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent.parent
WITH_RESOLVER = 'mount --bind "$0" /etc/resolv.conf && cd "$1" && shift && exec "$@"'
WITHOUT_RESOLVER = 'cd "$1" && shift && exec "$@"'
POLL = 0.02
"""Seconds between two looks at a condition."""


class LabProcess(Process):
    """A program in a lab. Signals go to the program itself, not to the `nsenter` that waits for it.

    `pid` is that of nsenter; what the program sees as its own is known only inside. It ends with the lab.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path | None = None, **options: Any) -> None:
        super().__init__(name, command, log, last_signal=None, **options)

    def send_signal(self, sig: int) -> None:
        """Send a signal to the program; does nothing once it has ended."""
        while self.running:
            if program := children(self.pid):
                os.kill(program[0], sig)
                return
            pause(POLL)


class NetworkNamespace:
    """A network namespace with a name and an address, in which programs can be run.

    `resolver` is a file that replaces `/etc/resolv.conf`, if it is given.
    """

    def __init__(
        self, sandbox: Sandbox, directory: Path, name: str, address: str, resolver: Path | None = None
    ) -> None:
        self.name = name
        self.address = address
        self._sandbox = sandbox
        self._directory = directory
        self._resolver = resolver
        self._started: list[LabProcess] = []

    def command(self, args: Sequence[str]) -> list[str]:
        """Return the command line that runs `args` here, in the repository's folder."""
        script = [WITH_RESOLVER, str(self._resolver)] if self._resolver else [WITHOUT_RESOLVER, "sh"]
        return self._sandbox.command(["unshare", "--mount", "sh", "-c", *script, str(ROOT), *args], self.name)

    def run(
        self, args: Sequence[str], *, timeout: float = 30.0, check: bool = False, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end and return what it said.

        Raises:
            subprocess.TimeoutExpired: it took longer than `timeout` seconds (and was killed).
            subprocess.CalledProcessError: with `check`, it failed.
        """
        with LabProcess(
            args[0],
            self.command(args),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                out, err = process.communicate(stdin, timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(list(args), process.returncode, out, err)
        if check:
            done.check_returncode()
        return done

    def start(
        self,
        args: Sequence[str],
        *,
        name: str = "",
        env: Mapping[str, str] | None = None,
        **streams: int | IO[str] | None,
    ) -> LabProcess:
        """Start a program here and return at once; it ends with the lab at the latest.

        Its output goes to a file in the lab's folder (`process.log`), except `streams` (`stdin`, `stdout`).
        """
        name = name or Path(args[0]).name
        log = self._directory / f"{self.name}-{len(self._started) + 1}-{name}.log"
        environment = None if env is None else {**os.environ, **env}
        process = LabProcess(f"{self.name}: {name}", self.command(args), log, env=environment, **streams)
        self._started.append(process)
        return process

    def start_sample(self, sample: str, port: int, *options: str) -> LabProcess:
        """Start `hack.samples.<sample>` at this address, named after this namespace; wait until it listens.

        Raises:
            ProcessFailed: it does not.
        """
        listen = ["--listen", f"{self.address}:{port}", "--name", self.name]
        process = self.start([sys.executable, "-m", f"hack.samples.{sample}", *listen, *options], name=sample)
        self.wait_listening(port, process)
        return process

    def wait_listening(self, port: int, process: LabProcess) -> None:
        """Wait until something listens on this TCP port here.

        Raises:
            ProcessFailed: the process has ended, or nothing does in time.
        """
        wait_until(lambda: self.run(["ss", "-Hltn", f"sport = :{port}"]).stdout, process, every=POLL)

    def close(self) -> None:
        """Reap what was started here, once the sandbox has ended it."""
        for process in self._started:
            process.wait(timeout=30)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
