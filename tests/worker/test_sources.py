"""Who a client is, from its address alone."""

from __future__ import annotations

import pytest

from nodeagent.control.messages import SourcePod, Sources
from nodeagent.stats.identity import NODE, UNKNOWN, Identity
from nodeagent.worker.sources import SourcePods, is_local

WEB = SourcePod("shop", "web-1", "deployment/web", "web")
IDENTITY = Identity("deployment/web", "shop", "web-1", "web")


def pods(local: str = "") -> SourcePods:
    known = SourcePods(lambda address: address == local)
    known.change(Sources({"10.1.0.1": WEB}))
    return known


def test_a_pod_the_node_and_a_stranger() -> None:
    known = pods("192.168.0.1")
    assert known.identify("10.1.0.1") == IDENTITY
    assert known.identify("192.168.0.1") == NODE
    assert known.identify("10.9.9.9") == UNKNOWN
    assert (IDENTITY.source, NODE.source, UNKNOWN.source) == ("shop/deployment/web", "/node", "/unknown")


def test_a_pod_that_becomes_known_later() -> None:
    known = pods()
    before = known.identify("10.1.0.2")
    assert before == UNKNOWN
    known.change(Sources({"10.1.0.2": WEB}))
    assert known.identify("10.1.0.2", before) == IDENTITY


def test_a_connection_of_a_pod_that_is_gone_counts_for_nobody_else() -> None:
    known = pods()
    before = known.identify("10.1.0.1")
    known.change(Sources({}, ("10.1.0.1",)))
    gone = known.identify("10.1.0.1", before)
    assert gone.source == UNKNOWN.source
    known.change(Sources({"10.1.0.1": SourcePod("shop", "api-1", "deployment/api")}))
    assert known.identify("10.1.0.1", gone).source == UNKNOWN.source, "nor for who has the address now"
    assert known.identify("10.1.0.1", before).source == UNKNOWN.source
    assert known.identify("10.1.0.1").source == "shop/deployment/api", "a new connection does"


def test_the_same_pod_with_another_workload() -> None:
    known = pods()
    before = known.identify("10.1.0.1")
    known.change(Sources({"10.1.0.1": SourcePod("shop", "web-1", "pod/web-1")}))
    assert known.identify("10.1.0.1", before).source == "shop/pod/web-1"


def test_strangers_are_remembered_within_bounds_and_until_something_changes() -> None:
    asked: list[str] = []

    def look(address: str) -> bool:
        asked.append(address)
        return False

    known = SourcePods(look)
    for _ in range(2):
        known.identify("10.9.9.9")
    assert asked == ["10.9.9.9"]
    for number in range(5000):
        known.identify(f"10.8.{number // 256}.{number % 256}")
    assert len(known._others) <= 1024
    known.change(Sources({}))
    known.identify("10.8.0.0")
    assert asked[-1] == "10.8.0.0"


@pytest.mark.parametrize(
    ("address", "local"), [("127.0.0.1", True), ("203.0.113.7", False), ("nonsense", False)]
)
def test_which_addresses_are_the_machines_own(address: str, local: bool) -> None:
    assert is_local(address) == local
