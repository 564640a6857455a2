"""Where programs run in a lab: a node or a pod."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from hack.lab.sandbox import Sandbox, child_of
from hack.lab.topology import NodeSpec, PodSpec

ROOT = Path(__file__).resolve().parent.parent.parent
WITH_RESOLVER = 'mount --bind "$0" /etc/resolv.conf && cd "$1" && shift && exec "$@"'
WITHOUT_RESOLVER = 'cd "$1" && shift && exec "$@"'
POLL = 0.02
"""Seconds between two looks at a condition."""


class LabProcess(subprocess.Popen[str]):
    """A program in a lab. Signals go to the program itself, not to the `nsenter` that waits for it.

    `pid` is that of nsenter; what the program sees as its own is known only inside.
    """

    def __init__(self, args: Sequence[str], log: Path | None, **options: Any) -> None:
        self.log = log
        """Where its output goes; None if the caller takes it."""
        super().__init__(args, text=True, start_new_session=True, **options)

    def send_signal(self, sig: int) -> None:
        """Send a signal to the program; does nothing once it has ended."""
        while self.poll() is None:
            program = child_of(self.pid)
            if program:
                os.kill(program, sig)
                return
            wait_a_moment()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Place:
    """A network namespace with a name and an address, in which programs can be run."""

    def __init__(self, sandbox: Sandbox, directory: Path, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._sandbox = sandbox
        self._directory = directory
        self._started: list[LabProcess] = []

    def command(self, args: Sequence[str]) -> list[str]:
        """Return the command line that runs `args` here, in the repository's folder."""
        resolver = self._resolver()
        shell = ["sh", "-c", WITH_RESOLVER if resolver else WITHOUT_RESOLVER, resolver or "sh", str(ROOT)]
        return self._sandbox.command(["unshare", "--mount", *shell, *args], self.name)

    def run(
        self, args: Sequence[str], *, timeout: float = 30.0, check: bool = False, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end and return what it said.

        Raises:
            subprocess.TimeoutExpired: it took longer than `timeout` seconds (and was killed).
            subprocess.CalledProcessError: with `check`, it failed.
        """
        with LabProcess(
            self.command(args),
            None,
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
        stdin: int | IO[str] | None = subprocess.DEVNULL,
        stdout: int | IO[str] | None = None,
    ) -> LabProcess:
        """Start a program here and return at once; it ends with the lab at the latest.

        Its output goes to a file in the lab's folder (`process.log`), `stdout` elsewhere if it is given.
        """
        log = self._directory / f"{self.name}-{len(self._started) + 1}-{name or Path(args[0]).name}.log"
        with log.open("w") as output:
            process = LabProcess(
                self.command(args),
                log,
                stdin=stdin,
                stdout=output if stdout is None else stdout,
                stderr=output,
                env=None if env is None else {**os.environ, **env},
            )
        self._started.append(process)
        return process

    def start_sample(self, sample: str, port: int, *options: str) -> LabProcess:
        """Start `hack.samples.<sample>` at this address, named after this place, and wait until it listens.

        Raises:
            TimeoutError: it does not.
        """
        listen = ["--listen", f"{self.address}:{port}", "--name", self.name]
        process = self.start([sys.executable, "-m", f"hack.samples.{sample}", *listen, *options], name=sample)
        self.wait_listening(port, process)
        return process

    def wait_listening(self, port: int, process: LabProcess | None = None, timeout: float = 20.0) -> None:
        """Wait until something listens on this TCP port here.

        Raises:
            TimeoutError: nothing does after `timeout` seconds, or `process` has ended.
        """
        deadline = time.monotonic() + timeout
        while not self.run(["ss", "-Hltn", f"sport = :{port}"]).stdout:
            ended = process is not None and process.poll() is not None
            if ended or time.monotonic() > deadline:
                said = process.log.read_text() if process is not None and process.log is not None else ""
                raise TimeoutError(f"{self.name}: nothing listens on port {port}: {said[-2000:]}")
            wait_a_moment()

    def close(self) -> None:
        """Reap what was started here, once the sandbox has ended it."""
        for process in self._started:
            process.wait(timeout=30)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def _resolver(self) -> str:
        return ""


class Pod(Place):
    """A pod: its `/etc/resolv.conf` names the mesh DNS of its node."""

    def __init__(self, sandbox: Sandbox, directory: Path, spec: PodSpec, resolver: Path) -> None:
        super().__init__(sandbox, directory, spec.name, spec.address)
        self._resolv_conf = resolver

    def _resolver(self) -> str:
        return str(self._resolv_conf)


class NodePlace(Place):
    """A node's own namespace, with the pods on it."""

    def __init__(self, sandbox: Sandbox, directory: Path, spec: NodeSpec, pods: tuple[Pod, ...]) -> None:
        super().__init__(sandbox, directory, spec.name, spec.address)
        self.spec = spec
        self.pods = pods


def wait_a_moment() -> None:
    """Block for `POLL` seconds between two looks at a condition."""
    threading.Event().wait(POLL)
