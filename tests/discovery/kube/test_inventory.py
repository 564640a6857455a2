from __future__ import annotations

from typing import Any

from discovery.kube.inventory import Inventory
from discovery.kube.resource import watched_resources
from discovery.manifest import read_object
from discovery.model import ServiceKey
from discovery.source import Deleted, Malformed, Upserted
from tests.discovery.kube.objects import service


def make() -> Inventory:
    return Inventory(watched_resources("", "")[0], read_object)


def item(name: str, cluster_ip: str = "10.96.0.10") -> dict[str, Any]:
    """A Service as it stands in a list: without its kind."""
    document = service(name, cluster_ip)
    del document["kind"], document["apiVersion"]
    return document


def broken(name: str) -> dict[str, Any]:
    document = item(name)
    document["spec"]["ports"] = "none"
    return document


def unusable(name: str) -> dict[str, Any]:
    document = item(name)
    document["metadata"]["name"] = name.upper()
    return document


def test_what_did_not_change_is_not_told_again() -> None:
    inventory = make()
    (event,) = inventory.put(item("cart"))
    assert isinstance(event, Upserted)
    assert inventory.put(item("cart")) == []
    assert len(inventory.put(item("cart", "10.96.0.11"))) == 1


def test_a_list_deletes_what_is_not_in_it() -> None:
    inventory = make()
    for name in ("a", "b", "c"):
        inventory.put(item(name))
    inventory.begin_list()
    inventory.put(item("b"))
    assert inventory.end_list() == [Deleted(ServiceKey("shop", "a")), Deleted(ServiceKey("shop", "c"))]
    assert len(inventory) == 1


def test_a_list_that_begins_anew_forgets_what_it_saw() -> None:
    inventory = make()
    inventory.put(item("a"))
    inventory.begin_list()
    inventory.put(item("a"))
    inventory.begin_list()
    assert inventory.end_list() == [Deleted(ServiceKey("shop", "a"))]


def test_problems_are_told_once_and_cleared() -> None:
    inventory = make()
    told, upserted = inventory.put(broken("cart"))
    assert isinstance(told, Malformed)
    assert told.origin == "Service shop/cart"
    assert told.problems
    assert isinstance(upserted, Upserted)
    assert inventory.put(broken("cart")) == []
    assert inventory.put(item("cart"))[0] == Malformed("Service shop/cart")


def test_a_deleted_object_takes_its_problems_along() -> None:
    inventory = make()
    inventory.put(broken("cart"))
    assert inventory.remove(item("cart")) == [
        Malformed("Service shop/cart"),
        Deleted(ServiceKey("shop", "cart")),
    ]


def test_an_unusable_object_that_goes_clears_its_problems_and_deletes_nothing() -> None:
    inventory = make()
    (told,) = inventory.put(unusable("cart"))
    assert isinstance(told, Malformed)
    inventory.begin_list()
    assert inventory.end_list() == [Malformed("Service shop/CART")]


def test_an_object_that_was_never_told_is_not_deleted() -> None:
    assert make().remove(item("cart")) == []


def test_an_object_without_a_name_is_left_out() -> None:
    for document in ({}, {"metadata": None}, {"metadata": {"name": 1, "namespace": "shop"}}):
        assert make().put(document) == []
