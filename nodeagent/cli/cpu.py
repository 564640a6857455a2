"""How many CPUs this process may use: its affinity, and the CPU quota of its control groups (cgroup v2)."""

from __future__ import annotations

import os
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
HIERARCHY = Path("/sys/fs/cgroup")


def available_cpus(membership: Path = MEMBERSHIP, hierarchy: Path = HIERARCHY) -> int:
    """Return the CPUs this process may keep busy, rounded down, at least 1.

    Rounded down because a worker more than the quota pays for is a worker that is throttled while it holds
    requests.
    """
    affinity = len(os.sched_getaffinity(0))
    quota = cpu_quota(membership, hierarchy)
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def cpu_quota(membership: Path, hierarchy: Path) -> float | None:
    """Return the tightest CPU quota of this process's control group and those above it, None without one."""
    group = _own_group(membership)
    quotas = []
    for folder in (group, *group.parents):
        quota = _parse_quota(_read(hierarchy / folder / "cpu.max"))
        if quota is not None:
            quotas.append(quota)
    return min(quotas, default=None)


def _own_group(membership: Path) -> Path:
    """Return the path of the v2 control group below the hierarchy's root (cgroups(7), /proc/[pid]/cgroup)."""
    for line in _read(membership).splitlines():
        if line.startswith("0::"):
            group = Path(line.removeprefix("0::").lstrip("/"))
            # A namespace that was entered from outside shows paths above its root, which we cannot see.
            return Path() if ".." in group.parts else group
    return Path()


def _parse_quota(text: str) -> float | None:
    """Read `cpu.max`: `<microseconds> <period>`, or `max <period>` without a limit."""
    quota, _, period = text.strip().partition(" ")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
