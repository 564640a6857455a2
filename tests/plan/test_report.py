"""What the log says of a new plan."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from structlog.testing import capture_logs

from discovery.model import Endpoint, Problem, Service
from nodeagent.agent.report import (
    EVERY,
    LEFT_OUT_EVERY,
    NAMED,
    OF_NAMESPACE,
    OF_NODE,
    OF_OBJECT,
    PLANS,
    Report,
)
from nodeagent.plan.diff import diff_plans, diff_services
from nodeagent.plan.model import EMPTY_PLAN, NodePlan
from tests.plan.builders import compile_services, make_service


class Told:
    """A report, and the plan that it was told last."""

    def __init__(self) -> None:
        self.report = Report()
        self.plan: NodePlan = EMPTY_PLAN

    def next(self, now: float, *services: Service) -> list[Any]:
        """Tell the plan of these Services; return the lines."""
        plan = compile_services(*services, previous=self.plan)
        changed = diff_services(self.plan, plan)
        with capture_logs() as lines:
            self.report.tell(self.plan, plan, changed, diff_plans(changed), now)
        self.plan = plan
        return lines


def shop(*addresses: str, **annotations: str) -> Service:
    endpoints = {"http": [Endpoint(address, 8080) for address in addresses]}
    return make_service(
        endpoints=endpoints, annotations={f"svc.mesh/{name}": value for name, value in annotations.items()}
    )


def test_a_problem_that_only_moved_is_not_told_again() -> None:
    told = Told()
    bad = shop("10.1.0.1", protocol="x")
    (problem,) = [line for line in told.next(0, bad) if line["event"] == "problem_found"]
    assert (problem["file"], problem["line"]) == ("shop.yaml", 1)
    moved = msgspec.structs.replace(bad.object, origin="shop.yaml:9", cluster_ips=("10.96.0.99",))
    lines = told.next(1, msgspec.structs.replace(bad, object=moved))
    assert [line["event"] for line in lines] == ["plan_applied"]
    assert [one.origin for one in told.plan.all_problems()] == ["shop.yaml:9"]


def test_services_and_problems_that_come_and_go() -> None:
    told = Told()
    good, bad = shop("10.1.0.1"), shop("10.1.0.1", protocol="x")
    lines = told.next(0, good)
    assert [line["event"] for line in lines] == ["service_added", "plan_applied"]
    assert (lines[-1]["services"], lines[-1]["listeners_changed"], lines[-1]["problems"]) == (1, 1, 0)
    lines = told.next(1, bad)
    assert [line["event"] for line in lines] == ["problem_found", "plan_applied"]
    assert (lines[0]["log_level"], lines[0]["field"]) == ("warning", "svc.mesh/protocol")
    assert lines[-1]["problems"] == len(told.plan.all_problems()) == 1
    other = make_service("other", cluster_ips=["10.96.0.99"], annotations={"svc.mesh/protocol": "y"})
    assert told.next(2, bad, other)[-1]["problems"] == len(told.plan.all_problems()) == 2
    lines = told.next(3, good)
    assert [line["event"] for line in lines] == [
        "service_removed",
        "problem_solved",
        "problem_solved",
        "plan_applied",
    ]
    assert lines[-1]["problems"] == 0


def test_problems_of_no_service_count_too() -> None:
    problem = Problem("shop", "a-1", "f", "v", "r", kind="EndpointSlice")
    report = Report()
    with capture_logs() as lines:
        report.tell(EMPTY_PLAN, NodePlan(1, {}, (problem,)), [], diff_plans([]), 0)
    assert [(line["event"], line.get("problems")) for line in lines] == [
        ("problem_found", None),
        ("plan_applied", 1),
    ]


def test_endpoints_that_change_all_the_time_do_not_fill_the_log() -> None:
    told = Told()
    service = shop("10.1.0.1")
    told.next(0, service)

    def level(now: float, number: int) -> str:
        changed = Service(service.object, {"http": (Endpoint(f"10.1.0.{number}", 8080),)})
        (line,) = told.next(now, changed)
        return str(line["log_level"])

    assert level(EVERY, 2) == "info"
    assert level(EVERY + 0.5, 3) == "debug"
    assert level(2 * EVERY, 4) == "info"
    assert [line["log_level"] for line in told.next(2 * EVERY + 0.1, shop("10.1.0.4", protocol="tcp"))] == [
        "info"
    ], "an annotation is no endpoint"


def events(lines: list[Any]) -> Counter[str]:
    return Counter(line["event"] for line in lines)


def many_problems(number: int, name: str = "shop", address: str = "10.96.0.10") -> Service:
    annotations = {f"svc.mesh/noise-{number}-{one}": "x" for one in range(500)}
    return make_service(name, annotations=annotations, cluster_ips=[address])


def test_one_object_that_changes_all_the_time_does_not_fill_the_log() -> None:
    told = Told()
    lines = [line for second in range(60) for line in told.next(second, many_problems(second))]
    counted = events(lines)
    about_it = counted["problem_found"] + counted["problem_solved"] + counted["service_added"]
    assert OF_OBJECT[0] <= about_it <= OF_OBJECT[0] + 60 * OF_OBJECT[1] + 1
    assert counted["changes_not_logged"] <= 60 / LEFT_OUT_EVERY + 1
    assert counted["plan_applied"] == 60
    assert sum(len(str(line)) for line in lines) < 100_000


def test_what_is_left_out_is_counted_and_said() -> None:
    told = Told()
    lines = [line for second in range(30) for line in told.next(second, many_problems(second))]
    lines += told.next(1000, many_problems(29))
    left_out = [line for line in lines if line["event"] == "changes_not_logged"]
    assert {line["most_of"] for line in left_out} == {"Service default/shop"}
    counted = events(lines)
    # Sixteen problems and one for all others; that one stays the same.
    all_there_were = 16 * (2 * 30 - 1) + 1
    assert (
        counted["problem_found"]
        + counted["problem_solved"]
        + counted["service_added"]
        + sum(line["count"] for line in left_out)
        == all_there_were + 1
    )


def test_the_noise_of_one_leaves_room_for_others() -> None:
    told = Told()
    for second in range(20):
        told.next(second, many_problems(second))
    quiet = make_service("quiet", annotations={"svc.mesh/protocol": "x"}, cluster_ips=["10.96.0.99"])
    lines = told.next(21, many_problems(21), quiet)
    assert {"problem_found", "service_added"} <= {
        line["event"] for line in lines if "default/quiet" in str(line)
    }


def crowd(number: int, services: int) -> list[Service]:
    return [
        make_service(f"s{one}", annotations={"svc.mesh/protocol": f"x{number}"}, cluster_ips=[])
        for one in range(services)
    ]


def test_many_objects_of_one_namespace_have_a_bound_together() -> None:
    told = Told()
    lines = [line for second in range(10) for line in told.next(second, *crowd(second, 400))]
    counted = events(lines)
    assert counted["problem_found"] + counted["problem_solved"] + counted["service_added"] <= (
        OF_NAMESPACE[0] + 10 * OF_NAMESPACE[1]
    )
    assert lines[-1]["problems"] == 400, "all are counted"


def test_many_namespaces_have_a_bound_together() -> None:
    report = Report()
    lines: list[Any] = []
    before = NodePlan(0, {})
    for second in range(10):
        problems = tuple(
            Problem(f"n{one}", "a", "f", str(second), "r", kind="EndpointSlice") for one in range(2000)
        )
        after = NodePlan(second + 1, {}, problems)
        with capture_logs() as found:
            report.tell(before, after, [], diff_plans([]), second)
        lines += found
        before = after
    counted = events(lines)
    assert counted["problem_found"] + counted["problem_solved"] <= OF_NODE[0] + 10 * OF_NODE[1]
    assert len(report._left_out) <= NAMED + 1


def test_plans_that_follow_each_other_fast_are_told_now_and_then() -> None:
    told = Told()
    lines = [
        line
        for number in range(200)
        for line in told.next(number / 100, shop("10.1.0.1", protocol=("tcp", "http")[number % 2]))
        if line["event"] == "plan_applied"
    ]
    assert len(lines) == 200
    assert sum(line["log_level"] == "info" for line in lines) <= PLANS + 3
