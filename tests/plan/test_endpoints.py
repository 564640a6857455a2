"""`svc.mesh/endpoints`: which ports get which endpoints, in files only, and what is said if it cannot be."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from discovery.model import Endpoint, Problem, Service, ServicePort, Unbacked
from nodeagent.plan.model import EMPTY_PLAN, NodePlan, ServicePlan
from tests.plan.builders import HTTP, compile_one, compile_services, make_service

ADMIN, UDP = ServicePort("admin", 81), ServicePort("dns", 53, "UDP")
NONE: Mapping[str, list[Endpoint]] = {}


def shop(
    annotations: Mapping[str, str],
    *ports: ServicePort,
    endpoints: Mapping[str, list[Endpoint]] = NONE,
    unbacked: Unbacked | None = None,
    type: str = "ClusterIP",  # noqa: A002 - the field's name
) -> Service:
    named = {f"svc.mesh/endpoints{name}": value for name, value in annotations.items()}
    made = make_service(annotations=named, ports=ports or (HTTP,), endpoints=endpoints, type=type)
    return msgspec.structs.replace(made, object=msgspec.structs.replace(made.object, unbacked=unbacked))


def endpoints_of(plan: ServicePlan) -> dict[int, list[str]]:
    return {backend.key.port: [str(one) for one in backend.endpoints] for backend in plan.backends}


def told(plan: ServicePlan) -> list[tuple[str, str, str]]:
    return [(one.severity, one.field, one.reason) for one in plan.problems]


@pytest.mark.parametrize(
    ("annotations", "ports", "expected"),
    [
        ({"": "127.0.0.1:1,127.0.0.1:2"}, (HTTP,), {80: ["127.0.0.1:1", "127.0.0.1:2"]}),
        ({"": "127.0.0.1:1"}, (ServicePort("", 80),), {80: ["127.0.0.1:1"]}),
        ({".http": "127.0.0.1:1"}, (HTTP,), {80: ["127.0.0.1:1"]}),
        ({".80": "127.0.0.1:1"}, (HTTP,), {80: ["127.0.0.1:1"]}),
        ({".80": "127.0.0.1:1", ".http": "127.0.0.1:2", "": "127.0.0.1:3"}, (HTTP,), {80: ["127.0.0.1:2"]}),
        ({".80": "127.0.0.1:1", "": "127.0.0.1:3"}, (HTTP,), {80: ["127.0.0.1:1"]}),
        ({".http": "127.0.0.1:1", ".81": "127.0.0.1:2"}, (HTTP, ADMIN),
         {80: ["127.0.0.1:1"], 81: ["127.0.0.1:2"]}),
        ({"": "127.0.0.1:1"}, (HTTP, UDP), {80: ["127.0.0.1:1"]}),
    ],
)  # fmt: skip
def test_ports_get_their_endpoints(
    annotations: dict[str, str], ports: tuple[ServicePort, ...], expected: dict[int, list[str]]
) -> None:
    plan = compile_one(shop(annotations, *ports))
    assert endpoints_of(plan) == expected
    assert [one for one in plan.problems if one.severity != "info"] == []


def test_they_take_the_place_of_all_others_of_their_port() -> None:
    written = {"http": [Endpoint("10.1.0.1", 8080)] * 2, "admin": [Endpoint("10.1.0.1", 8081)]}
    plan = compile_one(shop({".http": "127.0.0.1:1"}, HTTP, ADMIN, endpoints=written))
    assert endpoints_of(plan) == {80: ["127.0.0.1:1"], 81: ["10.1.0.1:8081"]}
    reason = "takes precedence over 2 endpoints that objects in the files give port http (80/TCP)"
    assert told(plan) == [("info", "svc.mesh/endpoints.http", reason)]


def test_with_several_ports_it_must_say_which() -> None:
    plan = compile_one(shop({"": "127.0.0.1:1"}, HTTP, ADMIN))
    assert endpoints_of(plan) == {80: [], 81: []}
    reason = "says not which of the 2 TCP ports has these endpoints"
    assert told(plan) == [("error", "svc.mesh/endpoints", reason)]
    (problem,) = plan.problems
    assert problem.expected == (
        "an annotation for each port: svc.mesh/endpoints.http, svc.mesh/endpoints.admin"
    )


@pytest.mark.parametrize("bad", ["localhost:80", "127.0.0.1", "[::1]:80", "127.0.0.1:0", "", "127.0.0.1:1,"])
@pytest.mark.parametrize("name", ["", ".http", ".80"])
def test_of_a_bad_value_the_last_good_one_stays_in_force(bad: str, name: str) -> None:
    before = compile_services(shop({name: "127.0.0.1:1"}))
    plan = compile_one(shop({name: bad}), previous=before)
    assert endpoints_of(plan) == {80: ["127.0.0.1:1"]}
    (problem,) = plan.problems
    assert problem.effect == f"svc.mesh/endpoints{name}=127.0.0.1:1 stays in force"
    alone = compile_one(shop({name: bad}))
    assert endpoints_of(alone) == {80: []}
    assert [one.effect for one in alone.problems] == ["it is ignored"]


def test_of_a_port_that_there_is_not() -> None:
    plan = compile_one(shop({".grpc": "127.0.0.1:1"}))
    assert told(plan) == [("error", "svc.mesh/endpoints.grpc", "the Service has no port 'grpc'")]


def test_what_the_api_server_sent_may_not_say_it() -> None:
    for name in ("", ".http"):
        made = shop({name: "127.0.0.1:1"}, endpoints={"http": [Endpoint("10.1.0.1", 8080)]})
        sent = msgspec.structs.replace(made, object=msgspec.structs.replace(made.object, origin=""))
        plan = compile_one(sent)
        assert endpoints_of(plan) == {80: ["10.1.0.1:8080"]}
        reason = "is read of files only (--source file:PATH): a cluster has EndpointSlices for it"
        assert told(plan) == [("error", f"svc.mesh/endpoints{name}", reason)]
        assert "svc.mesh/endpoints" not in "".join(plan.effective)


def test_one_in_the_mesh_range_is_refused() -> None:
    plan = compile_one(shop({"": "240.0.0.9:80,127.0.0.1:1"}))
    assert endpoints_of(plan) == {80: ["127.0.0.1:1"]}
    assert [one.field for one in plan.problems] == ["endpoints[http]"]


def test_an_external_name_may_have_them() -> None:
    assert not compile_one(shop({}, type="ExternalName")).address
    assert compile_one(shop({"": "127.0.0.1:1"}, type="ExternalName")).address


WHY = Unbacked("has no endpoints: x", {"http": 8080})


def unbacked(plan: ServicePlan) -> list[Problem]:
    return [one for one in plan.problems if one.severity == "warning"]


def test_a_service_without_any_is_warned_of() -> None:
    (problem,) = unbacked(compile_one(shop({}, unbacked=WHY)))
    assert (problem.field, problem.reason) == ("endpoints", "has no endpoints: x")
    assert "svc.mesh/endpoints: 127.0.0.1:8080" in problem.expected
    assert "port http (80/TCP): 503" in problem.effect
    assert unbacked(compile_one(shop({"": "127.0.0.1:1"}, unbacked=WHY))) == []
    assert unbacked(compile_one(shop({}))) == []


def test_only_of_ports_that_an_annotation_does_not_name() -> None:
    (problem,) = unbacked(compile_one(shop({".http": "127.0.0.1:1"}, HTTP, ADMIN, UDP, unbacked=WHY)))
    assert "svc.mesh/endpoints.admin: 127.0.0.1:81" in problem.expected
    assert problem.effect.startswith("without a cluster nobody serves port admin (81/TCP):")


def test_it_comes_and_goes_with_changes() -> None:
    plan: NodePlan = EMPTY_PLAN
    for service, warned in (
        (shop({}, unbacked=WHY), 1),
        (shop({"": "127.0.0.1:1"}, unbacked=WHY), 0),
        (shop({}, unbacked=WHY), 1),
        (shop({}, endpoints={"http": [Endpoint("10.1.0.1", 8080)]}), 0),
    ):
        plan = compile_services(service, previous=plan)
        assert len(unbacked(plan.services[service.key])) == warned
