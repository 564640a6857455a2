"""Ports that a worker does not serve, as problems of the plan that is shown and as lines of the log."""

from __future__ import annotations

from structlog.testing import capture_logs

from discovery.model import ServicePort
from nodeagent.agent.ports import SHOWN, UnservedPorts
from nodeagent.control.messages import PortFailure
from nodeagent.plan.model import NodePlan
from tests.plan.builders import compile_services, make_service

PORTS = (ServicePort("dns", 53, "UDP"), ServicePort("dns-tcp", 53), ServicePort("web", 8080))


def failure_of(plan: NodePlan, number: int, reason: str = "is taken") -> PortFailure:
    listener = [*plan.listeners()][number]
    return PortFailure(listener.key, reason, "a free one", "nobody serves it")


def test_the_problem_names_the_port_and_the_plan_itself_stays_as_it_is() -> None:
    plan = compile_services(
        make_service("shop", ports=PORTS), make_service("other", cluster_ips=["10.96.0.11"])
    )
    keys = {listener.key for listener in plan.listeners()}
    ports = UnservedPorts()
    assert ports.shown_in(plan, keys) is plan
    failure = failure_of(plan, 0)
    assert failure.key[1] == 53
    ports.tell({failure.key: failure})
    before = plan.all_problems()
    with capture_logs() as lines:
        (problem,) = set(ports.shown_in(plan, keys).all_problems()) - set(before)
        ports.shown_in(plan, keys)
    assert plan.all_problems() == before
    assert (problem.namespace, problem.name, problem.origin) == ("default", "shop", "shop.yaml:1")
    assert (problem.field, problem.value) == ("spec.ports[1].port", "53")
    assert (problem.reason, problem.expected, problem.effect) == (
        "is taken",
        "a free one",
        "nobody serves it",
    )
    assert [(line["event"], line["service"], line["port"]) for line in lines] == [
        ("listen_failed", "default/shop", 53)
    ]
    assert [*ports.notes()] == ["problem: Service default/shop, port 53: is taken"]
    ports.tell({})
    with capture_logs() as lines:
        assert ports.shown_in(plan, keys) is plan
    assert [line["event"] for line in lines] == ["listen_recovered"]
    assert [*ports.notes()] == []


def test_a_port_that_leaves_the_plan_has_not_recovered() -> None:
    plan = compile_services(make_service())
    failure = failure_of(plan, 0)
    ports = UnservedPorts()
    ports.tell({failure.key: failure})
    ports.shown_in(plan, {failure.key})
    with capture_logs() as lines:
        ports.tell({})
        assert ports.shown_in(plan, set()) is plan, "it is being taken out"
        assert ports.shown_in(compile_services(previous=plan), set()).services == {}
    assert lines == []


def test_what_is_not_in_the_plan_yet_is_shown_once_it_is() -> None:
    plan = compile_services(make_service())
    failure = failure_of(plan, 0)
    empty = compile_services()
    ports = UnservedPorts()
    ports.tell({failure.key: failure})
    assert ports.shown_in(empty, set()) is empty
    assert len(ports.shown_in(plan, {failure.key}).all_problems()) == 1


def test_readyz_names_the_first_and_counts_the_others() -> None:
    plan = compile_services(make_service(ports=[ServicePort(f"p{n}", 8000 + n) for n in range(SHOWN + 2)]))
    failures = [failure_of(plan, number) for number in range(SHOWN + 2)]
    ports = UnservedPorts()
    ports.tell({failure.key: failure for failure in failures})
    assert len(ports.shown_in(plan, {failure.key for failure in failures}).all_problems()) == SHOWN + 2
    *named, last = ports.notes()
    assert len(named) == SHOWN
    assert last == "problem: 2 more ports are not served, see /plan"
