"""However a cluster came to be, its plan is the one that is made of it at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from discovery.model import Endpoint, Service, ServiceKey
from nodeagent.delta import diff_routes
from nodeagent.plan import EMPTY_PLAN, NodePlan, Route, RouteKey
from tests.plan.builders import compile_services, make_service

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


def routes_of(plan: NodePlan) -> dict[RouteKey, Route]:
    return {route.key: route for route in plan.routes()}


@given(st.lists(clusters, max_size=4))
def test_history_does_not_matter(history: list[list[Service]]) -> None:
    """Compiled step by step or at once, in any order of Services, a cluster gives the same plan; and the
    deltas of the steps, applied one after another, give its routes."""
    plan = EMPTY_PLAN
    applied: dict[RouteKey, Route] = {}
    last: dict[ServiceKey, Service] = {}
    for cluster in history:
        kept = {service.key: service for service in cluster}
        last = {key: last[key] if last.get(key) == kept[key] else kept[key] for key in kept}
        new = compile_services(*last.values(), previous=plan)
        delta = diff_routes(plan, new)
        assert not {route.key for route in delta.upserted} & set(delta.removed)
        for key in delta.removed:
            del applied[key]
        applied.update({route.key: route for route in delta.upserted})
        assert applied == routes_of(new)
        plan = new
    at_once = compile_services(*reversed(last.values()))
    assert plan.services == at_once.services


def test_nothing_changed() -> None:
    service = make_service()
    first = compile_services(service)
    assert not diff_routes(first, compile_services(service, previous=first))


def test_a_mesh_address_that_passes_to_another_service() -> None:
    first = compile_services(make_service("a"))
    second = compile_services(make_service("b"), previous=first)
    delta = diff_routes(first, second)
    assert [route.service.name for route in delta.upserted] == ["b"]
    assert delta.removed == ()
    gone = diff_routes(second, EMPTY_PLAN)
    assert (gone.upserted, gone.removed) == ((), (("250.96.0.10", 80),))
