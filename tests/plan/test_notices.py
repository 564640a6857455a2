"""Which notices follow from which plans: one for each problem, one when it is over, on all nodes the same"""

from __future__ import annotations

from typing import Any

import pytest

from discovery.bounds import MORE
from discovery.model import Problem, Service, ServiceKey, ServiceObject
from discovery.notice import Notice
from nodeagent.agent import notices as module
from nodeagent.agent.notices import Notices
from nodeagent.plan.model import EMPTY_PLAN, NodePlan, ServicePlan

KEY = ServiceKey("shop", "web")
RETRIES = "svc.mesh/retry-attempts"


def problem(
    value: str = "many", field: str = RETRIES, effect: str = "retry is off", severity: str = "error"
) -> Problem:
    return Problem(
        *("shop", "web", field, value, "is not a whole number"),
        expected="such as 2",
        effect=effect,
        severity=severity,  # type: ignore[arg-type]
    )


def plan_of(*problems: Problem, uid: str = "u1", version: int = 1, **annotations: str) -> NodePlan:
    found = ServiceObject(KEY, {RETRIES: "2", **annotations}, uid=uid)
    return NodePlan(version, {KEY: ServicePlan(Service(found, {}), "240.0.1.1", (), (), {}, problems)})


def reasons(notices: list[Notice]) -> list[str]:
    return [notice.reason for notice in notices]


def test_a_problem_is_told_once_with_field_reason_and_what_is_in_force() -> None:
    notices = Notices()
    plan = plan_of(problem())
    (notice,) = notices.changed(plan)
    assert (notice.service, notice.uid, notice.type, notice.reason) == (
        KEY,
        "u1",
        "Warning",
        "InvalidAnnotation",
    )
    assert (
        notice.note
        == "svc.mesh/retry-attempts=many: is not a whole number; expected: such as 2; now: retry is off"
    )
    assert notices.changed(plan) == []
    assert notices.changed(plan_of(problem())) == [], "an equal one is no other"


def test_it_is_followed_by_an_all_clear() -> None:
    notices = Notices()
    notices.changed(plan_of(problem()))
    (notice,) = notices.changed(plan_of())
    assert (notice.type, notice.reason) == ("Normal", "AnnotationMended")
    assert notice.note == "svc.mesh/retry-attempts: is 2 now, and in force"
    assert notices.changed(plan_of()) == []


def test_another_bad_value_is_another_problem_and_nothing_is_mended() -> None:
    notices = Notices()
    notices.changed(plan_of(problem("many")))
    assert reasons(notices.changed(plan_of(problem("lots")))) == ["InvalidAnnotation"]


def test_what_is_in_force_instead_may_differ_between_nodes() -> None:
    (here,) = Notices().changed(plan_of(problem(effect="retry is off")))
    (there,) = Notices().changed(plan_of(problem(effect=f"{RETRIES}=5 stays in force")))
    assert here.identity == there.identity
    notices = Notices()
    notices.changed(plan_of(problem(effect="retry is off")))
    assert notices.changed(plan_of(problem(effect="the default is in force"))) == []


def test_a_problem_that_returns_is_told_again() -> None:
    notices = Notices()
    told = [
        notice
        for _ in range(3)
        for plan in (plan_of(problem()), plan_of())
        for notice in notices.changed(plan)
    ]
    assert reasons(told) == ["InvalidAnnotation", "AnnotationMended"] * 3
    assert len({(notice.reason, notice.identity) for notice in told}) == 6


def test_agents_agree_on_the_identity_whatever_they_have_seen_of_other_services() -> None:
    def history(notices: Notices) -> list[tuple[str, ...]]:
        plans = [plan_of(problem()), plan_of(), plan_of(problem())]
        return [notice.identity for plan in plans for notice in notices.changed(plan)]

    assert history(Notices()) == history(Notices())


def test_a_service_of_the_same_name_is_another() -> None:
    notices = Notices()
    notices.changed(plan_of(problem(), uid="u1"))
    (notice,) = notices.changed(plan_of(problem(), uid="u2"))
    assert (notice.reason, notice.uid) == ("InvalidAnnotation", "u2")
    assert reasons(notices.changed(plan_of(uid="u3"))) == [], "it is not its problem that is over"


def test_what_concerns_no_annotation_is_said_otherwise() -> None:
    notices = Notices()
    ports = problem(value="", field="spec.ports")
    (bad,) = notices.changed(plan_of(ports))
    (good,) = notices.changed(plan_of())
    assert (bad.reason, good.reason) == ("InvalidService", "ServiceMended")
    assert bad.note.startswith("spec.ports is not a whole number;")


def test_an_annotation_that_was_removed_is_mended() -> None:
    notices = Notices()
    notices.changed(plan_of(problem(field="svc.mesh/other")))
    (notice,) = notices.changed(plan_of())
    assert notice.note == "svc.mesh/other: was removed"


def test_nothing_is_told_of_remarks_of_files_and_of_services_that_left() -> None:
    notices = Notices()
    assert notices.changed(plan_of(problem(severity="info"))) == []
    assert notices.changed(plan_of(problem(), uid="")) == []
    notices.changed(plan_of(problem()))
    assert notices.changed(EMPTY_PLAN) == []


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    notices = Notices()
    monkeypatch.setattr(module, "REMEMBERED", 3)
    for number in range(10):
        notices.changed(plan_of(problem(str(number))))
    notices.changed(plan_of())
    assert len(notices._mended) == 3


def test_how_many_problems_are_not_listed_is_told_once() -> None:
    notices = Notices()

    def crowd(count: int) -> Problem:
        return Problem("shop", "web", MORE, "", f"there are {count} more")

    (first,) = notices.changed(plan_of(crowd(10)))
    assert "there are 10 more" in first.note
    assert notices.changed(plan_of(crowd(11))) == []
    assert reasons(notices.changed(plan_of())) == ["ServiceMended"]


def test_a_long_value_is_cut_where_it_is_quoted() -> None:
    notices = Notices()
    notices.changed(plan_of(problem()))
    mended: dict[str, Any] = {RETRIES: "x" * 60_000}
    (notice,) = notices.changed(plan_of(**mended))
    assert len(notice.note) < 400


def test_another_meshs_annotation_is_mended_under_the_name_it_was_written_with() -> None:
    burst = "mesh.traefik.io/ratelimit-burst"
    found = ServiceObject(
        KEY,
        {"svc.mesh/rate-limit": "100/s burst=5 per=source"},
        uid="u1",
        foreign={burst: "5"},
        translated={"svc.mesh/rate-limit": (burst,)},
    )
    mended = NodePlan(2, {KEY: ServicePlan(Service(found, {}), "240.0.1.1", (), (), {})})
    notices = Notices()
    notices.changed(plan_of(problem("hello", burst)))
    (notice,) = notices.changed(mended)
    assert notice.note == f"{burst}: is 5 now, and in force"
