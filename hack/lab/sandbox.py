"""The namespaces in which a lab lives, so that nothing of it can be left behind.

A holder process is the first of a new PID namespace, with a mount and a network namespace of its own (and a
user namespace, where we are not root). It reads from a pipe of which only we have the other end. When the
pipe ends, on purpose or because we were killed, the holder ends too; the kernel then kills every process of
the PID namespace, and with the last of them the network namespaces, links and mounts are gone. Labs do not
see one another.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

from hack.kit.proc import children

PROGRAMS = ("ip", "nft", "nsenter", "unshare", "mount", "ss", "curl")
READY = "ready"
HOLD = f"mount -t tmpfs tmpfs /run && echo {READY} && exec cat > /dev/null"
PROBE = "mount -t tmpfs tmpfs /run && ip netns add probe && ip netns exec probe nft list ruleset"


class SandboxError(Exception):
    """What a lab needs is not allowed on this machine; the message says what is missing."""


def _unshare(rootless: bool) -> list[str]:
    user = ["--user", "--map-root-user"] if rootless else []
    return ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


@functools.cache
def find_mode() -> bool:
    """Return True if labs here have to be rootless, False if we have the privileges.

    Raises:
        SandboxError: neither way works.
    """
    if sys.platform != "linux":
        raise SandboxError("the lab needs Linux: it is made of network namespaces")
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise SandboxError(
            f"the lab needs the programs {', '.join(missing)} (Debian: iproute2 nftables curl)"
        )
    reasons = []
    for rootless in ([False] if os.geteuid() == 0 else []) + [True]:
        probe = subprocess.run(
            [*_unshare(rootless), "sh", "-c", PROBE], capture_output=True, text=True, timeout=30, check=False
        )
        if probe.returncode == 0:
            return rootless
        reasons.append(probe.stderr.strip()[-300:])
    raise SandboxError(
        f"the lab needs root, or user namespaces and nftables for everybody: {'; '.join(reasons)}"
    )


class Sandbox:
    """One set of namespaces. `open` before anything else; `close` ends every process in it."""

    def __init__(self) -> None:
        self._rootless = find_mode()
        self._holder: subprocess.Popen[str] | None = None
        self._first = 0

    def open(self) -> None:
        """Create the namespaces.

        Raises:
            SandboxError: the kernel refused.
        """
        # A session of its own, so that Ctrl-C on the terminal does not end the lab before we do.
        self._holder = subprocess.Popen(
            [*_unshare(self._rootless), "sh", "-c", HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline().strip() != READY:
            reason = self._holder.stderr.read().strip()
            self.close()
            raise SandboxError(f"the lab's namespaces cannot be made: {reason}")
        self._first = children(self._holder.pid)[0]

    @property
    def holder(self) -> int:
        """The process whose namespaces these are, for `nsenter` from another terminal."""
        return self._first

    def command(self, args: list[str], namespace: str = "") -> list[str]:
        """Return what to run so that `args` run inside, in the named network namespace if one is given."""
        target = f"/proc/{self._first}"
        user = ["--user", "--preserve-credentials"] if self._rootless else []
        net = f"--net={target}/root/run/netns/{namespace}" if namespace else "--net"
        return ["nsenter", "--target", str(self._first), *user, "--mount", "--pid", net, "--", *args]

    def run_script(self, script: str) -> None:
        """Run an `sh` script inside.

        Raises:
            SandboxError: it failed; the message has its last words.
        """
        done = subprocess.run(
            self.command(["sh", "-s"]), input=script, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise SandboxError(f"the lab's network cannot be built: {done.stderr.strip()[-500:]}")

    def close(self) -> None:
        """End every process inside; the kernel removes the rest. Idempotent."""
        if self._holder is None:
            return
        holder, self._holder = self._holder, None
        holder.communicate(timeout=30)
