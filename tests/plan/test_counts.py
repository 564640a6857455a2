"""Which Services count as meshed, left out, or with problems."""

from __future__ import annotations

from nodeagent.plan.counts import ServiceCounts, count_fields, count_services, describe_counts
from nodeagent.plan.model import EMPTY_PLAN
from tests.plan.builders import compile_services, make_service


def test_nothing() -> None:
    assert count_services(EMPTY_PLAN) == ServiceCounts(0, 0, 0)
    assert list(describe_counts(ServiceCounts())) == ["0 Services in the mesh"]


def test_a_note_is_no_problem() -> None:
    plan = compile_services(make_service(cluster_ips=("16.0.0.53",)))
    assert [problem.severity for problem in plan.all_problems()] == ["info"]
    assert count_services(plan) == ServiceCounts(1, 0, 0)


def test_a_service_with_a_bad_setting_is_meshed_all_the_same() -> None:
    plan = compile_services(
        make_service(annotations={"svc.mesh/protocol": "x", "svc.mesh/idle-timeout": "y"})
    )
    assert count_services(plan) == ServiceCounts(1, 0, 1)
    assert count_fields(plan) == {"services": 1, "left_out": 0, "with_problems": 1}


def test_one_that_cannot_be_meshed_is_left_out() -> None:
    plan = compile_services(
        make_service("a", ports=()), make_service("b"), make_service("c", enabled="false")
    )
    assert count_services(plan) == ServiceCounts(1, 1, 1)
    assert list(describe_counts(count_services(plan))) == [
        "1 Service in the mesh",
        "1 left out",
        "1 with problems",
    ]
