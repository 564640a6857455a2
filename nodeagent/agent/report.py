"""What a new plan changes, in the log."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import structlog

from discovery.model import Problem
from nodeagent.plan.diff import PlanDelta, ServiceChange
from nodeagent.plan.model import NodePlan, ServicePlan

log = structlog.get_logger()

EVERY = 1.0
"""Seconds between two lines about endpoints alone."""


class Report:
    """Says what each plan changes. Counts problems as they come and go: most Services never have one."""

    def __init__(self) -> None:
        self._problems = 0
        self._told = -math.inf

    def tell(
        self,
        old: NodePlan,
        plan: NodePlan,
        changed: Sequence[ServiceChange],
        delta: PlanDelta,
        now: float,
    ) -> None:
        """Log the Services and problems that came and went, and that the plan is in force.

        `changed` and `delta` are what `nodeagent.plan.diff` finds from `old`, the plan told before, to
        `plan`; `now` is the monotonic clock. Where endpoints change all the time there is a line every
        `EVERY` seconds at level info, and the others are at debug.
        """
        for key, was, service in changed:
            if was is None and service is not None and service.address:
                log.info("service_added", service=str(key), address=service.address)
            elif service is None:
                log.info("service_removed", service=str(key))
        before = {*old.problems, *_problems(change.old for change in changed)}
        after = {*plan.problems, *_problems(change.new for change in changed)}
        for problem in sorted(after - before):
            _log_problem("problem_found", problem)
        for problem in sorted(before - after):
            _log_problem("problem_solved", problem)
        self._problems += len(after) - len(before)
        noise = before == after and _endpoints_alone(changed) and now < self._told + EVERY
        if not noise:
            self._told = now
        write = log.debug if noise else log.info
        write("plan_applied", **_describe(plan, delta), problems=self._problems)


def _describe(plan: NodePlan, delta: PlanDelta) -> dict[str, int]:
    return {
        "plan_version": plan.version,
        "services": len(plan.services),
        "listeners_changed": len(delta.upserted),
        "listeners_removed": len(delta.removed),
        "backends_changed": len(delta.backends) + len(delta.removed_backends),
    }


def _endpoints_alone(changed: Iterable[ServiceChange]) -> bool:
    """Whether the Services themselves are what they were."""
    return all(
        was is not None and now is not None and was.source.object is now.source.object
        for _, was, now in changed
    )


def _problems(services: Iterable[ServicePlan | None]) -> Iterator[Problem]:
    for service in services:
        if service is not None:
            yield from service.problems


def _log_problem(event: str, problem: Problem) -> None:
    fields = {
        "object": f"{problem.kind} {problem.namespace}/{problem.name}",
        "field": problem.field,
        "value": problem.value,
        "reason": problem.reason,
        "expected": problem.expected,
        "effect": problem.effect,
        "origin": problem.origin,
    }
    write = log.warning if event == "problem_found" and problem.severity == "error" else log.info
    write(event, **{name: value for name, value in fields.items() if value})
