"""What a new plan changes, in the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import structlog

from discovery.model import Problem
from nodeagent.delta import RouteDelta, ServiceChange
from nodeagent.plan import NodePlan, ServicePlan

log = structlog.get_logger()


class Report:
    """Says what each plan changes. Counts problems as they come and go: most Services never have one."""

    def __init__(self) -> None:
        self._problems = 0

    def tell(
        self, old: NodePlan, plan: NodePlan, changed: Sequence[ServiceChange], delta: RouteDelta
    ) -> None:
        """Log the Services and problems that came and went, and that the plan is in force.

        `changed` and `delta` are what `nodeagent.delta` finds from `old`, the plan told before, to `plan`.
        """
        for key, was, now in changed:
            if was is None and now is not None and now.address:
                log.info("service_added", service=str(key), address=now.address)
            elif now is None:
                log.info("service_removed", service=str(key))
        before = {*old.problems, *_problems(change.old for change in changed)}
        after = {*plan.problems, *_problems(change.new for change in changed)}
        for problem in sorted(after - before):
            _log_problem("problem_found", problem)
        for problem in sorted(before - after):
            _log_problem("problem_solved", problem)
        self._problems += len(after) - len(before)
        log.info(
            "plan_applied",
            plan_version=plan.version,
            services=len(plan.services),
            routes_changed=len(delta.upserted),
            routes_removed=len(delta.removed),
            problems=self._problems,
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
