"""Events in any order give the same snapshot; what did not change is the same object in the next."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from discovery.model import (
    Changes,
    Endpoint,
    MeshObject,
    MeshSnapshot,
    NamespaceKey,
    NamespaceObject,
    PodKey,
    PodObject,
    Problem,
    ServiceKey,
    ServiceObject,
    ServicePort,
    SliceEndpoint,
    SliceKey,
    SliceObject,
    SlicePort,
)
from discovery.registry import AT_ONCE, Registry
from discovery.source import Deleted, Event, Malformed, Stale, Synced, Upserted

ENABLED = {"svc.mesh/enabled": "true"}


def service(name: str, *ports: ServicePort, meshed: bool = True, origin: str = "") -> ServiceObject:
    return ServiceObject(
        ServiceKey("shop", name),
        ENABLED if meshed else {},
        ports=ports or (ServicePort("http", 80),),
        origin=origin,
    )


def slice_of(
    name: str,
    *endpoints: SliceEndpoint | str,
    suffix: str = "1",
    ports: tuple[SlicePort, ...] = (SlicePort("http", 8080),),
    address_type: str = "IPv4",
) -> SliceObject:
    return SliceObject(
        SliceKey("shop", f"{name}-{suffix}"),
        ServiceKey("shop", name),
        address_type,
        ports,
        tuple(SliceEndpoint(e) if isinstance(e, str) else e for e in endpoints),
    )


def pod(name: str, *addresses: str) -> PodObject:
    return PodObject(PodKey("shop", name), f"pod/{name}", addresses)


def told(*found: MeshObject | Event) -> Registry:
    registry = Registry()
    known = ServiceObject | SliceObject | PodObject | NamespaceObject
    registry.fold([Upserted(o) if isinstance(o, known) else o for o in found])
    registry.fold([Synced()])
    return registry


def places(registry: Registry, name: str, port: str = "http") -> list[str]:
    endpoints = registry.snapshot().services[ServiceKey("shop", name)].endpoints[port]
    return [f"{e.address}:{e.port}" for e in endpoints]


def test_all_slices_of_a_service_are_joined_in_address_order() -> None:
    registry = told(
        slice_of("a", "10.1.0.10", "10.1.0.9"), service("a"), slice_of("a", "10.1.0.1", suffix="2")
    )
    assert places(registry, "a") == ["10.1.0.1:8080", "10.1.0.9:8080", "10.1.0.10:8080"]
    assert registry.snapshot().problems == ()


def test_a_named_port_may_differ_from_slice_to_slice() -> None:
    registry = told(
        service("a", ServicePort("http", 80), ServicePort("admin", 81)),
        slice_of("a", "10.1.0.1", ports=(SlicePort("http", 8080), SlicePort("admin", 9000))),
        slice_of("a", "10.1.0.2", suffix="2", ports=(SlicePort("http", 3000),)),
    )
    assert places(registry, "a") == ["10.1.0.1:8080", "10.1.0.2:3000"]
    assert places(registry, "a", "admin") == ["10.1.0.1:9000"]


def test_the_readiest_of_two_equal_places_wins() -> None:
    leaving = SliceEndpoint("10.1.0.1", ready=False, serving=True, terminating=True, zone="a")
    staying = SliceEndpoint("10.1.0.1")
    for first, second in [(leaving, staying), (staying, leaving)]:
        registry = told(service("a"), slice_of("a", first), slice_of("a", second, suffix="2"))
        endpoints = registry.snapshot().services[ServiceKey("shop", "a")].endpoints["http"]
        assert endpoints == (Endpoint("10.1.0.1", 8080),)


def test_an_unmeshed_service_and_its_slices_appear_nowhere() -> None:
    bad_port = Problem("shop", "a", "spec.ports[0].port", "0", "is not a port number")
    bad_slice = Problem("shop", "a-1", "endpoints[0]", "7", "is a number", kind="EndpointSlice")
    registry = told(
        service("a", meshed=False),
        slice_of("a", "10.1.0.1"),
        Malformed("x", (bad_port,)),
        Malformed("y", (bad_slice,)),
    )
    snapshot = registry.snapshot()
    assert (snapshot.services, snapshot.problems) == ({}, ())
    assert not registry.fold([Upserted(pod("p"))])


def test_an_annotation_that_could_not_be_read_is_told_though_it_leaves_the_service_unmeshed() -> None:
    unquoted = Problem("shop", "a", "svc.mesh/enabled", "true", "is a boolean")
    registry = told(service("a", meshed=False), Malformed("x", (unquoted,)))
    assert registry.snapshot().problems == (unquoted,)


def test_changes_of_an_unmeshed_service_are_none() -> None:
    registry = told(service("a", meshed=False), service("b"))
    snapshot = registry.snapshot()
    assert not registry.fold([Upserted(service("a", ServicePort("x", 1), meshed=False))])
    assert not registry.fold([Upserted(slice_of("a", "10.1.0.1"))])
    assert not registry.fold([Deleted(ServiceKey("shop", "c"))])
    assert registry.snapshot() is snapshot


def test_opting_out_and_in_again() -> None:
    registry = told(service("a"), slice_of("a", "10.1.0.1"))
    before = registry.snapshot()
    assert registry.fold([Upserted(service("a", meshed=False))])
    assert registry.snapshot().services == {}
    assert registry.fold([Upserted(service("a"))])
    assert registry.snapshot().services == before.services


def test_a_slice_waits_for_its_service_and_says_so_only_once_all_is_told() -> None:
    registry = Registry()
    registry.fold([Upserted(slice_of("a", "10.1.0.1"))])
    assert registry.snapshot().problems == ()
    assert registry.fold([Synced()])
    (problem,) = registry.snapshot().problems
    assert (problem.kind, problem.name, problem.value) == ("EndpointSlice", "a-1", "a")
    assert registry.fold([Stale("gone")])
    assert registry.snapshot().problems == ()
    assert registry.fold([Synced()])
    assert registry.fold([Upserted(service("a"))])
    assert registry.snapshot().problems == ()
    assert places(registry, "a") == ["10.1.0.1:8080"]
    assert registry.fold([Deleted(ServiceKey("shop", "a"))])
    assert registry.snapshot().problems == (problem,)
    assert registry.fold([Deleted(SliceKey("shop", "a-1"))])
    assert registry.snapshot().problems == ()


def test_keys_of_different_kinds_are_different() -> None:
    registry = told(service("a"), pod("a", "10.1.0.1"))
    assert not registry.fold([Deleted(SliceKey("shop", "a"))])
    registry.fold([Deleted(PodKey("shop", "a"))])
    assert registry.snapshot().services
    assert not registry.snapshot().pods


def test_a_slice_may_move_to_another_service() -> None:
    registry = told(service("a"), service("b"), slice_of("a", "10.1.0.1"))
    moved = msgspec.structs.replace(slice_of("a", "10.1.0.1"), service=ServiceKey("shop", "b"))
    assert registry.fold([Upserted(moved)])
    assert (places(registry, "a"), places(registry, "b")) == ([], ["10.1.0.1:8080"])


def test_only_ipv4_gives_endpoints() -> None:
    registry = told(service("a"), slice_of("a", "fd00::1", address_type="IPv6"))
    found = registry.snapshot().services[ServiceKey("shop", "a")]
    assert found.endpoints == {"http": ()}
    assert [problem.reason for problem in found.problems] == ["no IPv4 endpoints"]
    registry.fold([Upserted(slice_of("a", "10.1.0.1", suffix="2"))])
    assert registry.snapshot().services[ServiceKey("shop", "a")].problems == ()


def test_a_port_that_no_slice_has_is_reported() -> None:
    registry = told(service("a"), slice_of("a", "10.1.0.1", ports=(SlicePort("web", 8080),)))
    (problem,) = registry.snapshot().services[ServiceKey("shop", "a")].problems
    assert (problem.field, problem.value) == ("spec.ports[0].name", "http")
    assert "web/TCP" in problem.expected


def test_slices_without_endpoints_are_nothing_to_report() -> None:
    registry = told(service("a"), slice_of("a", ports=()))
    assert registry.snapshot().services[ServiceKey("shop", "a")].problems == ()


def test_problems_of_a_meshed_service_go_with_it_until_they_are_mended() -> None:
    problem = Problem("shop", "a", "spec.ports[0].port", "0", "is not a port number")
    registry = told(service("a"), service("b"), Malformed("x.yaml", (problem,)))
    before = registry.snapshot()
    assert before.services[ServiceKey("shop", "a")].problems == (problem,)
    assert before.problems == ()
    assert not registry.fold([Malformed("x.yaml", (problem,))])
    assert registry.fold([Malformed("x.yaml", ())])
    after = registry.snapshot()
    assert after.services[ServiceKey("shop", "a")].problems == ()
    assert after.services[ServiceKey("shop", "b")] is before.services[ServiceKey("shop", "b")]


def test_what_did_not_change_is_the_same_object() -> None:
    registry = told(service("a"), service("b"), slice_of("a", "10.1.0.1"), pod("p", "10.1.0.1"))
    before = registry.snapshot()
    assert registry.fold([Upserted(slice_of("a", "10.1.0.2"))])
    after = registry.snapshot()
    assert after.version == before.version + 1
    assert after.services[ServiceKey("shop", "b")] is before.services[ServiceKey("shop", "b")]
    assert after.pods is before.pods


def test_what_changed_since_anothers_snapshot_is_not_known() -> None:
    registry = told(service("a"))
    registry.continue_from(7)
    first = registry.snapshot()
    assert (first.version, first.changes) == (8, None)
    registry.fold([Upserted(service("b"))])
    assert registry.snapshot().changes == Changes(8, frozenset({ServiceKey("shop", "b")}))


def test_equal_objects_are_no_change() -> None:
    registry = told(service("a"), slice_of("a", "10.1.0.1"), pod("p", "10.1.0.1"))
    before = registry.snapshot()
    events = [Upserted(service("a")), Upserted(slice_of("a", "10.1.0.1")), Upserted(pod("p", "10.1.0.1"))]
    assert not registry.fold([*events, Synced()])
    assert registry.snapshot() is before


def test_moving_within_a_file_is_no_change() -> None:
    registry = told(service("a", origin="x.yaml:1"))
    before = registry.snapshot()
    assert not registry.fold([Upserted(service("a", origin="x.yaml:7"))])
    assert registry.snapshot() is before


def test_pods_by_address() -> None:
    registry = told(pod("b", "10.1.0.1"), pod("a", "10.1.0.1", "fd00::1"))
    assert {a: p.key.name for a, p in registry.snapshot().pods.items()} == {"10.1.0.1": "a", "fd00::1": "a"}
    registry.fold([Deleted(PodKey("shop", "a"))])
    assert {a: p.key.name for a, p in registry.snapshot().pods.items()} == {"10.1.0.1": "b"}
    registry.fold([Upserted(pod("b", "10.1.0.2"))])
    assert list(registry.snapshot().pods) == ["10.1.0.2"]


def test_pods_alone_make_no_new_version() -> None:
    registry = told(service("a"), slice_of("a", "10.1.0.1"), pod("p", "10.1.0.1"))
    before = registry.snapshot()
    assert registry.fold([Upserted(pod("q", "10.1.0.2")), Deleted(PodKey("shop", "p"))])
    after = registry.snapshot()
    assert list(after.pods) == ["10.1.0.2"]
    assert after == msgspec.structs.replace(before, pods=after.pods)
    assert after.services is before.services
    registry.fold([Upserted(service("b"))])
    assert registry.snapshot().changes == Changes(before.version, frozenset({ServiceKey("shop", "b")}))


def test_the_first_snapshot_and_the_first_after_anothers_are_new_versions_whatever_there_is() -> None:
    registry = told(pod("p", "10.1.0.1"))
    assert registry.snapshot().version == 1
    registry = told()
    assert registry.snapshot().version == 1
    registry = told(pod("p", "10.1.0.1"))
    registry.continue_from(7)
    assert (registry.snapshot().version, registry.snapshot().changes) == (8, None)


def test_it_is_known_whether_there_are_pods_though_they_have_no_address_of_their_own() -> None:
    registry = told(service("a"))
    assert not registry.knows_pods
    registry.fold([Upserted(pod("p"))])
    assert (registry.knows_pods, dict(registry.snapshot().pods)) == (True, {})


def test_snapshots_are_not_changed_afterwards() -> None:
    registry = told(service("a"), slice_of("a", "10.1.0.1"), pod("p", "10.1.0.1"))
    before = registry.snapshot()
    copy = msgspec.structs.replace(before, services=dict(before.services), pods=dict(before.pods))
    registry.fold([Deleted(ServiceKey("shop", "a")), Upserted(service("c")), Deleted(PodKey("shop", "p"))])
    registry.snapshot()
    assert before == copy


def test_synced_stays() -> None:
    registry = Registry()
    assert not registry.synced
    registry.fold([Synced(), Stale("gone")])
    assert registry.synced


names = st.sampled_from("abc")
addresses = st.sampled_from(["10.1.0.1", "10.1.0.2", "10.1.0.3"])
endpoints = st.builds(
    SliceEndpoint, addresses, ready=st.booleans(), serving=st.booleans(), zone=st.sampled_from(["", "x"])
)
objects = st.one_of(
    st.builds(service, names, meshed=st.booleans()),
    st.builds(
        lambda name, found, suffix, port, family: slice_of(
            name, *found, suffix=suffix, ports=(SlicePort("http", port),), address_type=family
        ),
        names,
        st.lists(endpoints, max_size=3),
        st.sampled_from("12"),
        st.sampled_from([8080, 8081]),
        st.sampled_from(["IPv4", "IPv4", "FQDN"]),
    ),
    st.builds(pod, names, addresses),
)
problems = st.builds(
    Problem,
    st.just("shop"),
    names,
    st.sampled_from(["spec.ports", "svc.mesh/enabled"]),
    st.just("x"),
    st.just("is wrong"),
    kind=st.sampled_from(["Service", "EndpointSlice", "File"]),
)
events = st.one_of(
    st.builds(Upserted, objects),
    st.builds(Malformed, st.sampled_from("xy"), st.lists(problems, max_size=2).map(tuple)),
    st.builds(lambda o: Deleted(o.key), objects),
)


def subject(event: Event) -> object:
    if isinstance(event, Upserted):
        return type(event.object.key), event.object.key
    if isinstance(event, Deleted):
        return type(event.key), event.key
    return getattr(event, "origin", None)


def content(snapshot: MeshSnapshot) -> MeshSnapshot:
    return msgspec.structs.replace(snapshot, version=0, changes=None)


@given(st.lists(events, max_size=12, unique_by=subject), st.randoms(use_true_random=False))
def test_any_order_gives_the_same_snapshot(found: list[Event], random: object) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    expected = content(told(*found).snapshot())
    assert content(told(*shuffled).snapshot()) == expected
    stepwise = Registry()
    for event in [Synced(), *shuffled]:
        stepwise.fold([event])
        stepwise.snapshot()
    assert content(stepwise.snapshot()) == expected


@given(st.lists(events | st.just(Stale("x")) | st.just(Synced()), max_size=20))
def test_a_snapshot_only_differs_if_fold_said_so_and_equals_a_fresh_join(found: list[Event]) -> None:
    registry = Registry()
    before = registry.snapshot()
    for index, event in enumerate(found):
        changed = registry.fold([event])
        after = registry.snapshot()
        assert changed or after is before
        for key in after.services.keys() & before.services.keys():
            same = after.services[key] == before.services[key]
            assert same == (after.services[key] is before.services[key])
        if after.version == before.version:
            assert after == msgspec.structs.replace(before, pods=after.pods)
        else:
            keys = after.services.keys() | before.services.keys()
            differ = (key for key in keys if after.services.get(key) is not before.services.get(key))
            assert after.changes == Changes(before.version, frozenset(differ))
        fresh = Registry()
        fresh.fold(found[: index + 1])
        assert content(fresh.snapshot()) == content(after)
        before = after


def test_many_services_are_joined_in_parts_and_told_at_once() -> None:
    registry = Registry()
    registry.snapshot()  # the first says not what changed
    count = 2 * AT_ONCE + 1
    made = [ServiceObject(ServiceKey("shop", f"s{n}"), {"svc.mesh/enabled": "true"}) for n in range(count)]
    registry.fold([*map(Upserted, made), Synced()])
    assert registry.join_some()
    assert not registry.join_some()
    snapshot = registry.snapshot()
    assert len(snapshot.services) == count
    assert snapshot.changes is not None
    assert len(snapshot.changes.keys) == count
    assert registry.snapshot() is snapshot
    # What changes between two parts is in the next snapshot, whichever part it belonged to.
    registry.fold([Deleted(one.key) for one in made])
    assert registry.join_some()
    registry.fold([Upserted(made[0]), Upserted(made[-1])])
    while registry.join_some():
        pass
    assert set(registry.snapshot().services) == {made[0].key, made[-1].key}


def namespace(name: str, **annotations: str) -> NamespaceObject:
    return NamespaceObject(
        NamespaceKey(name), {f"svc.mesh/{key}": value for key, value in annotations.items()}
    )


SAYS = {"default.timeout": "5s"}


def test_a_service_has_its_namespace_if_that_says_anything() -> None:
    registry = told(service("web"), namespace("shop", **SAYS), namespace("pay"))
    snapshot = registry.snapshot()
    assert snapshot.services[ServiceKey("shop", "web")].namespace == namespace("shop", **SAYS)
    assert snapshot.namespaces == {"shop": namespace("shop", **SAYS)}


def test_a_namespace_changes_the_services_in_it_and_no_others() -> None:
    registry = told(service("web"), namespace("shop", **SAYS), namespace("pay"))
    before = registry.snapshot()
    assert not registry.fold([Upserted(namespace("shop", **SAYS)), Upserted(namespace("other"))])
    assert registry.snapshot() is before
    assert registry.fold([Upserted(namespace("pay", **SAYS))])
    after = registry.snapshot()
    assert after.changes is not None
    assert after.changes.keys == frozenset()
    assert after.namespaces.keys() == {"shop", "pay"}
    assert registry.fold([Deleted(NamespaceKey("shop"))])
    last = registry.snapshot()
    assert last.changes is not None
    assert last.changes.keys == {ServiceKey("shop", "web")}
    assert last.services[ServiceKey("shop", "web")].namespace is None
