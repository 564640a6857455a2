"""Process 1 of the agent's container: starts the agent, and starts it again when it dies.

When process 1 of a PID namespace ends, the kernel kills all others in it. If the agent were process 1, its
death would end its workers and every connection of the node; so it is a child of process 1. The workers
continue to serve until the next agent is ready (`nodeagent.control.successor`). When the agent ends
regularly, process 1 ends too.

An agent can also stop without dying. It writes a byte into a pipe every second; an agent that has stopped
doing so is killed, and another is started as after a death.

Only the standard library is imported here, so that this process stays small.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, NoReturn

SETTLED: Final = 10.0
"""An agent that exits with an error after this many seconds counts as dead; before that, it could not
start."""
DEATHS: Final = 5
"""If there are this many deaths within `WINDOW` seconds, the container ends, and what started it decides."""
WINDOW: Final = 60.0
LOOK: Final = 1.0
"""Seconds between two looks at the agent's pulse."""
HUNG: Final = 20
"""Looks without a pulse after which an agent that had one is killed. Looks, not seconds: while the whole
container is frozen, there are no looks."""
_FORWARDED: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_AWAITED: Final = _FORWARDED | {signal.SIGCHLD}


class Kept(NamedTuple):
    """What an agent learns from the process that keeps it running."""

    died: str
    """Why the agent before it died; empty for the first."""
    pulse: int
    """The descriptor into which it has to write a byte every second."""


class Death(NamedTuple):
    """How an agent ended: its wait status, and after how many seconds."""

    status: int
    lived: float
    hung: bool = False
    """Whether it was killed because it had no pulse any more."""

    @property
    def reason(self) -> str:
        """For the log."""
        if self.hung:
            return f"hung: no sign of life for {HUNG * LOOK:g}s"
        if os.WIFSIGNALED(self.status):
            return f"killed by {signal.Signals(os.WTERMSIG(self.status)).name}"
        return f"exit status {os.WEXITSTATUS(self.status)}"

    @property
    def exit_code(self) -> int:
        """The exit code, as a shell would show it."""
        if os.WIFSIGNALED(self.status):
            return 128 + os.WTERMSIG(self.status)
        return os.WEXITSTATUS(self.status)

    @property
    def sudden(self) -> bool:
        """Whether a new agent may help: this one was killed, or failed after it had served for a while."""
        return os.WIFSIGNALED(self.status) or (self.exit_code != 0 and self.lived >= SETTLED)


def starts_anew(death: Death, before: Sequence[float], now: float, *, leaving: bool) -> bool:
    """Return whether to start another agent; `before` is when earlier ones died, in monotonic seconds."""
    recent = sum(now - moment < WINDOW for moment in before)
    return death.sudden and not leaving and recent < DEATHS - 1


def keep(agent: Callable[[Kept], NoReturn], hung: int = HUNG) -> int:
    """Run `agent` in a child, again when it dies, until it ends in order; return the exit status.

    SIGTERM and SIGINT are passed on. `hung` is how many looks without a pulse are too many.
    """
    # Blocked signals wait until we ask for them: none is missed, and none comes at a bad moment.
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    deaths: list[float] = []
    reason = ""
    leaving = False
    while True:
        started = time.monotonic()
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            os.set_blocking(theirs, False)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
            agent(Kept(reason, theirs))
        os.close(theirs)
        os.set_blocking(ours, False)
        status, was_hung, told = _attend(child, ours, hung)
        os.close(ours)
        leaving = leaving or told
        now = time.monotonic()
        death = Death(status, now - started, was_hung)
        if not starts_anew(death, deaths, now, leaving=leaving):
            return death.exit_code
        deaths = [moment for moment in deaths if now - moment < WINDOW] + [now]
        reason = death.reason


def _attend(child: int, pulse: int, hung: int) -> tuple[int, bool, bool]:
    """Wait until the child ends; return its wait status, whether it hung, whether it was told to leave."""
    leaving = was_hung = False
    missed = -1  # not counted before there has been a pulse
    look_at = time.monotonic() + LOOK
    while True:
        came = signal.sigtimedwait(_AWAITED, max(0.0, look_at - time.monotonic()))
        if came is None:
            look_at = time.monotonic() + LOOK
            if _beats(pulse):
                missed = 0
            elif missed >= 0:
                missed += 1
            if missed == hung:
                was_hung = True
                os.kill(child, signal.SIGKILL)
        elif came.si_signo in _FORWARDED:
            leaving = True
            os.kill(child, came.si_signo)
        elif (status := _reap(child)) is not None:
            return status, was_hung, leaving


def _beats(pulse: int) -> bool:
    """Return whether the agent has written since the last look."""
    try:
        return bool(os.read(pulse, 4096))
    except BlockingIOError:
        return False


def _reap(child: int) -> int | None:
    """Reap all processes that ended, also orphans of dead agents; return the wait status of the child if it
    ended.
    """
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = status


def is_process_one() -> bool:
    """Whether this is the first process of its PID namespace."""
    return sys.platform == "linux" and os.getpid() == 1
