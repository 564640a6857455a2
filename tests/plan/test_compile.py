"""The compiler, rule by rule; whole plans are in the golden files."""

from __future__ import annotations

import msgspec
import pytest

from discovery.model import Endpoint, MeshSnapshot, Problem, Service, ServicePort
from nodeagent.plan import compile as compile_module
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.effective import Resolution
from nodeagent.plan.model import EMPTY_PLAN, NodePlan, ServicePlan
from tests.plan.builders import (
    HTTP,
    LAPTOP,
    MIDDLEWARES,
    SETTINGS,
    MirrorOptions,
    TriesOptions,
    compile_one,
    compile_services,
    make_service,
    snapshot_of,
)


def only_problem(plan: ServicePlan) -> Problem:
    (problem,) = plan.problems
    return problem


def layers_of(plan: ServicePlan) -> dict[str, object]:
    return {layer.name: layer.options for listener in plan.listeners for layer in listener.all_layers}


def test_a_meshed_service() -> None:
    service = make_service(annotations={"svc.mesh/tries": "2", "svc.mesh/mirror": "x"})
    plan = compile_one(service)
    (listener,) = plan.listeners
    assert plan.address == "250.96.0.10"
    assert (listener.address, listener.port, listener.mesh_port, listener.protocol) == (
        "250.96.0.10",
        80,
        80,
        "http",
    )
    assert [str(one) for one in plan.backends[0].endpoints] == ["10.1.0.1:8080"]
    assert [layer.name for layer in listener.all_layers] == ["tries", "mirror"]
    assert plan.problems == ()
    assert plan.effective == service.object.annotations


def test_false_is_not_in_the_plan() -> None:
    service = make_service(enabled="false", annotations={"svc.mesh/nonsense": "x"})
    assert compile_services(service).services == {}


class TestLastGoodValues:
    """A bad value falls back to the one that was in force, else counts as absent."""

    def test_malformed_enabled_is_not_enabled(self) -> None:
        plan = compile_one(make_service(enabled="yes", annotations={"svc.mesh/tries": "bad"}))
        assert (plan.address, plan.listeners, plan.effective) == ("", (), {})
        assert only_problem(plan).effect == "the Service is not meshed"

    def test_malformed_enabled_keeps_a_meshed_service_meshed(self) -> None:
        before = compile_services(make_service())
        plan = compile_one(make_service(enabled="ture"), before)
        assert plan.address == "250.96.0.10"
        assert only_problem(plan).effect == "svc.mesh/enabled=true stays in force"

    def test_enabled_may_be_mended_after_any_number_of_bad_values(self) -> None:
        plans = compile_services(make_service())
        for enabled in ("a", "b", "c"):
            plans = compile_services(make_service(enabled=enabled), previous=plans)
        (plan,) = plans.services.values()
        assert plan.effective["svc.mesh/enabled"] == "true"
        assert compile_services(make_service(enabled="false"), previous=plans).services == {}

    def test_a_bad_option_falls_back(self) -> None:
        before = compile_services(make_service(annotations={"svc.mesh/tries": "2"}))
        plan = compile_one(make_service(annotations={"svc.mesh/tries": "many"}), before)
        assert layers_of(plan) == {"tries": TriesOptions(2, "reset")}
        problem = only_problem(plan)
        assert (problem.field, problem.value) == ("svc.mesh/tries", "many")
        assert problem.effect == "svc.mesh/tries=2 stays in force"
        assert plan.effective["svc.mesh/tries"] == "2"

    def test_a_bad_option_without_a_last_good_value_turns_its_middleware_off(self) -> None:
        plan = compile_one(make_service(annotations={"svc.mesh/tries": "many", "svc.mesh/mirror": "x"}))
        assert layers_of(plan) == {"mirror": MirrorOptions("x")}
        assert only_problem(plan).effect == "tries is off"

    def test_a_bad_option_beside_good_ones_gets_its_default(self) -> None:
        plan = compile_one(make_service(annotations={"svc.mesh/tries": "2", "svc.mesh/tries-on": "bad"}))
        assert layers_of(plan) == {"tries": TriesOptions(2, "reset")}
        assert only_problem(plan).effect == "the default is in force: reset"

    def test_every_bad_option_is_reported(self) -> None:
        plan = compile_one(make_service(annotations={"svc.mesh/tries": "x", "svc.mesh/tries-on": "y"}))
        assert layers_of(plan) == {}
        assert [p.field for p in plan.problems] == ["svc.mesh/tries", "svc.mesh/tries-on"]

    def test_a_last_good_value_that_is_bad_now_is_dropped(self) -> None:
        before = compile_services(
            make_service(annotations={"svc.mesh/tries": "2", "svc.mesh/tries-on": "5xx"})
        )
        plan = compile_one(make_service(annotations={"svc.mesh/tries-on": "bad"}), before)
        assert layers_of(plan) == {}
        assert only_problem(plan).effect == "tries is off"

    def test_a_protocol_falls_back(self) -> None:
        before = compile_services(make_service(annotations={"svc.mesh/protocol": "tcp"}))
        plan = compile_one(make_service(annotations={"svc.mesh/protocol": "tpc"}), before)
        assert plan.listeners[0].protocol == "tcp"
        assert only_problem(plan).effect == "svc.mesh/protocol=tcp stays in force"

    def test_the_protocol_of_a_port_that_is_gone_does_not_fall_back(self) -> None:
        before = compile_services(make_service(annotations={"svc.mesh/protocol.http": "tcp"}))
        gone = make_service(annotations={"svc.mesh/protocol.http": "x"}, ports=[ServicePort("web", 80)])
        plan = compile_one(gone, before)
        assert only_problem(plan).effect == "it is ignored"
        assert plan.listeners[0].protocol == "http"


class TestAnnotations:
    def test_an_unknown_annotation_gets_a_suggestion(self) -> None:
        plan = compile_one(make_service(annotations={"svc.mesh/trys": "2", "svc.mesh/protocl": "tcp"}))
        assert {p.field: p.expected for p in plan.problems} == {
            "svc.mesh/trys": "did you mean svc.mesh/tries?",
            "svc.mesh/protocl": "did you mean svc.mesh/protocol?",
        }
        assert set(plan.effective) == {"svc.mesh/enabled"}

    def test_an_annotation_like_no_other_gets_none(self) -> None:
        plan = compile_one(make_service(annotations={"svc.mesh/zzzzzz": "2"}))
        assert only_problem(plan).expected == "one of docs/annotations.md"

    def test_middleware_without_an_http_port(self) -> None:
        plan = compile_one(make_service(annotations={"svc.mesh/protocol": "tcp", "svc.mesh/tries": "2"}))
        assert plan.listeners[0].all_layers == ()
        problem = only_problem(plan)
        assert (problem.field, problem.effect) == ("svc.mesh/tries", "tries is off")

    def test_layers_only_on_http_ports(self) -> None:
        ports = [HTTP, ServicePort("tcp-db", 5432)]
        plan = compile_one(make_service(annotations={"svc.mesh/tries": "2"}, ports=ports))
        assert [(listener.port, len(listener.all_layers)) for listener in plan.listeners] == [
            (80, 1),
            (5432, 0),
        ]
        assert plan.problems == ()

    def test_a_middleware_that_fails_harms_nothing_else(self) -> None:
        plan = compile_one(make_service(annotations={"svc.mesh/tries": "2", "svc.mesh/mirror": "crash"}))
        assert layers_of(plan) == {"tries": TriesOptions(2, "reset")}
        assert "ZeroDivisionError" in only_problem(plan).reason
        assert only_problem(plan).effect == "mirror is off"


class TestUpstreams:
    @pytest.mark.parametrize(
        ("endpoints", "expected"),
        [
            ([], []),
            ([Endpoint("10.1.0.1", 80), Endpoint("10.1.0.2", 80, ready=False)], ["10.1.0.1:80"]),
            (
                [Endpoint("10.1.0.1", 80, ready=False, terminating=True), Endpoint("10.1.0.2", 80)],
                ["10.1.0.2:80"],
            ),
            ([Endpoint("10.1.0.1", 80, ready=False, terminating=True)], ["10.1.0.1:80"]),
            ([Endpoint("10.1.0.1", 80, ready=False, serving=False, terminating=True)], []),
            ([Endpoint("10.1.0.1", 80, ready=False)], []),
            ([Endpoint("10.1.0.1", 80), Endpoint("fd00::1", 80)], ["10.1.0.1:80"]),
        ],
    )
    def test_ready_else_serving_and_terminating(self, endpoints: list[Endpoint], expected: list[str]) -> None:
        plan = compile_one(make_service(endpoints={"http": endpoints}))
        assert [str(one) for one in plan.backends[0].endpoints] == expected
        assert plan.problems == ()

    def test_an_endpoint_in_the_mesh_range_is_left_out(self) -> None:
        endpoints = [Endpoint("10.1.0.1", 80), Endpoint("250.96.0.10", 80), Endpoint("240.0.0.1", 80)]
        plan = compile_one(make_service(endpoints={"http": endpoints}))
        assert [str(one) for one in plan.backends[0].endpoints] == ["10.1.0.1:80"]
        problem = only_problem(plan)
        assert (problem.value, problem.effect) == ("250.96.0.10 and 1 more", "it is left out")

    def test_only_ipv6_endpoints(self) -> None:
        plan = compile_one(make_service(endpoints={"http": [Endpoint("fd00::1", 80)]}))
        assert plan.backends[0].endpoints == ()
        assert "IPv4" in only_problem(plan).reason

    def test_endpoints_join_by_port_name(self) -> None:
        ports = [HTTP, ServicePort("admin", 81)]
        endpoints = {"admin": [Endpoint("10.1.0.1", 9000)], "other": [Endpoint("10.1.0.1", 1)]}
        plan = compile_one(make_service(ports=ports, endpoints=endpoints))
        found = [[str(one) for one in backend.endpoints] for backend in plan.backends]
        assert found == [[], ["10.1.0.1:9000"]]


class TestPorts:
    def test_udp_beside_tcp_is_a_note(self) -> None:
        ports = [ServicePort("dns", 53, "UDP"), ServicePort("dns-tcp", 53)]
        plan = compile_one(make_service(ports=ports))
        assert [listener.port_name for listener in plan.listeners] == ["dns-tcp"]
        problem = only_problem(plan)
        assert (problem.field, problem.severity) == ("spec.ports[0].protocol", "info")

    @pytest.mark.parametrize("ports", [[], [ServicePort("dns", 53, "UDP"), ServicePort("sip", 1, "SCTP")]])
    def test_nothing_that_is_carried(self, ports: list[ServicePort]) -> None:
        plan = compile_one(make_service(ports=ports))
        assert (plan.address, plan.listeners) == ("", ())
        problem = only_problem(plan)
        assert (problem.field, problem.severity) == ("spec.ports", "error")

    def test_low_ports_on_a_laptop(self) -> None:
        ports = [HTTP, ServicePort("alt", 8080)]
        plan = compile_one(make_service(ports=ports), settings=LAPTOP)
        assert [(one.port, one.mesh_port) for one in plan.listeners] == [
            (80, 10080),
            (8080, 8080),
        ]

    def test_a_low_port_never_takes_the_place_of_a_high_one(self) -> None:
        ports = [HTTP, ServicePort("alt", 10080)]
        plan = compile_one(make_service(ports=ports), settings=LAPTOP)
        assert [(one.port, one.mesh_port) for one in plan.listeners] == [(10080, 10080)]
        assert only_problem(plan).effect == "port http (80/TCP) is not served"

    def test_a_port_that_stands_twice(self) -> None:
        plan = compile_one(make_service(ports=[HTTP, ServicePort("web", 80)]))
        assert [listener.port_name for listener in plan.listeners] == ["http"]
        assert only_problem(plan).field == "spec.ports[1].port"


class TestAddresses:
    def test_headless(self) -> None:
        plan = compile_one(make_service(cluster_ips=[]))
        assert plan.address.startswith("254.")
        assert plan.problems == ()

    def test_a_cluster_ip_that_maps_to_the_meshs_own(self) -> None:
        plan = compile_one(make_service(cluster_ips=["16.0.0.53"]))
        assert plan.address == compile_one(make_service(cluster_ips=[])).address
        problem = only_problem(plan)
        assert (problem.field, problem.severity) == ("spec.clusterIP", "info")
        assert plan.address in problem.effect

    def test_two_services_with_one_cluster_ip(self) -> None:
        plan = compile_services(make_service("b"), make_service("a"))
        a, b = sorted(plan.services.values(), key=lambda service: service.source.key)
        assert (a.address, a.problems) == ("250.96.0.10", ())
        assert (b.address, b.listeners, len(a.listeners)) == ("", (), 1)
        assert "default/a keeps the address" in only_problem(b).effect

    def test_the_loser_gets_the_address_when_it_is_free_and_loses_it_again(self) -> None:
        a, b = make_service("a"), make_service("b")
        both = compile_services(a, b)
        alone = compile_services(b, previous=both)
        assert alone.services[b.key].address == "250.96.0.10"
        assert alone.services[b.key].problems == ()
        again = compile_services(a, b, previous=alone)
        assert again.services == both.services

    def test_equal_hashes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nodeagent.plan.addresses.AddressRange._hash", lambda self, _key: 0xFE00_0009)
        plan = compile_services(make_service("b", cluster_ips=[]), make_service("a", cluster_ips=[]))
        a, b = sorted(plan.services.values(), key=lambda service: service.source.key)
        assert (a.address, b.address, b.listeners[0].address) == ("254.0.0.9", "254.0.0.10", "254.0.0.10")
        assert a.problems == ()
        assert only_problem(b).severity == "info"

    def test_external_name(self) -> None:
        name = {"type": "ExternalName", "external_name": "db.example.com", "cluster_ips": ()}
        plan = compile_one(make_service(endpoints={}, **name))  # type: ignore[arg-type]
        assert (plan.address, only_problem(plan).field) == ("", "spec.externalName")
        meshed = compile_one(make_service(**name))  # type: ignore[arg-type]
        assert meshed.address.startswith("254.")
        assert len(meshed.backends[0].endpoints) == 1


class TestIdentity:
    """What did not change is the same object in both plans."""

    def test_an_unchanged_service(self) -> None:
        a, b = make_service("a"), make_service("b", cluster_ips=["10.96.0.11"])
        first = compile_services(a, b)
        second = compile_services(a, make_service("b", cluster_ips=["10.96.0.12"]), previous=first)
        assert second.version == first.version + 1
        assert second.services[a.key] is first.services[a.key]
        assert second.services[b.key].address == "250.96.0.12"

    def test_an_unchanged_route_of_a_changed_service(self) -> None:
        ports = [HTTP, ServicePort("alt", 8080)]
        first = compile_services(make_service(ports=ports))
        second = compile_services(
            make_service(ports=ports, annotations={"svc.mesh/protocol.alt": "tcp"}), previous=first
        )
        (was_http, was_alt), (http, alt) = list(first.listeners()), list(second.listeners())
        assert http is was_http
        assert alt != was_alt

    def test_a_service_in_conflict(self) -> None:
        a, b = make_service("a"), make_service("b")
        first = compile_services(a, b)
        second = compile_services(a, b, previous=first)
        assert second.services[b.key] is first.services[b.key]

    def test_a_service_that_is_unmeshed(self) -> None:
        service = make_service()
        first = compile_services(service)
        assert compile_services(previous=first).services == {}

    def test_the_snapshots_problems_are_the_plans(self) -> None:
        problem = Problem("default", "lost", "metadata.labels", "", "names no Service", kind="EndpointSlice")
        snapshot = MeshSnapshot(7, {}, problems=(problem,))
        plan = compile_plan(snapshot, NodePlan(3, {}), SETTINGS, MIDDLEWARES)
        assert (plan.version, plan.problems) == (7, (problem,))

    def test_a_services_own_problems_are_the_plans(self) -> None:
        problem = Problem("default", "shop", "spec.ports[1].port", "0", "is not a port")
        service = msgspec.structs.replace(make_service(), problems=(problem,))
        assert compile_one(service).problems == (problem,)
        assert compile_plan(snapshot_of(service), NodePlan(3, {}), SETTINGS).all_problems() == [problem]


def test_a_bug_that_one_service_brings_to_light_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_all(*services: Service, before: NodePlan) -> NodePlan:
        return compile_plan(snapshot_of(*services), before, SETTINGS, MIDDLEWARES)

    good, known = make_service("good"), make_service("known", cluster_ips=["10.96.0.11"])
    before = compile_all(good, known, before=EMPTY_PLAN)

    original = compile_module._why_not_meshed

    def fail(service: Service, resolution: Resolution) -> Problem | None:
        if service.key.name != "good":
            raise ZeroDivisionError("a bug")
        return original(service, resolution)

    monkeypatch.setattr(compile_module, "_why_not_meshed", fail)
    known = make_service("known", cluster_ips=["10.96.0.11"], annotations={"svc.mesh/tries": "2"})
    new = make_service("new", cluster_ips=["10.96.0.12"])
    after = compile_all(good, known, new, before=before)
    assert after.services[good.key].listeners == before.services[good.key].listeners
    assert after.services[known.key].listeners == before.services[known.key].listeners
    problem = only_problem(after.services[known.key])
    assert "ZeroDivisionError('a bug') in fail" in problem.reason
    assert problem.effect == "its last plan stays in force"
    assert after.services[new.key].listeners == ()
    assert only_problem(after.services[new.key]).effect == "the Service is not meshed"
    assert known.key in after.services
