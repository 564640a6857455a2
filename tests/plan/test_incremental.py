"""However a cluster came to be, its plan is the one that is made of it at once."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from discovery.model import Changes, Endpoint, MeshSnapshot, Service, ServiceKey
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.diff import diff_services
from nodeagent.plan.model import EMPTY_PLAN, NodePlan
from tests.plan.builders import MIDDLEWARES, SETTINGS, compile_services, delta_of, make_service

NAMES = ["a", "b", "c", "d"]

services = st.builds(
    make_service,
    st.sampled_from(NAMES),
    enabled=st.sampled_from(["true", "false"]),
    annotations=st.sampled_from([{}, {"svc.mesh/tries": "2"}, {"svc.mesh/protocol": "tcp"}]),
    endpoints=st.sampled_from([{}, {"http": [Endpoint("10.1.0.1", 80)]}]),
    cluster_ips=st.sampled_from([["10.96.0.10"], ["10.96.0.11"], ["16.0.0.1"], []]),
)
clusters = st.lists(services, max_size=5)


def parts_of(plan: NodePlan) -> dict[Any, Any]:
    """Return listeners and backends by key."""
    parts: dict[Any, Any] = {listener.key: listener for listener in plan.listeners()}
    for service in plan.services.values():
        parts.update({backend.key: backend for backend in service.backends})
    return parts


@given(st.lists(clusters, max_size=4))
def test_history_does_not_matter(history: list[list[Service]]) -> None:
    """Compiled step by step or at once, in any order of Services, a cluster gives the same plan; and the
    deltas of the steps, applied one after another, give its listeners and backends."""
    plan = EMPTY_PLAN
    applied: dict[Any, Any] = {}
    last: dict[ServiceKey, Service] = {}
    for cluster in history:
        kept = {service.key: service for service in cluster}
        last = {key: last[key] if last.get(key) == kept[key] else kept[key] for key in kept}
        new = compile_services(*last.values(), previous=plan)
        delta = delta_of(plan, new)
        upserted: dict[Any, Any] = {listener.key: listener for listener in delta.upserted}
        upserted.update({backend.key: backend for backend in delta.backends})
        removed = {*delta.removed, *delta.removed_backends}
        assert not upserted.keys() & removed
        for key in removed:
            del applied[key]
        applied.update(upserted)
        assert applied == parts_of(new)
        plan = new
    at_once = compile_services(*reversed(last.values()))
    assert plan.services == at_once.services


@given(st.lists(clusters, max_size=6))
def test_saying_what_changed_changes_nothing(history: list[list[Service]]) -> None:
    """A snapshot that says what changed gives the plan, and the differences, of one that does not."""
    plan = EMPTY_PLAN
    last: dict[ServiceKey, Service] = {}
    for version, cluster in enumerate(history, 1):
        kept = {service.key: service for service in cluster}
        now = {key: last[key] if last.get(key) == kept[key] else kept[key] for key in sorted(kept)}
        changed = frozenset(key for key in last.keys() | now.keys() if last.get(key) is not now.get(key))
        snapshot = MeshSnapshot(version, now, changes=Changes(version - 1, changed))
        told = compile_plan(snapshot, plan, SETTINGS, MIDDLEWARES)
        untold = compile_plan(msgspec.structs.replace(snapshot, changes=None), plan, SETTINGS, MIDDLEWARES)
        assert told.services == untold.services
        looked = msgspec.structs.replace(told, changes=None)
        assert sorted(map(str, diff_services(plan, told))) == sorted(map(str, diff_services(plan, looked)))
        plan, last = told, now


def test_changes_since_another_version_are_not_relied_on() -> None:
    """Those since a version that the plan was not made of say nothing about what is the same."""
    shop = make_service("shop")
    old = compile_services(shop, make_service("gone", cluster_ips=["10.96.0.11"]))
    snapshot = MeshSnapshot(9, {shop.key: shop}, changes=Changes(8, frozenset()))
    plan = compile_plan(snapshot, old, SETTINGS, MIDDLEWARES)
    assert list(plan.services) == [shop.key]
    assert [(key.name, new) for key, _, new in diff_services(old, plan)] == [("gone", None)]


def test_nothing_changed() -> None:
    service = make_service()
    first = compile_services(service)
    assert not delta_of(first, compile_services(service, previous=first))


def test_a_mesh_address_that_passes_to_another_service() -> None:
    first = compile_services(make_service("a"))
    second = compile_services(make_service("b"), previous=first)
    delta = delta_of(first, second)
    assert [listener.service.name for listener in delta.upserted] == ["b"]
    assert delta.removed == ()
    gone = delta_of(second, EMPTY_PLAN)
    assert (gone.upserted, gone.removed) == ((), (("250.96.0.10", 80),))
