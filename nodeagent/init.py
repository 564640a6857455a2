"""Process 1 of the agent's container: starts the agent, and starts it anew when it dies.

When process 1 of a PID namespace ends, the kernel kills all others in it. Were the agent that process, its
death would be that of its workers, and of every connection of the node; so it is its child. The workers serve
on until the next agent is ready (`nodeagent.control.successor`). When the agent ends in order, this does too.

Nothing but the standard library is imported here: this stays as small as Python is.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, NoReturn

SETTLED: Final = 10.0
"""Seconds after which an agent that exits with an error has died; before, it could not start."""
DEATHS: Final = 5
"""Of which the last within `WINDOW` seconds is left to whoever started the container."""
WINDOW: Final = 60.0
_FORWARDED: Final = (signal.SIGTERM, signal.SIGINT)


class Death(NamedTuple):
    """How an agent ended: its wait status, after so many seconds."""

    status: int
    lived: float

    @property
    def reason(self) -> str:
        """For the log."""
        if os.WIFSIGNALED(self.status):
            return f"killed by {signal.Signals(os.WTERMSIG(self.status)).name}"
        return f"exit status {os.WEXITSTATUS(self.status)}"

    @property
    def exit_code(self) -> int:
        """As a shell would give it."""
        if os.WIFSIGNALED(self.status):
            return 128 + os.WTERMSIG(self.status)
        return os.WEXITSTATUS(self.status)

    @property
    def sudden(self) -> bool:
        """Whether another agent may do better: it was killed, or failed after it had served for a while."""
        return os.WIFSIGNALED(self.status) or (self.exit_code != 0 and self.lived >= SETTLED)


def starts_anew(death: Death, before: Sequence[float], now: float, *, leaving: bool) -> bool:
    """Return whether to start another agent; `before` is when earlier ones died, in monotonic seconds."""
    recent = sum(now - moment < WINDOW for moment in before)
    return death.sudden and not leaving and recent < DEATHS - 1


def keep(agent: Callable[[str], NoReturn]) -> int:
    """Run `agent` in a child, again when it dies, until it ends in order; return the exit status.

    `agent` gets the reason why the one before it died, empty for the first. SIGTERM and SIGINT are passed on.
    """
    child = 0
    leaving = False

    def forward(number: int, _: object) -> None:
        nonlocal leaving
        leaving = True
        os.kill(child, number)

    deaths: list[float] = []
    reason = ""
    # Signals have to wait but for the time that there is a child to pass them on to.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    while True:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
            agent(reason)
        for number in _FORWARDED:
            signal.signal(number, forward)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        status = _wait_for(child)
        now = time.monotonic()
        death = Death(status, now - started)
        if not starts_anew(death, deaths, now, leaving=leaving):
            return death.exit_code
        deaths = [moment for moment in deaths if now - moment < WINDOW] + [now]
        reason = death.reason


def _wait_for(child: int) -> int:
    """Return the wait status of the child; signals are blocked from the moment that it is no more.

    Whoever else ends meanwhile is an orphan of an agent that died.
    """
    while True:
        # Looked at before it is reaped: its number stays its own until signals are blocked.
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        if ended.si_pid == child:
            signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
        pid, status = os.waitpid(ended.si_pid, 0)
        if pid == child:
            return status


def is_process_one() -> bool:
    """Whether this is the first process of its PID namespace."""
    return sys.platform == "linux" and os.getpid() == 1
