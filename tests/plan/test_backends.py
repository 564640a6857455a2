"""Services that send to others: which of their ports is meant, what is reported, and when they follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from discovery.model import Changes, Endpoint, MeshSnapshot, Problem, Service, ServiceKey, ServicePort
from middleware import registry
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.diff import diff_plans, diff_services
from nodeagent.plan.model import EMPTY_PLAN, BackendKey, NodePlan
from tests.plan.builders import HTTP, SETTINGS, make_service

SHOP = ServiceKey("default", "shop")
SPLIT = {"svc.mesh/split": "v1=90 v2=10"}


def named(name: str, number: int, **more: Any) -> Service:
    return make_service(name, cluster_ips=[f"10.96.0.{number}"], **more)


def shop(annotations: Mapping[str, str] = SPLIT, **more: Any) -> Service:
    return named("shop", 10, annotations=annotations, **more)


class Cluster:
    """Services that come and go, compiled step by step."""

    def __init__(self, *services: Service) -> None:
        self.services = {service.key: service for service in services}
        self.plan = EMPTY_PLAN
        self.compile(None)

    def compile(self, changed: frozenset[ServiceKey] | None) -> NodePlan:
        """Compile; the snapshot says what changed, and a plan made without that hint must be the same."""
        before = self.plan
        changes = Changes(before.version, changed) if changed is not None else None
        snapshot = MeshSnapshot(before.version + 1, dict(self.services), changes=changes)
        self.plan = compile_plan(snapshot, before, SETTINGS, registry.MIDDLEWARES)
        plain = msgspec.structs.replace(snapshot, changes=None)
        assert compile_plan(plain, before, SETTINGS, registry.MIDDLEWARES).services == self.plan.services
        at_once = compile_plan(plain, EMPTY_PLAN, SETTINGS, registry.MIDDLEWARES)
        assert at_once.referrers == self.plan.referrers
        return before

    def put(self, service: Service) -> NodePlan:
        self.services[service.key] = service
        return self.compile(frozenset({service.key}))

    def drop(self, service: Service) -> NodePlan:
        del self.services[service.key]
        return self.compile(frozenset({service.key}))

    @property
    def backends(self) -> dict[str, BackendKey]:
        return dict(self.plan.services[SHOP].listeners[0].backends)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self.plan.services[SHOP].problems


V1, V2 = named("v1", 11), named("v2", 12)


def test_each_named_service_is_a_backend() -> None:
    cluster = Cluster(shop(), V1, V2)
    assert cluster.backends == {"v1": BackendKey(V1.key, 80), "v2": BackendKey(V2.key, 80)}
    assert cluster.problems == ()


def test_a_service_may_name_itself() -> None:
    cluster = Cluster(shop({"svc.mesh/split": "shop=90 v2=10"}), V2)
    assert cluster.backends["shop"] == BackendKey(SHOP, 80)
    assert cluster.problems == ()
    assert SHOP not in cluster.plan.referrers


@pytest.mark.parametrize(
    ("ports", "meant"),
    [
        ([ServicePort("web", 8080)], 8080),
        ([ServicePort("admin", 9000), ServicePort("http", 8080)], 8080),
        ([ServicePort("http", 8080), ServicePort("other", 80)], 80),
        ([ServicePort("a", 8080), ServicePort("b", 8081)], None),
    ],
)
def test_which_port_is_meant(ports: list[ServicePort], meant: int | None) -> None:
    """The one of the same number, else of the same name, else the only one."""
    cluster = Cluster(shop(), named("v1", 11, ports=ports), V2)
    assert cluster.backends["v1"].port == (meant or 80)
    assert [problem.reason for problem in cluster.problems] == (
        [] if meant else ["default/v1 has no such port"]
    )


def test_one_that_is_not_in_the_mesh_is_reported_until_it_is() -> None:
    cluster = Cluster(shop(), V1)
    (problem,) = cluster.problems
    assert (problem.field, problem.value, problem.reason) == (
        "svc.mesh/split",
        "v2",
        "default/v2 is not in the mesh",
    )
    assert "503" in problem.effect
    found = []
    for service in (named("v2", 12, enabled="false"), V2):
        cluster.put(service)
        found.append(cluster.problems)
    cluster.drop(V2)
    assert [*found, cluster.problems] == [(problem,), (), (problem,)]


def test_the_annotation_that_names_it_is_reported() -> None:
    fallback = {"svc.mesh/circuit-breaker-force": "open", "svc.mesh/circuit-breaker-fallback": "spare"}
    (problem,) = Cluster(shop(fallback)).problems
    assert (problem.field, problem.value) == ("svc.mesh/circuit-breaker-fallback", "spare")


def test_a_service_that_one_port_alone_names() -> None:
    ports = [HTTP, ServicePort("admin", 8080)]
    cluster = Cluster(shop({"svc.mesh/split.admin": "v1=1"}, ports=ports), named("v1", 11, ports=ports))
    plain, admin = cluster.plan.services[SHOP].listeners
    assert (plain.backends, admin.backends) == ((), (("v1", BackendKey(V1.key, 8080)),))
    assert cluster.plan.referrers == {V1.key: frozenset({SHOP})}
    cluster.drop(V1)
    assert [problem.reason for problem in cluster.problems] == ["default/v1 is not in the mesh"]


def test_one_whose_port_changes_is_followed() -> None:
    cluster = Cluster(shop(), V1, V2)
    cluster.put(named("v1", 11, ports=[ServicePort("web", 8080)]))
    assert cluster.backends["v1"] == BackendKey(V1.key, 8080)


def test_endpoints_of_a_named_service_are_its_own_affair() -> None:
    """The Service that sends to it is looked at again, and stays the same object."""
    cluster = Cluster(shop(), V1, V2)
    before = cluster.put(named("v1", 11, endpoints={"http": [Endpoint("10.1.0.9", 8080)]}))
    assert cluster.plan.services[SHOP] is before.services[SHOP]
    delta = diff_plans(diff_services(before, cluster.plan))
    assert (delta.upserted, [backend.key for backend in delta.backends]) == ((), [BackendKey(V1.key, 80)])


def test_who_sends_to_whom_is_kept_up_to_date() -> None:
    cluster = Cluster(shop(), V1, V2)
    assert dict(cluster.plan.referrers) == {V1.key: {SHOP}, V2.key: {SHOP}}
    cluster.put(shop({"svc.mesh/split": "v1=1"}))
    assert dict(cluster.plan.referrers) == {V1.key: {SHOP}}
    cluster.put(named("other", 13, annotations={"svc.mesh/split": "v1=1"}))
    assert cluster.plan.referrers[V1.key] == {SHOP, ServiceKey("default", "other")}
    cluster.drop(shop())
    assert cluster.plan.referrers[V1.key] == {ServiceKey("default", "other")}


def test_layers_stand_where_their_scope_says() -> None:
    annotations = {
        "svc.mesh/rate-limit": "10/s",
        "svc.mesh/timeout": "5s",
        "svc.mesh/per-try-timeout": "1s",
        "svc.mesh/idle-timeout": "1m",
    }
    ports = [HTTP, ServicePort("tcp-db", 5432)]
    cluster = Cluster(shop(annotations, ports=ports))
    http, tcp = cluster.plan.services[SHOP].listeners
    assert [layer.name for layer in http.layers] == ["connection-times", "rate-limit"]
    assert [layer.name for layer in http.rules[0].layers] == ["timeout", "per-try-timeout"]
    assert [layer.name for layer in tcp.layers] == ["connection-times"]
    assert tcp.rules[0].layers == ()
    assert cluster.problems == ()


def test_times_of_connections_are_of_use_on_tcp_alone() -> None:
    cluster = Cluster(shop({"svc.mesh/idle-timeout": "1m"}, ports=[ServicePort("tcp-db", 5432)]))
    assert cluster.problems == ()


def test_connections_to_endpoints() -> None:
    annotations = {"svc.mesh/max-connections": "7", "svc.mesh/request-trailers": "pass"}
    cluster = Cluster(shop(annotations, ports=[HTTP, ServicePort("tcp-db", 5432)]))
    http, tcp = cluster.plan.services[SHOP].backends
    assert (http.max_connections, tcp.max_connections) == (7, 0)
    assert [listener.trailers for listener in cluster.plan.services[SHOP].listeners] == [True, False]
    cluster.put(shop({**annotations, "svc.mesh/max-connections": "0"}))
    (problem,) = cluster.problems
    assert problem.field == "svc.mesh/max-connections"
    assert problem.effect == "svc.mesh/max-connections=7 stays in force"
    assert cluster.plan.services[SHOP].backends[0].max_connections == 7
    cluster.put(shop({"svc.mesh/request-trailers": "keep"}))
    (problem,) = cluster.problems
    assert problem.effect == "svc.mesh/request-trailers=pass stays in force"


def test_one_of_another_namespace() -> None:
    """Of the mirror: `name.namespace`; by its name alone it is one of the same namespace."""
    there = ServiceKey("staging", "v2")
    other = msgspec.structs.replace(V2, object=msgspec.structs.replace(V2.object, key=there))
    cluster = Cluster(shop({"svc.mesh/mirror": "v2.staging 10%"}), other)
    assert cluster.backends == {"v2.staging": BackendKey(there, 80)}
    assert cluster.problems == ()
    assert cluster.plan.referrers == {there: frozenset({SHOP})}
    (problem,) = Cluster(shop({"svc.mesh/mirror": "v2.nowhere"}), other).problems
    assert (problem.field, problem.reason) == ("svc.mesh/mirror", "nowhere/v2 is not in the mesh")
