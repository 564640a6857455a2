"""The zone of a plan, and a plan as a document."""

from __future__ import annotations

import json

from discovery.dns.zone import Zone, ZonePort
from discovery.model import Endpoint, ServicePort
from nodeagent.plan.diff import diff_services
from nodeagent.plan.model import EMPTY_PLAN, NodePlan
from nodeagent.plan.render import plan_document
from nodeagent.plan.zone import changed_zone, departures, empty_zone
from nodeagent.settings import Settings
from tests.plan.builders import HTTP, LAPTOP, SETTINGS, compile_services, make_service


def zone_of(plan: NodePlan, settings: Settings = SETTINGS) -> Zone:
    zone, _ = changed_zone(empty_zone(settings), diff_services(EMPTY_PLAN, plan))
    return zone


def test_names_are_those_of_services_with_an_address() -> None:
    plan = compile_services(
        make_service("a", ports=[HTTP, ServicePort("", 8080)]),
        make_service("loser"),
        make_service("empty", ports=[], cluster_ips=["10.96.0.11"]),
    )
    zone = zone_of(plan)
    assert list(zone.services) == [("default", "a")]
    service = zone.services["default", "a"]
    assert (service.address, service.ports) == ("250.96.0.10", (ZonePort("http", "tcp", 80),))
    assert (zone.origin, zone.aliases, zone.serial) == ("svc.mesh", ("mesh.internal",), 2)
    assert (zone.network, zone.nameserver) == ("240.0.0.0/4", "240.0.0.53")


def test_on_a_laptop_ports_are_those_that_are_served() -> None:
    zone = zone_of(compile_services(make_service(), settings=LAPTOP), LAPTOP)
    assert zone.services["default", "shop"].ports == (ZonePort("http", "tcp", 10080),)
    assert (zone.network, zone.nameserver) == ("127.64.0.0/10", "127.0.0.1")


def test_a_plan_as_json() -> None:
    endpoints = {"http": [Endpoint("10.1.0.1", 80, pod="shop-1"), Endpoint("10.1.0.2", 80)]}
    service = make_service(annotations={"svc.mesh/tries": "2", "svc.mesh/x": ""}, endpoints=endpoints)
    document = json.loads(json.dumps(plan_document(compile_services(service))))
    shop = document["services"]["default/shop"]
    assert shop["listeners"] == [
        {
            "port": 80,
            "name": "http",
            "mesh": "250.96.0.10:80",
            "protocol": "http",
            "layers": [],
            "rules": [
                {
                    "name": "all",
                    "backends": [{"backend": "default/shop:80", "weight": 1}],
                    "layers": [{"name": "tries", "options": {"tries": 2, "on": "reset"}}],
                }
            ],
        }
    ]
    assert shop["backends"] == [
        {
            "backend": "default/shop:80",
            "endpoints": [{"address": "10.1.0.1:80", "pod": "shop-1"}, {"address": "10.1.0.2:80"}],
            "balance": "round-robin",
        }
    ]
    assert shop["problems"][0]["field"] == "svc.mesh/x"


def changes_names(old: NodePlan, new: NodePlan) -> bool:
    zone = zone_of(old)
    changed, differ = changed_zone(zone, diff_services(old, new))
    assert changed.services == zone_of(new).services
    assert (changed is not zone) == bool(differ)
    assert changed.serial == zone.serial + bool(differ)
    return bool(differ)


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


def test_names_that_go_leave_first_and_those_that_move_come_back_last() -> None:
    kept, moved, gone = (
        make_service(name, cluster_ips=[f"10.96.0.{number}"])
        for number, name in enumerate(("kept", "moved", "gone"), 10)
    )
    old = compile_services(kept, moved, gone)
    elsewhere = make_service("moved", cluster_ips=["10.96.0.20"])
    new = compile_services(kept, elsewhere, make_service("new", cluster_ips=["10.96.0.21"]), previous=old)
    changed = diff_services(old, new)
    between, left = changed_zone(zone_of(old), departures(changed))
    assert {key.name for key in left} == {"moved", "gone"}
    assert {name for _, name in between.services} == {"kept"}
    after, came = changed_zone(between, changed)
    assert {key.name for key in came} == {"moved", "new"}
    assert after.services == zone_of(new).services
