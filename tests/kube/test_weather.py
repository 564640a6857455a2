"""The agent while its API server is away, forgets, goes back in time or is cut off; traffic goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hack.kit.waiting import until
from hack.kube.client import Refused
from hack.kube.control_plane import ControlPlane
from tests.agent.harness import load
from tests.kube.mesh import Mesh, failures, running_mesh
from tests.kube.objects import namespace, write_history

pytestmark = pytest.mark.kube

AWAY = 120.0 if os.environ.get("SVCMESH_LONG") else 6.0
"""Seconds for which the API server is away."""


@pytest.fixture
def mesh(cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    with running_mesh(cluster, tmp_path, monkeypatch) as mesh:
        yield mesh


@contextmanager
def unbroken_traffic(mesh: Mesh) -> Iterator[None]:
    """Requests on keep-alive connections meanwhile; not one may fail."""
    with load(mesh.agent, connections=2) as outcome:
        yield
    print(f"{outcome['ok']} requests meanwhile")
    assert outcome["ok"] > 0
    assert outcome["failed"] == 0


@pytest.mark.timeout(300)
def test_an_api_server_that_is_away_for_a_while(mesh: Mesh) -> None:
    old = mesh.add()
    until(lambda: mesh.serves(old))
    with unbroken_traffic(mesh):
        away_since = time.monotonic()
        mesh.cluster.apiserver.kill()
        until(mesh.stale)
        assert mesh.agent.events("source_stale")
        assert "stale since" in mesh.agent.admin("/readyz?verbose")[1]
        assert mesh.agent.admin("/readyz")[0] == 200
        until(lambda: time.monotonic() - away_since > AWAY, seconds=AWAY + 10)
        assert mesh.serves(old)
        mesh.cluster.apiserver.start()
        back = time.monotonic()
        new = mesh.add()
        mesh.remove(old)
        mesh.right_after(f"API server away for {AWAY:.0f} s", back, there=[new], gone=[old])
        until(lambda: not mesh.stale())
    assert "stale since" not in mesh.agent.admin("/readyz?verbose")[1]
    assert mesh.agent.events("source_synced")


def test_history_that_was_compacted_under_a_watch(mesh: Mesh) -> None:
    old = mesh.add()
    until(lambda: mesh.serves(old))
    with unbroken_traffic(mesh):
        mesh.gate.shut()
        until(lambda: failures(mesh.agent, "cut") or failures(mesh.agent, "connect"))
        new = mesh.add()
        mesh.remove(old)
        mesh.cluster.compact()
        # After a restart it has only what etcd still has, and that begins after the agent's version.
        mesh.cluster.apiserver.kill()
        mesh.cluster.apiserver.start()
        mesh.gate.open()
        mesh.right_after("etcd compacted", time.monotonic(), there=[new], gone=[old])
    assert failures(mesh.agent, "expired")


def test_connections_that_are_cut_again_and_again(mesh: Mesh) -> None:
    names: list[str] = []
    lists = len(mesh.agent.events("source_listed"))
    with unbroken_traffic(mesh):
        for _ in range(5):
            until(lambda: mesh.gate.cut() >= 1)
            names.append(mesh.add())
            mesh.right_after("connections cut", time.monotonic(), there=names, gone=[])
    # Nothing was lost, so nothing was listed again.
    assert len(mesh.agent.events("source_listed")) == lists


def test_a_network_that_holds_everything_back(mesh: Mesh) -> None:
    with unbroken_traffic(mesh):
        mesh.gate.stall()
        new = mesh.add()
        mesh.gate.cut()
        until(mesh.stale)
        assert failures(mesh.agent, "cut") or failures(mesh.agent, "timeout")
        mesh.gate.flow()
        mesh.right_after("network stalled", time.monotonic(), there=[new], gone=[])
        until(lambda: not mesh.stale())


def test_resource_versions_that_go_back(mesh: Mesh) -> None:
    kept = mesh.add()
    saved = mesh.cluster.save_data()
    until(mesh.cluster.ready)
    ghosts = [mesh.add() for _ in range(3)]
    mesh.remove(kept)
    write_history(mesh.admin)
    until(lambda: all(map(mesh.serves, ghosts)) and not mesh.serves(kept))
    with unbroken_traffic(mesh):
        mesh.cluster.restore_data(saved)
        mesh.right_after("etcd restored", time.monotonic(), there=[kept], gone=ghosts)
        new = mesh.add()
        mesh.right_after("then a change", time.monotonic(), there=[new], gone=[])
    assert any("went back" in reason for reason in failures(mesh.agent, "expired"))


def test_a_token_that_is_replaced_on_disk(
    cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = cluster.admin
    admin.apply(namespace("svcmesh"))
    admin.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "agent", "namespace": "svcmesh"},
        }
    )
    admin.apply(READER)
    admin.apply(READER_BINDING)
    file = tmp_path / "token"
    first = bound_token(cluster, "first")
    file.write_text(first)
    with (
        running_mesh(cluster, tmp_path, monkeypatch, {"tokenFile": str(file)}) as mesh,
        unbroken_traffic(mesh),
    ):
        # The token ends with the Secret it is bound to; the API server believes in it for 10 s more.
        admin.request("DELETE", "/api/v1/namespaces/svcmesh/secrets/first")
        until(lambda: is_refused(cluster, first), every=0.2)
        mesh.gate.cut()
        until(lambda: failures(mesh.agent, "unauthorized"))
        new = mesh.add()
        file.write_text(bound_token(cluster, "second"))
        mesh.right_after("token replaced", time.monotonic(), there=[new], gone=[])


def bound_token(cluster: ControlPlane, secret: str) -> str:
    """Return a token of svcmesh/agent that is good as long as this Secret is there."""
    path = "/api/v1/namespaces/svcmesh/secrets"
    made = cluster.admin.request(
        "POST", path, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}}
    )
    reference = {"kind": "Secret", "apiVersion": "v1", "name": secret, "uid": made["metadata"]["uid"]}
    return cluster.service_account_token("svcmesh", "agent", bound_to=reference)


def is_refused(cluster: ControlPlane, token: str) -> bool:
    try:
        cluster.client(token).get("/api/v1/services?limit=1")
    except Refused as error:
        return error.code == 401
    return False


READER = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "reader"},
    "rules": [
        {
            "apiGroups": ["", "discovery.k8s.io"],
            "resources": ["services", "pods", "endpointslices", "namespaces"],
            "verbs": ["list", "watch"],
        }
    ],
}
READER_BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "reader"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
    "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": "svcmesh"}],
}
