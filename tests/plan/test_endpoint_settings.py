"""`svc.mesh/outlier-detection`, `locality` and `failover`: what may stand there, and for which port."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from discovery.model import ServiceKey, ServicePort
from middleware.contract import Problem
from nodeagent.plan.failover import FAILOVER, parse_failover
from nodeagent.plan.locality import LOCALITY, parse_locality
from nodeagent.plan.model import BackendKey, Locality, OutlierDetection
from nodeagent.plan.of_port import OfPort
from nodeagent.plan.outlier_detection import ALL, OUTLIER_DETECTION, parse_outlier_detection
from tests.plan.builders import HTTP, compile_services, make_service

Parse = Callable[[Mapping[str, str]], Any]
RPC = ServicePort("rpc", 81)


def parsed(parse: Parse, name: str, value: str) -> Any:
    found = parse({name: value})
    assert isinstance(found, OfPort), found
    return found.usual


@pytest.mark.parametrize(
    ("value", "detection"),
    [
        ("all", OutlierDetection(ALL)),
        ("none", None),
        ("5xx", OutlierDetection(("5xx",))),
        ("gateway-error,reset,reset", OutlierDetection(("gateway-error", "reset"))),
        (
            "timeout consecutive=3 success-rate=90% requests=5 interval=1m ejection=10s longest=1h share=10%",
            OutlierDetection(("timeout",), 3, 90, 5, 60.0, 10.0, 3600.0, 10),
        ),
    ],
)
def test_outlier_detection(value: str, detection: OutlierDetection | None) -> None:
    assert parsed(parse_outlier_detection, OUTLIER_DETECTION, value) == detection


@pytest.mark.parametrize(
    ("value", "locality"),
    [
        ("prefer", Locality("prefer")),
        ("prefer healthy=50%", Locality("prefer", 50)),
        ("strict", Locality("strict")),
        ("off", None),
    ],
)
def test_locality(value: str, locality: Locality | None) -> None:
    assert parsed(parse_locality, LOCALITY, value) == locality


@pytest.mark.parametrize(("value", "name"), [("web", "web"), (" web-b.dr ", "web-b.dr"), ("none", None)])
def test_failover(value: str, name: str | None) -> None:
    assert parsed(parse_failover, FAILOVER, value) == name


@pytest.mark.parametrize(
    ("parse", "name", "value", "reason"),
    [
        (parse_outlier_detection, OUTLIER_DETECTION, "", '"" is not known'),
        (parse_outlier_detection, OUTLIER_DETECTION, "5XX", "is not known"),
        (parse_outlier_detection, OUTLIER_DETECTION, "5xx,all", '"all" is not known'),
        (parse_outlier_detection, OUTLIER_DETECTION, "all 3", '"3" is not key=value'),
        (parse_outlier_detection, OUTLIER_DETECTION, "all consecutive=0", "out of range"),
        (parse_outlier_detection, OUTLIER_DETECTION, "all share=50", "is not a percentage"),
        (parse_outlier_detection, OUTLIER_DETECTION, "all share=101%", "is not a percentage"),
        (parse_outlier_detection, OUTLIER_DETECTION, "all share=10% share=20%", "share is given twice"),
        (parse_outlier_detection, OUTLIER_DETECTION, "all ejection=30", "the unit is missing"),
        (parse_outlier_detection, OUTLIER_DETECTION, "all ejection=2m longest=1m", "longest=1m is shorter"),
        (parse_outlier_detection, OUTLIER_DETECTION, "none share=10%", "has no meaning after none"),
        (parse_locality, LOCALITY, "preferred", '"preferred" is not known'),
        (parse_locality, LOCALITY, "strict healthy=50%", "has no meaning after strict"),
        (parse_locality, LOCALITY, "prefer healthy=half", "is not a percentage"),
        (parse_failover, FAILOVER, "", "is not the name of a Service"),
        (parse_failover, FAILOVER, "a.b.c", "is not the name of a Service"),
        (parse_failover, FAILOVER, "Web", "is not the name of a Service"),
    ],
)
def test_what_may_not(parse: Parse, name: str, value: str, reason: str) -> None:
    problem = parse({name: value})
    assert isinstance(problem, Problem)
    assert (problem.annotation, problem.value) == (name, value)
    assert reason in problem.reason


def test_nothing_is_on_unless_it_is_said() -> None:
    (service,) = compile_services(make_service()).services.values()
    (backend,) = service.backends
    assert (backend.outlier_detection, backend.locality, backend.failover) == (None, None, None)


def test_a_port_has_its_own() -> None:
    annotations = {
        OUTLIER_DETECTION: "all",
        f"{OUTLIER_DETECTION}.rpc": "none",
        f"{LOCALITY}.81": "strict",
        f"{LOCALITY}.admin": "strict",
    }
    plan = compile_services(make_service(annotations=annotations, ports=(HTTP, RPC)))
    (service,) = plan.services.values()
    assert [one.outlier_detection for one in service.backends] == [OutlierDetection(ALL), None]
    assert [one.locality for one in service.backends] == [None, Locality("strict")]
    (problem,) = plan.all_problems()
    assert (problem.field, problem.effect) == (f"{LOCALITY}.admin", "it is ignored")


def test_the_last_good_value_stays_in_force() -> None:
    before = compile_services(make_service(annotations={OUTLIER_DETECTION: "5xx"}))
    plan = compile_services(make_service(annotations={OUTLIER_DETECTION: "6xx"}), previous=before)
    (service,) = plan.services.values()
    assert service.backends[0].outlier_detection == OutlierDetection(("5xx",))


def test_failover_goes_to_the_port_that_stands_for_it() -> None:
    standby = make_service("standby", ports=(ServicePort("http", 8000),), cluster_ips=("10.96.0.11",))
    plan = compile_services(make_service(annotations={FAILOVER: "standby"}), standby)
    service = plan.services[ServiceKey("default", "shop")]
    assert service.backends[0].failover == BackendKey(standby.key, 8000)
    assert service.refers == (standby.key,)
    assert not plan.all_problems()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("standby", "default/standby is not in the mesh"),
        ("shop.other", "other/shop is not in the mesh"),
        ("shop", "default/shop is this Service itself"),
    ],
)
def test_failover_to_nobody_is_told(name: str, reason: str) -> None:
    plan = compile_services(make_service(annotations={FAILOVER: name}))
    (problem,) = plan.all_problems()
    assert (problem.reason, problem.field) == (reason, FAILOVER)


def test_a_standby_that_comes_is_used() -> None:
    shop = make_service(annotations={FAILOVER: "standby"})
    before = compile_services(shop)
    standby = make_service("standby", ports=(ServicePort("http", 8000),), cluster_ips=("10.96.0.11",))
    plan = compile_services(shop, standby, previous=before)
    assert plan.services[shop.key].backends[0].failover == BackendKey(standby.key, 8000)
    assert not plan.all_problems()
