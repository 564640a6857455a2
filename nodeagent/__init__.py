"""The process on a node: it plans what this node does, programs the kernel and moves the traffic."""

import os
import sys


def open_standard_files() -> None:
    """Open /dev/null in place of standard input, output and error where they were closed when we were
    started.

    Otherwise the next file that is opened, perhaps a socket or shared memory, gets one of these numbers, and
    the log is written into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            os.set_inheritable(number, True)


def load_structlog() -> None:
    """Import structlog without rich, which it loads if it is installed.

    rich is used for coloured tracebacks only, and costs 4.5 MiB in the agent and in every worker.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # what makes `import rich` fail
    try:
        import structlog  # noqa: F401 for its side effect
    finally:
        del sys.modules["rich"]


open_standard_files()
# Process 1 of a container does no more than keep an agent running, and stays small: see nodeagent.init.
if os.getpid() != 1:
    load_structlog()
