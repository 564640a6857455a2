"""One reading of a cluster with a kubeconfig: what is in it, and clear words where it cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from discovery.kube.commands import listing
from discovery.kube.commands.reading import PATIENCE, Cluster, read_cluster
from discovery.model import ServiceObject
from discovery.source import Event, SourceError, Synced, Upserted
from tests.discovery.kube.fake_api import EXPIRED, Answer, FakeApi, answer, cut_after, hang, raw, status
from tests.discovery.kube.objects import endpoint_slice, service


def cluster_of(api: FakeApi, tmp_path: Path, **timing: Any) -> Cluster:
    kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig")
    return Cluster(kubeconfig, timing=msgspec.structs.replace(PATIENCE, **timing))


def names(events: tuple[Event, ...]) -> list[str]:
    return [event.object.key.name for event in events if isinstance(event, Upserted)]


def elsewhere(document: dict[str, Any]) -> dict[str, Any]:
    document["metadata"]["namespace"] = "pay"
    return document


async def test_services_and_slices_page_by_page(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_SIZE", 2)
    for number in range(5):
        api.put(service(f"cart-{number}"))
    api.put(endpoint_slice("cart-0-a", "cart-0"))
    events = await read_cluster(cluster_of(api, tmp_path))
    assert names(events) == [*(f"cart-{number}" for number in range(5)), "cart-0-a"]
    assert isinstance(events[-1], Synced)
    assert (api.count("list", "Service"), api.count("list", "Pod")) == (3, 0)


async def test_one_namespace(api: FakeApi, tmp_path: Path) -> None:
    api.put(service("cart"))
    api.put(elsewhere(service("till")))
    api.put(elsewhere(endpoint_slice("till-a", "till")))
    events = await read_cluster(cluster_of(api, tmp_path), namespace="pay")
    assert names(events) == ["till", "till-a"]


async def test_another_mesh(api: FakeApi, tmp_path: Path) -> None:
    api.put(service("cart", **{"mesh.traefik.io/retry-attempts": "3"}))
    for compat, expected in ((None, None), ("traefik-mesh", "2")):
        first = (await read_cluster(cluster_of(api, tmp_path), compat=compat))[0]  # type: ignore[arg-type]
        assert isinstance(first, Upserted)
        assert isinstance(first.object, ServiceObject)
        assert first.object.annotations.get("svc.mesh/retry-attempts") == expected


FORBIDDEN = status(403, "Forbidden", 'services is forbidden: User "eve" cannot list resource "services"')


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (answer(403, FORBIDDEN), 'User "eve" cannot list resource "services"'),
        (answer(401, status(401, "Unauthorized", "Unauthorized")), "status 401: Unauthorized"),
        (answer(429, status(429, "TooManyRequests", "slow down")), "slow down"),
        (answer(410, EXPIRED), "too old"),
        (raw(500, b"<html>oops</html>", "text/html"), "status 500"),
        (raw(200, b"<html>Sign in</html>", "text/html"), "text/html instead of JSON"),
        (raw(200, b'{"kind": "ServiceList", "ite'), "not a ServiceList"),
        (raw(200, b"{}"), "not a ServiceList"),
        (raw(200, b'{"kind":"ServiceList","metadata":{"resourceVersion":"1"},"items":[7]}'), "not an object"),
        (
            raw(200, b'{"kind":"ServiceList","metadata":{"resourceVersion":"1"},"items":[{"a":"\xff"}]}'),
            "not an object",
        ),
        (cut_after(b'{"kind":'), "cannot list Services"),
    ],
)
async def test_a_server_that_does_not_give_a_list(
    api: FakeApi, tmp_path: Path, said: Answer, expected: str
) -> None:
    api.script("list", "Service", said)
    with pytest.raises(SourceError, match="cannot list Services: ") as raised:
        await read_cluster(cluster_of(api, tmp_path))
    assert expected in str(raised.value)


async def test_a_server_that_is_silent(api: FakeApi, tmp_path: Path) -> None:
    api.script("list", "Service", hang)
    with pytest.raises(SourceError, match="no answer in time"):
        await read_cluster(cluster_of(api, tmp_path, answer=0.05))


async def test_a_server_that_is_not_there(api: FakeApi, tmp_path: Path) -> None:
    cluster = cluster_of(api, tmp_path)
    await api.stop()
    with pytest.raises(SourceError, match="cannot list Services: "):
        await read_cluster(cluster)
