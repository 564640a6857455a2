"""The zone of a plan, and a plan as a document."""

from __future__ import annotations

import json

from discovery.dns.zone import ZonePort
from discovery.model import Endpoint, ServicePort
from nodeagent.delta import diff_services
from nodeagent.plan import NodePlan
from nodeagent.render import plan_document
from nodeagent.zone import names_changed, zone_of
from tests.plan.builders import HTTP, LAPTOP, SETTINGS, compile_services, make_service


def test_names_are_those_of_services_with_an_address() -> None:
    plan = compile_services(
        make_service("a", ports=[HTTP, ServicePort("", 8080)]),
        make_service("loser"),
        make_service("empty", ports=[], cluster_ips=["10.96.0.11"]),
    )
    zone = zone_of(plan, SETTINGS, 7)
    assert list(zone.services) == [("default", "a")]
    service = zone.services["default", "a"]
    assert (service.address, service.ports) == ("250.96.0.10", (ZonePort("http", "tcp", 80),))
    assert (zone.origin, zone.aliases, zone.serial) == ("svc.mesh", ("mesh.internal",), 7)
    assert (zone.network, zone.nameserver) == ("240.0.0.0/4", "240.0.0.53")


def test_on_a_laptop_ports_are_those_that_are_served() -> None:
    zone = zone_of(compile_services(make_service(), settings=LAPTOP), LAPTOP, 1)
    assert zone.services["default", "shop"].ports == (ZonePort("http", "tcp", 10080),)
    assert (zone.network, zone.nameserver) == ("127.64.0.0/10", "127.0.0.1")


def test_a_plan_as_json() -> None:
    endpoints = {"http": [Endpoint("10.1.0.1", 80, pod="shop-1"), Endpoint("10.1.0.2", 80)]}
    service = make_service(annotations={"svc.mesh/tries": "2", "svc.mesh/x": ""}, endpoints=endpoints)
    document = json.loads(json.dumps(plan_document(compile_services(service))))
    shop = document["services"]["default/shop"]
    assert shop["routes"] == [
        {
            "port": 80,
            "name": "http",
            "mesh": "250.96.0.10:80",
            "protocol": "http",
            "upstreams": [{"address": "10.1.0.1:80", "pod": "shop-1"}, {"address": "10.1.0.2:80"}],
            "layers": [{"name": "tries", "options": {"tries": 2, "on": "reset"}}],
        }
    ]
    assert shop["problems"][0]["field"] == "svc.mesh/x"


def changes_names(old: NodePlan, new: NodePlan) -> bool:
    return names_changed(diff_services(old, new))


def test_whether_names_changed() -> None:
    plan = compile_services(make_service())
    more_endpoints = make_service(endpoints={"http": [Endpoint("10.1.0.1", 80), Endpoint("10.1.0.2", 80)]})
    assert not changes_names(plan, compile_services(more_endpoints, previous=plan))
    assert changes_names(plan, compile_services(make_service(cluster_ips=["10.96.0.11"]), previous=plan))
    assert changes_names(plan, compile_services(make_service(ports=[ServicePort("web", 80)]), previous=plan))
    assert changes_names(plan, compile_services(make_service(ports=[]), previous=plan))
    assert changes_names(plan, compile_services(make_service(), make_service("b", cluster_ips=[])))
    assert changes_names(plan, compile_services(make_service(enabled="false"), previous=plan))


def test_a_service_without_an_address_changes_no_names() -> None:
    plan, both = compile_services(make_service()), compile_services(make_service(), make_service("z"))
    assert both.services.keys() > plan.services.keys()
    assert not changes_names(plan, both)
    assert not changes_names(both, plan)
