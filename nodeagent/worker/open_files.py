"""How many files a worker may have open, and how many connections of clients that makes.

Container runtimes give a process 1,024 at first and let it ask for many more. A worker that runs out of them
cannot accept, nor connect to endpoints, and nothing would say so: so it asks for all it may have, and refuses
clients while there are still descriptors for what it needs itself.
"""

from __future__ import annotations

import resource
from typing import Final

ENOUGH: Final = 1024 * 1024
"""Asked for where there is no limit: the kernel keeps a table of this size at most."""
OWN: Final = 64
"""What a worker needs besides connections."""


def raise_limit() -> int:
    """Let this process have as many files open as it may, and return how many these are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and wanted > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            wanted = soft
    return wanted


def most_clients(files: int, most: int) -> int:
    """Return how many clients, at most `most`, a worker with so many files can serve: each needs two."""
    return max(1, min(most, (files - OWN) // 2))
