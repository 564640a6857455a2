"""What the log says of a new plan."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from discovery.model import Endpoint, Problem, Service
from nodeagent.agent.report import EVERY, Report
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
