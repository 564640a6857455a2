"""Runs a command in an installation without the extra `agent`, or as if this were another system.

There, modules that only Unix has cannot be imported, and `os`, `signal` and `ctypes` lack what Windows or
macOS do not have. The standard library and packages of others are loaded before that: it is our own code that
must do without.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

AGENT_ONLY = ("asyncinotify", "pylsqpack", "pyroute2", "uvloop")
UNIX_ONLY = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
"""Modules of the standard library that Windows does not have."""

BLOCK = f"""
import sys
for name in {AGENT_ONLY!r}:
    assert name not in sys.modules, name
    sys.modules[name] = None
"""

FOREIGN = f"""
import asyncio, ctypes, getpass, importlib.metadata, multiprocessing, os, pathlib, platform, shutil, signal
import socket, ssl, subprocess, tempfile
import aiohttp, click.testing, dns.message, kubernetes_asyncio.config, msgspec, prometheus_client.parser
import structlog, yaml
for name in [name for name in sys.modules if name.split(".")[0] == "kubernetes_asyncio"]:
    del sys.modules[name]  # our own code loads parts of it
assert not [name for name in sys.modules if name.split(".")[0] in ("nodeagent", "discovery", "middleware")]
for name in {UNIX_ONLY!r}:
    sys.modules[name] = None
for module, names in {{
    os: "fork forkpty geteuid getegid getuid getgid getpgid killpg setsid mkfifo sysconf sched_getaffinity "
        "sched_setaffinity O_NONBLOCK O_CLOEXEC O_NOFOLLOW O_DIRECTORY memfd_create eventfd wait4 statvfs",
    signal: "SIGHUP SIGQUIT SIGUSR1 SIGUSR2 pthread_sigmask sigtimedwait setitimer",
    socket: "AF_NETLINK SO_REUSEPORT TCP_USER_TIMEOUT send_fds recv_fds",
}}.items():
    for name in names.split():
        delattr(module, name)
def no_library(*given, **named):
    raise OSError("there is no C library of that name here")
ctypes.CDLL = no_library
"""

START = """
import nodeagent.start
sys.argv[0] = PROGRAM
getattr(nodeagent.start, PROGRAM)()
"""


def run(
    program: str, *arguments: str, foreign: bool = False, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `nodeagent` or `meshctl` without the agent's packages; `foreign`: on another system too."""
    code = "\n".join((BLOCK, FOREIGN if foreign else "", before, START.replace("PROGRAM", repr(program))))
    return run_code(code, arguments)


def run_code(code: str, arguments: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh interpreter with the tree's packages."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
