"""Defaults and limits of a platform team, for namespaces and the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.model import MeshSnapshot, NamespaceKey, NamespaceObject, Service, ServicePort
from middleware.registry import MIDDLEWARES
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.model import EMPTY_PLAN, NodePlan, ServicePlan
from nodeagent.plan.policy import Rules, clamp
from nodeagent.plan.problems import name_of
from nodeagent.settings import Settings
from tests.plan.builders import SETTINGS, make_service

RULES = Rules(MIDDLEWARES)


def annotated(said: Mapping[str, str]) -> dict[str, str]:
    return {f"svc.mesh/{name}": value for name, value in said.items()}


def in_namespace(service: Service, said: Mapping[str, str]) -> Service:
    namespace = NamespaceObject(NamespaceKey("default"), annotated(said))
    return msgspec.structs.replace(service, namespace=namespace)


def plan_of(*services: Service, previous: NodePlan = EMPTY_PLAN, settings: Settings = SETTINGS) -> NodePlan:
    namespaces = {one.namespace.key.name: one.namespace for one in services if one.namespace is not None}
    snapshot = MeshSnapshot(
        previous.version + 1, {service.key: service for service in services}, namespaces=namespaces
    )
    return compile_plan(snapshot, previous, settings, MIDDLEWARES)


def planned(
    own: Mapping[str, str], namespace: Mapping[str, str], previous: NodePlan = EMPTY_PLAN, **cluster: Any
) -> ServicePlan:
    settings = msgspec.structs.replace(SETTINGS, **{key: annotated(said) for key, said in cluster.items()})
    service = in_namespace(make_service(annotations=annotated(own)), namespace)
    return plan_of(service, previous=previous, settings=settings).services[service.key]


def value(plan: ServicePlan, name: str) -> str | None:
    return plan.effective.get(f"svc.mesh/{name}")


def origin(plan: ServicePlan, name: str) -> str | None:
    return plan.origins.get(f"svc.mesh/{name}")


def test_a_default_holds_where_the_owner_says_nothing() -> None:
    plan = planned({}, {"default.timeout": "5s"})
    assert value(plan, "timeout") == "5s"
    assert origin(plan, "timeout") == "svc.mesh/default.timeout of Namespace default"
    assert plan.problems == ()
    (layer,) = plan.listeners[0].rules[0].layers
    assert layer.options.limit == 5.0


def test_owner_then_namespace_then_cluster() -> None:
    own, namespace, cluster = {"timeout": "1s"}, {"default.timeout": "2s"}, {"timeout": "3s"}
    assert value(planned(own, namespace, defaults=cluster), "timeout") == "1s"
    assert value(planned({}, namespace, defaults=cluster), "timeout") == "2s"
    plan = planned({}, {"default.cors": "*"}, defaults=cluster)
    assert value(plan, "timeout") == "3s"
    assert origin(plan, "timeout") == "--default timeout of the agents"
    assert origin(planned(own, namespace, defaults=cluster), "timeout") is None


def test_the_lower_limit_holds_and_is_told_to_the_owner() -> None:
    namespace, cluster = {"limit.retry-attempts": "5"}, {"retry-attempts": "3"}
    plan = planned({"retry-attempts": "9"}, namespace, setting_limits=cluster)
    assert value(plan, "retry-attempts") == "3"
    (problem,) = plan.problems
    assert (problem.field, problem.value, problem.severity) == ("svc.mesh/retry-attempts", "9", "warning")
    assert problem.reason == "is above --limit retry-attempts of the agents, 3"
    assert problem.effect == "svc.mesh/retry-attempts=3 is in force"
    within = planned({"retry-attempts": "2"}, {"limit.retry-attempts": "5"})
    assert (value(within, "retry-attempts"), origin(within, "retry-attempts")) == ("2", None)
    assert within.problems == ()


def test_a_limit_holds_a_default_too_without_a_problem_of_the_owner() -> None:
    plan = planned({}, {"default.timeout": "1m", "limit.timeout": "10s"})
    assert value(plan, "timeout") == "10s"
    assert origin(plan, "timeout") == "svc.mesh/limit.timeout of Namespace default"
    assert plan.problems == ()


def test_a_limit_of_what_is_unlimited_otherwise_is_in_force_by_itself() -> None:
    assert value(planned({}, {"limit.timeout": "10s"}), "timeout") == "10s"
    assert value(planned({}, {"limit.retry-attempts": "3"}), "retry-attempts") is None


def test_a_limit_holds_for_single_ports() -> None:
    ports = (ServicePort("http", 80), ServicePort("admin", 8080))
    own = annotated({"timeout.admin": "1m", "timeout": "1s"})
    service = in_namespace(make_service(annotations=own, ports=ports), {"limit.timeout": "10s"})
    plan = plan_of(service).services[service.key]
    assert value(plan, "timeout.admin") == "10s"
    assert [problem.field for problem in plan.problems] == ["svc.mesh/timeout.admin"]


def test_a_bad_value_falls_back_to_the_default_and_not_above_the_limit() -> None:
    plan = planned({"timeout": "soon"}, {"default.timeout": "5s"})
    assert value(plan, "timeout") == "5s"
    before = plan_of(make_service(annotations=annotated({"timeout": "1m"})))
    plan = planned({"timeout": "soon"}, {"limit.timeout": "10s"}, previous=before)
    assert value(plan, "timeout") == "10s"
    assert [problem.field for problem in plan.problems] == ["svc.mesh/timeout"]


def test_a_default_that_goes_with_nothing_here_is_no_problem() -> None:
    plan = planned({}, {"default.retry-budget": "10%"})
    assert (value(plan, "retry-budget"), plan.problems) == (None, ())
    plan = planned({"retry-attempts": "1"}, {"default.retry-budget": "10%"})
    assert value(plan, "retry-budget") == "10%"


def test_a_default_opts_nobody_in() -> None:
    service = in_namespace(make_service(enabled="false"), {"default.timeout": "5s"})
    assert plan_of(service).services == {}
    fault = RULES.fault_in_default("svc.mesh/default.enabled", "svc.mesh/enabled", "true")
    assert fault is not None


@pytest.mark.parametrize(
    ("field", "said", "reason"),
    [
        ("default.timeout", "soon", '"soon" is not a duration'),
        ("default.timout", "5s", "svc.mesh/timout is no annotation that can have a default"),
        ("default.mirror", "other", "svc.mesh/mirror is no annotation that can have a default"),
        (
            "default.slow-start.admin",
            "30s",
            "svc.mesh/slow-start.admin is no annotation that can have a default",
        ),
        ("limit.retry-attempts", "many", '"many" is not a whole number'),
        ("limit.cors", "3", "svc.mesh/cors is no annotation that can have a limit"),
    ],
)
def test_what_cannot_be_used_is_a_problem_of_the_namespace_once(field: str, said: str, reason: str) -> None:
    services = [
        in_namespace(make_service(name, cluster_ips=[f"10.96.0.{number}"]), {field: said})
        for number, name in enumerate(("web", "cart"), 10)
    ]
    plan = plan_of(*services)
    (problem,) = plan.problems
    assert (problem.kind, problem.name, problem.field) == ("Namespace", "default", f"svc.mesh/{field}")
    assert problem.reason == reason
    assert all(one.problems == () and not one.origins for one in plan.services.values())


def test_a_changed_default_changes_only_the_services_that_take_it() -> None:
    def services(timeout: str) -> list[Service]:
        said = {"default.timeout": timeout}
        own = {"own": {"timeout": "9s"}, "silent": {}}
        return [
            in_namespace(
                make_service(name, annotations=annotated(of), cluster_ips=[f"10.96.0.{number}"]), said
            )
            for number, (name, of) in enumerate(own.items(), 10)
        ]

    before = plan_of(*services("1s"))
    after = plan_of(*services("2s"), previous=before)
    own, silent = services("2s")
    assert after.services[own.key].listeners[0] is before.services[own.key].listeners[0]
    assert after.services[silent.key].listeners[0] != before.services[silent.key].listeners[0]


@pytest.mark.parametrize(
    ("name", "written", "most", "held"),
    [
        ("retry-attempts", "5", "3", "3"),
        ("retry-budget", "50% min=3/s", "20%", "20% min=3/s"),
        ("rate-limit", "100/s burst=50", "600/m", "600/m burst=50"),
        ("rate-limit", "100/m", "2/s", "100/m"),
        ("max-requests", "adaptive", "200", "adaptive max=200"),
        ("max-requests", "adaptive max=900 queue=5", "200", "adaptive max=200 queue=5"),
        ("max-requests", "adaptive max=100", "200", "adaptive max=100"),
        ("cache", "on", "16Mi", "on size=16Mi"),
        ("cache", "on", "128Mi", "on"),
        ("cache", "off", "16Mi", "off"),
        ("timeout", "soon", "1s", "soon"),
    ],
)
def test_the_number_of_a_value_is_held_down(name: str, written: str, most: str, held: str) -> None:
    assert clamp(RULES.limitable[f"svc.mesh/{name}"], written, most) == held


TIMES = st.integers(1, 100).map(lambda seconds: f"{seconds}s")


@given(
    own=st.none() | TIMES,
    namespace=st.none() | TIMES,
    cluster=st.none() | TIMES,
    limits=st.tuples(st.none() | TIMES, st.none() | TIMES),
)
def test_what_is_in_force_follows_from_precedence_and_the_lowest_limit(
    own: str | None, namespace: str | None, cluster: str | None, limits: tuple[str | None, str | None]
) -> None:
    said = {"default.timeout": namespace, "limit.timeout": limits[0]}
    plan = planned(
        {"timeout": own} if own else {},
        {key: one for key, one in said.items() if one},
        defaults={"timeout": cluster} if cluster else {},
        setting_limits={"timeout": limits[1]} if limits[1] else {},
    )
    bounds = [int(one[:-1]) for one in limits if one]
    chosen = own or namespace or cluster
    expected = min([int(chosen[:-1]), *bounds]) if chosen else min(bounds, default=None)
    found = value(plan, "timeout")
    assert (int(found[:-1]) if found else None) == expected
    assert (origin(plan, "timeout") is None) == (expected is None or (own is not None and found == own))


def test_a_name_that_is_nearly_right_is_named_as_it_has_to_be_written() -> None:
    of_namespace = RULES.fault_in_limit("svc.mesh/limit.retries-attempt", "svc.mesh/retries-attempt", "3")
    of_flag = RULES.fault_in_limit("retries-attempt", "svc.mesh/retries-attempt", "3")
    assert of_namespace is not None
    assert of_flag is not None
    assert of_namespace.expected == "svc.mesh/limit.retry-attempts, perhaps"
    assert of_flag.expected == "retry-attempts, perhaps"
    service = in_namespace(make_service(), {"default.timeout": "soon"})
    (problem,) = plan_of(service).problems
    assert name_of(problem) == "Namespace default"
