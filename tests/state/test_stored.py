"""A snapshot as bytes: what is read is what was written, and anything else is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec
import pytest

from discovery.model import (
    Endpoint,
    MeshSnapshot,
    NamespaceKey,
    NamespaceObject,
    PodKey,
    PodObject,
    Problem,
    Service,
    ServiceKey,
    ServiceObject,
    ServicePort,
)
from discovery.registry import Registry
from discovery.source import Synced, Upserted
from nodeagent.agent import stored as module
from nodeagent.agent.stored import Head, SnapshotRefused, decode_snapshot, encode_snapshot, remembered_plan
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.model import EMPTY_PLAN, NodePlan, ServicePlan
from tests.plan.builders import SETTINGS

HEAD = Head(mesh="1.2.3", source="kube", written=1_700_000_000.0, version=41)


SHOP = NamespaceObject(NamespaceKey("shop"), {"svc.mesh/default.timeout": "5s"})


def make_service(number: int) -> Service:
    key = ServiceKey("shop", f"s{number}")
    annotations = {"svc.mesh/enabled": "true", "svc.mesh/retry-attempts": "many"}
    found = ServiceObject(key, annotations, cluster_ips=("10.96.0.1",), ports=(ServicePort("http", 80),))
    problem = Problem("shop", key.name, "spec.ports", "", "a reason — with a dash")
    endpoint = Endpoint("10.1.0.1", 8080, zone="a", hints=("a", "b"), pod="shop/s-1")
    return Service(found, {"http": (endpoint,), "": ()}, (problem,), SHOP)


def make_snapshot(services: int = 3) -> MeshSnapshot:
    made = [make_service(number) for number in range(services)]
    return MeshSnapshot(
        version=41,
        services={service.key: service for service in made},
        pods={"10.1.0.9": PodObject(PodKey("shop", "client"), "job/client", ("10.1.0.9",), "till")},
        problems=(Problem("shop", "orphan", "metadata", "x", "there is no Service", kind="EndpointSlice"),),
        namespaces={"shop": SHOP},
    )


def make_plan(snapshot: MeshSnapshot) -> NodePlan:
    in_force = {"svc.mesh/enabled": "true", "svc.mesh/retry-attempts": "3"}
    return NodePlan(
        41, {key: ServicePlan(service, "", (), (), in_force) for key, service in snapshot.services.items()}
    )


def encoded(services: int = 3) -> bytes:
    snapshot = make_snapshot(services)
    return encode_snapshot(HEAD, snapshot, make_plan(snapshot))


@pytest.mark.parametrize("services", [0, 1, module.PORTION, module.PORTION + 1])
def test_what_is_read_is_what_was_written(services: int) -> None:
    snapshot = make_snapshot(services)
    read = decode_snapshot(encode_snapshot(HEAD, snapshot, make_plan(snapshot)), "kube")
    assert read.head == HEAD
    assert read.snapshot == snapshot
    assert list(read.snapshot.services) == list(snapshot.services)
    assert set(read.effective) == set(snapshot.services)
    assert all(one["svc.mesh/retry-attempts"] == "3" for one in read.effective.values())


def test_a_service_that_no_plan_has_is_kept_without_annotations_in_force() -> None:
    read = decode_snapshot(encode_snapshot(HEAD, make_snapshot(1), EMPTY_PLAN), "kube")
    assert list(read.effective.values()) == [{}]


def test_what_is_remembered_is_only_what_was_in_force() -> None:
    read = decode_snapshot(encoded(1), "kube")
    plan = remembered_plan(read)
    ((key, remembered),) = plan.services.items()
    assert (plan.version, remembered.listeners, remembered.address) == (0, (), "")
    assert remembered.effective["svc.mesh/retry-attempts"] == "3"
    # The compiler takes a Service that it has compiled before, the same object, as done.
    assert remembered.source is not read.snapshot.services[key]


def test_a_service_that_went_while_nobody_looked_is_not_remembered_for_ever() -> None:
    remembered = remembered_plan(decode_snapshot(encoded(2), "kube"))
    registry = Registry()
    registry.fold([Upserted(make_service(1).object), Synced()])
    plan = compile_plan(registry.snapshot(), remembered, SETTINGS)
    assert list(plan.services) == [ServiceKey("shop", "s1")]


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def seal(body: bytes, content: bytes) -> bytes:
    """Return another body with a right length and checksum and everything else as in `content`."""
    magic, number, model, _, _ = module._PREFIX.unpack_from(content)
    return module._PREFIX.pack(magic, number, model, hashlib.sha256(body).digest(), len(body)) + body


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "it is empty"),
    "another file": (lambda _: b"apiVersion: v1\nkind: List\n", "no snapshot of svc.mesh"),
    "cut in the prefix": (lambda content: content[:20], "truncated"),
    "cut in the body": (lambda content: content[:-1], "truncated or damaged"),
    "longer": (lambda content: content + b"x", "truncated or damaged"),
    "a bit of the body": (lambda content: flip(content, len(content) // 2), "checksum"),
    "a bit of the checksum": (lambda content: flip(content, 20), "checksum"),
    "another format": (lambda content: flip(content, 9), "format 0, and this version reads 1"),
    "another model": (lambda content: flip(content, 12), "svc.mesh 1.2.3 wrote it"),
    "no frames": (lambda content: seal(b"", content), "its content is not"),
    "half a frame": (lambda content: seal(content[58:-1], content), "its content is not"),
    "half a length": (lambda content: seal(content[58:] + b"\0", content), "its frames are not"),
    "frames of something else": (lambda content: seal(b"\0\0\0\1\x01", content), "its content is not"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_is_refused(name: str) -> None:
    damage, reason = DAMAGED[name]
    with pytest.raises(SnapshotRefused) as raised:
        decode_snapshot(damage(encoded()), "kube")
    assert reason in str(raised.value)


def test_every_bit_counts() -> None:
    content = encoded(1)
    for at in range(len(content)):
        with pytest.raises(SnapshotRefused):
            decode_snapshot(flip(content, at), "kube")


def test_every_length_is_refused_but_the_right_one() -> None:
    content = encoded(1)
    for length in range(len(content)):
        with pytest.raises(SnapshotRefused):
            decode_snapshot(content[:length], "kube")


def test_a_snapshot_of_another_source_is_refused() -> None:
    with pytest.raises(SnapshotRefused, match="the source kube"):
        decode_snapshot(encoded(), "file:shop")


def test_the_model_is_that_of_the_types(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wider(msgspec.Struct, frozen=True, array_like=True):
        service: Service
        effective: dict[str, str]
        further: str = ""

    before = module._model()
    monkeypatch.setattr(module, "_StoredService", Wider)
    module._model.cache_clear()
    try:
        assert module._model() != before
    finally:
        module._model.cache_clear()
