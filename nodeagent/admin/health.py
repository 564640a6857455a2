"""What the agent's health checks have found, as metrics show it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nodeagent.plan.model import BackendKey


class HealthState(msgspec.Struct, frozen=True):
    """The probes of an agent since its start."""

    endpoints: int = 0
    """Probes that are made regularly now."""
    passed: int = 0
    failed: int = 0
    unasked: int = 0
    """Probes that this node could not make: they say nothing about the endpoint."""
    ejections: Mapping[BackendKey, int] = {}
    """How often an endpoint has become unhealthy, by backend; a backend that is missing had none."""
    unhealthy: Mapping[BackendKey, int] = {}
    """Endpoints that are unhealthy now."""
