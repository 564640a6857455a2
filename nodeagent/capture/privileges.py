"""What this process may do, as the kernel says it in `/proc/self/status`.

Being root says little in a container: what counts is the effective capability set (capabilities(7)).
"""

from __future__ import annotations

from pathlib import Path

CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12

STATUS = Path("/proc/self/status")


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
