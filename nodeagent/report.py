"""What a new plan changes, in the log."""

from __future__ import annotations

import structlog

from discovery.model import Problem
from nodeagent.delta import RouteDelta
from nodeagent.plan import NodePlan

log = structlog.get_logger()


def report_change(old: NodePlan, plan: NodePlan, delta: RouteDelta) -> None:
    """Log the Services and problems that came and went, and that the plan is in force."""
    before, after = set(old.services), set(plan.services)
    for key in sorted(after - before):
        service = plan.services[key]
        if service.address:
            log.info("service_added", service=str(key), address=service.address)
    for key in sorted(before - after):
        log.info("service_removed", service=str(key))
    was, now = set(old.all_problems()), set(plan.all_problems())
    for problem in sorted(now - was):
        _log_problem("problem_found", problem)
    for problem in sorted(was - now):
        _log_problem("problem_solved", problem)
    log.info(
        "plan_applied",
        plan_version=plan.version,
        services=len(plan.services),
        routes_changed=len(delta.upserted),
        routes_removed=len(delta.removed),
        problems=len(now),
    )


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
