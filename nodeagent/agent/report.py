"""What a new plan changes, in the log.

Somebody who may write one object must not be able to fill the log: there is a limit for each object, for each
namespace and for the node. Further lines are counted; `/plan` shows everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec
import structlog

from discovery.model import Problem, ServiceKey
from discovery.position import split_place
from discovery.throttle import Throttle, Throttles
from nodeagent.plan.counts import count_fields
from nodeagent.plan.diff import PlanDelta, ServiceChange
from nodeagent.plan.model import NodePlan
from nodeagent.plan.problems import name_of

log = structlog.get_logger()

EVERY = 1.0
"""Seconds between two lines about plans, on average; and between two about endpoints alone."""
PLANS = 20
"""Lines about plans that may come at once."""
OF_OBJECT = (40, 10 / 60)
"""Lines about one object that may come at once (problems that came or went), and then each second."""
OF_NAMESPACE = (300, 2)
OF_NODE = (3000, 20)
LEFT_OUT_EVERY = 10.0
"""Seconds between two lines that say how many were left out."""
NAMED = 1000
"""Objects for which the lines that are left out are counted one by one."""

_Object = tuple[str, str, str]
"""Kind, namespace and name."""
_OTHERS: _Object = ("", "", "")


class Report:
    """Says what each plan changes. Counts problems as they come and go: most Services never have one."""

    def __init__(self) -> None:
        self._problems = 0
        self._told = -math.inf
        self._plans = Throttles(Throttle(PLANS, 1 / EVERY))
        self._objects = Throttles(Throttle(*OF_NODE), Throttle(*OF_NAMESPACE), Throttle(*OF_OBJECT))
        self._left_out: dict[_Object, int] = {}
        self._left_out_told = -math.inf

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
                if self._admits(_of_service(key), now):
                    log.info("service_added", service=str(key), address=service.address)
            elif service is None and self._admits(_of_service(key), now):
                log.info("service_removed", service=str(key))
        found, solved = _compare_problems(old, plan, changed)
        for problem in found:
            if self._admits(_of_problem(problem), now):
                write = log.info if problem.severity == "info" else log.warning
                write("problem_found", **_said_of(problem))
        for problem in solved:
            if self._admits(_of_problem(problem), now):
                log.info("problem_solved", **_said_of(problem))
        self._tell_left_out(now)
        self._problems += _errors(found) - _errors(solved)
        noise = not found and not solved and _endpoints_alone(changed) and now < self._told + EVERY
        noise = noise or not self._plans.admit(now, "")
        if not noise:
            self._told = now
        write = log.debug if noise else log.info
        write("plan_applied", **_describe(plan, delta), problems=self._problems)

    def _admits(self, of: _Object, now: float) -> bool:
        """Whether a line about an object may be written; it is counted if it may not."""
        if self._objects.admit(now, "", of[1], of):
            return True
        # With very many objects, only their number is kept.
        one = of if of in self._left_out or len(self._left_out) < NAMED else _OTHERS
        self._left_out[one] = self._left_out.get(one, 0) + 1
        return False

    def _tell_left_out(self, now: float) -> None:
        if not self._left_out or now < self._left_out_told + LEFT_OUT_EVERY:
            return
        self._left_out_told = now
        named = [one for one in self._left_out if one is not _OTHERS]
        kind, namespace, name = max(named, key=self._left_out.__getitem__)
        log.warning(
            "changes_not_logged",
            count=sum(self._left_out.values()),
            most_of=f"{kind} {namespace}/{name}".strip(),
            reason="they came too fast",
            effect="/plan has what is in force",
        )
        self._left_out.clear()


def _errors(problems: Iterable[Problem]) -> int:
    """Count the problems that are neither warnings nor notes."""
    return sum(problem.severity == "error" for problem in problems)


def _compare_problems(
    old: NodePlan, plan: NodePlan, changed: Sequence[ServiceChange]
) -> tuple[list[Problem], list[Problem]]:
    """Return the problems that came and those that went, each once; only what changed is looked at.

    One that only stands in another line now, or comes with other advice, is neither.
    """
    before: dict[Problem, Problem] = {}
    after: dict[Problem, Problem] = {}
    pairs: list[tuple[Sequence[Problem], Sequence[Problem]]] = [
        (change.old.problems if change.old else (), change.new.problems if change.new else ())
        for change in changed
    ]
    for was, now in chain(((old.problems, plan.problems),), pairs):
        if was is now or was == now:
            continue
        before |= {_identity(problem): problem for problem in was}
        after |= {_identity(problem): problem for problem in now}
    found = [problem for same, problem in after.items() if same not in before]
    return found, [problem for same, problem in before.items() if same not in after]


def _identity(problem: Problem) -> Problem:
    return msgspec.structs.replace(problem, origin="", expected="")


def _describe(plan: NodePlan, delta: PlanDelta) -> dict[str, int]:
    return {
        "plan_version": plan.version,
        **count_fields(plan),
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


def _of_service(key: ServiceKey) -> _Object:
    return ("Service", key.namespace, key.name)


def _of_problem(problem: Problem) -> _Object:
    return (problem.kind, problem.namespace, problem.name)


def _said_of(problem: Problem) -> dict[str, str | int]:
    file, line = split_place(problem.origin)
    fields: dict[str, str | int] = {
        "object": name_of(problem),
        "field": problem.field,
        "value": problem.value,
        "reason": problem.reason,
        "expected": problem.expected,
        "effect": problem.effect,
        "file": file,
        "line": line,
    }
    return {name: value for name, value in fields.items() if value}
