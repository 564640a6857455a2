"""`svc.mesh/health-check`: what may stand there, and which port it is for."""

from __future__ import annotations

import pytest

from discovery.model import ServicePort
from middleware.contract import Problem
from nodeagent.plan.health_check import (
    HEALTH_CHECK,
    HEALTH_CHECK_OF_PORT,
    parse_health_checks,
)
from nodeagent.plan.model import EMPTY_PLAN, HealthCheck
from nodeagent.plan.of_port import OfPort
from tests.plan.builders import HTTP, compile_services, make_service

RPC, RAW = ServicePort("rpc", 81), ServicePort("tcp-raw", 9000)


def parsed(value: str) -> HealthCheck | None:
    checks = parse_health_checks({HEALTH_CHECK: value})
    assert isinstance(checks, OfPort)
    return checks.usual


@pytest.mark.parametrize(
    ("value", "check"),
    [
        ("grpc", HealthCheck("grpc")),
        ("http", HealthCheck("http", path="/")),
        (" tcp ", HealthCheck("tcp")),
        ("none", None),
        ("http path=/healthz?full=1", HealthCheck("http", path="/healthz?full=1")),
        ("grpc service=shop.v1.Catalog", HealthCheck("grpc", service="shop.v1.Catalog")),
        (
            "tcp unhealthy=5 healthy=2 timeout=250ms interval=1m",
            HealthCheck("tcp", interval=60.0, timeout=0.25, healthy=2, unhealthy=5),
        ),
        ("http\n  path=/ok\n  interval=2s", HealthCheck("http", path="/ok", interval=2.0)),
    ],
)
def test_what_may_stand_there(value: str, check: HealthCheck | None) -> None:
    assert parsed(value) == check


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", '"" is not known'),
        ("grcp", '"grcp" is not known'),
        ("GRPC", "is not known"),
        ("path=/", "is not known"),
        ("http /healthz", "is not name=value"),
        ("http path=healthz", "is not a path"),
        ("http path=/a#b", "is not a path"),
        ("http path=", "is not a path"),
        ("http path=/ path=/", "path is given twice"),
        ("http service=a", '"service" is not known'),
        ("grpc path=/", '"path" is not known'),
        ("grpc service=a:b", "is not the name of a gRPC service"),
        ("tcp service=a", '"service" is not known'),
        ("tcp interval=10", "the unit is missing"),
        ("tcp interval=999ms", "out of range"),
        ("tcp interval=2h", "out of range"),
        ("tcp timeout=0s", "out of range"),
        ("tcp timeout=2s interval=1s", "timeout=2s is longer than interval=1s"),
        ("tcp healthy=0", "out of range"),
        ("tcp unhealthy=many", "is not a whole number"),
        ("none interval=1s", "has no meaning after none"),
    ],
)
def test_what_may_not(value: str, reason: str) -> None:
    problem = parse_health_checks({HEALTH_CHECK: value})
    assert isinstance(problem, Problem)
    assert (problem.annotation, problem.value) == (HEALTH_CHECK, value)
    assert reason in problem.reason


def test_nothing_is_asked_unless_it_is_said() -> None:
    assert parse_health_checks({"svc.mesh/timeout": "1s"}) is None
    (service,) = compile_services(make_service()).services.values()
    assert service.backends[0].health_check is None


def test_a_port_has_its_own_by_name_or_number() -> None:
    annotations = {
        HEALTH_CHECK: "tcp",
        f"{HEALTH_CHECK_OF_PORT}rpc": "grpc",
        f"{HEALTH_CHECK_OF_PORT}9000": "none",
    }
    plan = compile_services(make_service(annotations=annotations, ports=(HTTP, RPC, RAW)))
    (service,) = plan.services.values()
    kinds = [one.health_check and one.health_check.kind for one in service.backends]
    assert kinds == ["tcp", "grpc", None]
    assert not plan.all_problems()


def test_only_one_port_has_one() -> None:
    plan = compile_services(
        make_service(annotations={f"{HEALTH_CHECK_OF_PORT}rpc": "grpc"}, ports=(HTTP, RPC))
    )
    (service,) = plan.services.values()
    assert [one.health_check is None for one in service.backends] == [True, False]


def test_a_port_that_there_is_not() -> None:
    plan = compile_services(make_service(annotations={f"{HEALTH_CHECK_OF_PORT}admin": "tcp"}))
    (problem,) = plan.all_problems()
    assert (problem.field, problem.effect) == (f"{HEALTH_CHECK_OF_PORT}admin", "it is ignored")
    assert "no port 'admin'" in problem.reason


def test_the_last_good_value_stays_in_force() -> None:
    good = make_service(annotations={HEALTH_CHECK: "tcp", f"{HEALTH_CHECK_OF_PORT}http": "http path=/a"})
    before = compile_services(good, previous=EMPTY_PLAN)
    bad = make_service(annotations={HEALTH_CHECK: "tpc", f"{HEALTH_CHECK_OF_PORT}http": "http path=a"})
    plan = compile_services(bad, previous=before)
    (service,) = plan.services.values()
    assert service.backends[0].health_check == HealthCheck("http", path="/a")
    assert service.effective[HEALTH_CHECK] == "tcp"
    assert {one.field for one in plan.all_problems()} == {HEALTH_CHECK, f"{HEALTH_CHECK_OF_PORT}http"}
    assert all("stays in force" in one.effect for one in plan.all_problems())
