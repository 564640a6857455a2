"""How many CPUs this process may use: its affinity, and the CPU quota of its control groups."""

from __future__ import annotations

import os

from nodeagent.cli.control_group import ControlGroup


def available_cpus(group: ControlGroup | None = None) -> int:
    """Return the CPUs this process may keep busy, rounded down, at least 1.

    Rounded down: with one worker more than the quota allows, workers are throttled while they hold requests.
    """
    affinity = len(os.sched_getaffinity(0))
    quota = cpu_quota(group or ControlGroup())
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def cpu_quota(group: ControlGroup) -> float | None:
    """Return the tightest CPU quota of this process's control group and those above it, None without one."""
    quotas = (_parse_quota(text) for text in group.limits("cpu.max"))
    return min((quota for quota in quotas if quota is not None), default=None)


def _parse_quota(text: str) -> float | None:
    """Read `cpu.max`: `<microseconds> <period>`, or `max <period>` without a limit."""
    quota, _, period = text.partition(" ")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return int(quota) / int(period)
