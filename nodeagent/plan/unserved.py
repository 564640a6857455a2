"""Ports that are in the plan and that a worker does not serve, as problems of their Services. Pure.

The plan itself does not know of them: they depend on what else runs on this machine, and come and go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from discovery.model import Problem, Service
from nodeagent.plan.model import Listener, ListenerKey, NodePlan
from nodeagent.plan.problems import service_problem


class Unserved(msgspec.Struct, frozen=True):
    """A listener that is not served as the plan says; the texts are those of a `Problem`."""

    listener: Listener
    reason: str
    expected: str
    effect: str


def with_problems(plan: NodePlan, unserved: Sequence[Unserved]) -> NodePlan:
    """Return the plan with a problem for each of these listeners; the same plan if there are none."""
    if not unserved:
        return plan
    services = dict(plan.services)
    for one in unserved:
        known = services[one.listener.service]
        problems = (*known.problems, problem_of(one, known.source))
        services[one.listener.service] = msgspec.structs.replace(known, problems=problems)
    return msgspec.structs.replace(plan, services=services)


def problem_of(unserved: Unserved, service: Service) -> Problem:
    """Return the problem of one port of this Service."""
    port = unserved.listener.port
    ports = [(one.port, one.protocol) for one in service.object.ports]
    field = f"spec.ports[{ports.index((port, 'TCP'))}].port"
    return service_problem(
        service.object, field, str(port), unserved.reason, unserved.expected, unserved.effect
    )


def listeners_at(plan: NodePlan, keys: Mapping[ListenerKey, object]) -> dict[ListenerKey, Listener]:
    """Return those listeners of the plan that are at these addresses and ports."""
    return {listener.key: listener for listener in plan.listeners() if listener.key in keys} if keys else {}
