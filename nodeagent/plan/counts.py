"""How many Services there are: the one way to count them, for pages, lines, metrics and commands. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import msgspec

from nodeagent.plan.model import NodePlan


class ServiceCounts(msgspec.Struct, frozen=True):
    """The Services of a plan, by what became of them."""

    meshed: int = 0
    """They have a mesh address and at least one port that is served there."""
    left_out: int = 0
    """They ask for the mesh, or try to, and are not meshed: their problems say why."""
    with_problems: int = 0
    """Of both: something in them cannot be used (notes do not count)."""


def count_problems(plan: NodePlan) -> int:
    """Count what cannot be used, in Services and other objects; warnings and notes do not count."""
    of_services = (problem for service in plan.services.values() for problem in service.problems)
    return sum(problem.severity == "error" for problem in chain(plan.problems, of_services))


def count_services(plan: NodePlan) -> ServiceCounts:
    """Count the Services of a plan."""
    services = plan.services.values()
    meshed = len([1 for service in services if service.address and service.listeners])
    noted = [service.problems for service in services if service.problems]
    troubled = sum(any(problem.severity == "error" for problem in problems) for problems in noted)
    return ServiceCounts(meshed, len(services) - meshed, troubled)


def count_fields(plan: NodePlan) -> dict[str, int]:
    """Return the counts as lines of the log have them."""
    counts = count_services(plan)
    return {
        "services": counts.meshed,
        "left_out": counts.left_out,
        "with_problems": counts.with_problems,
    }


def describe_counts(counts: ServiceCounts) -> Iterator[str]:
    """Yield the counts in words; those that are 0 are left out, but for the first."""
    yield f"{counts.meshed} Service{'' if counts.meshed == 1 else 's'} in the mesh"
    if counts.left_out:
        yield f"{counts.left_out} left out"
    if counts.with_problems:
        yield f"{counts.with_problems} with problems"
