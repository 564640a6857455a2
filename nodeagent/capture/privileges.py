"""What this process may do, as the kernel says in `/proc/self/status`; giving that up; and ending with the
parent.

To be root says little in a container: what counts is the effective capability set (capabilities(7)).
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12

STATUS = Path("/proc/self/status")

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522


def has_capability(number: int, status: Path = STATUS) -> bool:
    """True if capability `number` is effective for this process; False where there is no such file."""
    try:
        text = status.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    for line in text.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, even if this one is stopped by then."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def drop_capabilities() -> None:
    """Give up every capability of this process for good; programs that it runs have none either.

    Nothing else changes: a process of root still owns root's files.

    Raises:
        OSError: the kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.capset(header, nothing):
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities cannot be given up: {os.strerror(number)}")
