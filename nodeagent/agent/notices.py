"""Which notices follow from a plan: a warning for a Service's new problem, an all-clear for a mended one.

All agents of a cluster find the same notices with the same identities, so that an agent can leave out what
another one has reported. A problem that comes back counts as a new one: its identity contains how often it
was solved before. Pure; remembers the plans that it has seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from discovery.bounds import MORE, shorten
from discovery.model import Problem, ServiceKey
from discovery.notice import Notice
from nodeagent.plan.diff import diff_services
from nodeagent.plan.model import EMPTY_PLAN, NodePlan, ServicePlan

REMEMBERED = 10_000
"""Problems of which the number of returns is kept; the oldest are forgotten."""

_Fault = tuple[str, str, str]
"""What makes it the same problem: field, value, reason. What is in force instead may differ between nodes."""


class Notices:
    """The notices of successive plans."""

    def __init__(self) -> None:
        self._plan: NodePlan = EMPTY_PLAN
        self._mended: dict[tuple[str, _Fault], int] = {}
        """How often a problem of a Service (its uid) was solved."""

    def changed(self, plan: NodePlan) -> list[Notice]:
        """Return what to report now that this plan is in force. Services without a uid are left out: no
        object exists to report it on.
        """
        changed = diff_services(self._plan, plan)
        self._plan = plan
        notices: list[Notice] = []
        for key, old, new in changed:
            if new is not None and new.source.object.uid:
                notices += self._compare(key, old, new)
        return notices

    def _compare(self, key: ServiceKey, old: ServicePlan | None, new: ServicePlan) -> Iterator[Notice]:
        uid = new.source.object.uid
        was = _faults(old) if old is not None and old.source.object.uid == uid else {}
        now = _faults(new)
        for fault, problem in now.items():
            if fault not in was:
                yield _warning(key, uid, problem, (*fault, str(self._mended.get((uid, fault), 0))))
        bad_fields = {field for field, _, _ in now}
        for fault, problem in was.items():
            if fault not in now:
                times = self._count(uid, fault)
                if problem.field not in bad_fields:
                    yield _all_clear(key, uid, problem, new, (*fault, str(times)))

    def _count(self, uid: str, fault: _Fault) -> int:
        times = self._mended.pop((uid, fault), 0) + 1
        self._mended[uid, fault] = times
        if len(self._mended) > REMEMBERED:
            del self._mended[next(iter(self._mended))]
        return times


def _faults(service: ServicePlan) -> Mapping[_Fault, Problem]:
    # The number of further problems changes with each of them, and would be reported each time.
    return {
        (p.field, p.value, "" if p.field == MORE else p.reason): p
        for p in service.problems
        if p.severity == "error"
    }


def _warning(key: ServiceKey, uid: str, problem: Problem, identity: tuple[str, ...]) -> Notice:
    shown = f"{problem.field}={problem.value}:" if problem.value else problem.field
    parts = [f"{shown} {problem.reason}"]
    if problem.expected:
        parts.append(f"expected: {problem.expected}")
    if problem.effect:
        parts.append(f"now: {problem.effect}")
    reason = "InvalidAnnotation" if _is_annotation(problem) else "InvalidService"
    return Notice(key, uid, "Warning", reason, "; ".join(parts), identity)


def _all_clear(
    key: ServiceKey, uid: str, problem: Problem, new: ServicePlan, identity: tuple[str, ...]
) -> Notice:
    if not _is_annotation(problem):
        return Notice(key, uid, "Normal", "ServiceMended", f"{problem.field}: in order again", identity)
    value = new.source.object.written(problem.field)
    now = "was removed" if value is None else f"is {shorten(value)} now, and in force"
    return Notice(key, uid, "Normal", "AnnotationMended", f"{problem.field}: {now}", identity)


def _is_annotation(problem: Problem) -> bool:
    return "/" in problem.field
