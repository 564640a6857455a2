"""The Kubernetes side of `meshctl dns` on a real API server: preconditions, permissions, the same bytes.

There are no nodes, so no pod can be asked; that part is in `test_coredns.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import pytest
from click.testing import CliRunner

from discovery.kube.commands.objects import Conflict, ObjectClient, open_objects
from discovery.kube.failure import ApiError
from hack.kube.control_plane import ControlPlane
from nodeagent.meshctl.clusterdns import cluster as effects
from nodeagent.meshctl.clusterdns.change import Change, backup_data, plan_install, plan_remove
from nodeagent.meshctl.clusterdns.stub import Stub
from nodeagent.meshctl.main import main
from tests.dns_install.samples import read
from tests.kube.objects import person

pytestmark = pytest.mark.kube
T = TypeVar("T")
STUB = Stub(("svc.mesh",), "240.0.0.53")
COREDNS = "/api/v1/namespaces/kube-system/configmaps/coredns"
SPACE = "svcmesh-dns-test"

RIGHTS = {
    "kube-system": [
        {"apiGroups": ["apps"], "resources": ["deployments", "daemonsets"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch", "delete"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]},
        {"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]},
    ],
}
"""As docs/cluster-dns.md has them."""


def run(kubeconfig: str, action: Callable[[ObjectClient], Awaitable[T]]) -> T:
    async def act() -> T:
        async with open_objects(kubeconfig) as client:
            return await action(client)

    return asyncio.run(act())


@pytest.fixture
def cluster(shared_cluster: ControlPlane) -> ControlPlane:
    """A cluster as kubeadm leaves it, with a namespace for the backup."""
    admin = shared_cluster.admin
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "nobody", "namespace": SPACE},
    }
    admin.apply(account)
    admin.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "coredns", "namespace": "kube-system"},
            "data": {"Corefile": read("kubeadm")},
        }
    )
    return shared_cluster


def test_install_and_remove_leave_the_bytes_as_they_were(cluster: ControlPlane) -> None:
    before = cluster.admin.get(COREDNS)

    async def install(client: ObjectClient) -> None:
        plan = plan_install(await effects.read_dns(client), STUB)
        await effects.write_backup(client, backup_data(plan.changes, {}))
        for change in plan.changes:
            await effects.write_change(client, change)
        with pytest.raises(Conflict):
            await effects.write_change(client, plan.changes[0])

    async def remove(client: ObjectClient) -> None:
        backup = await effects.read_backup(client)
        assert backup["coredns.Corefile.before"] == read("kubeadm")
        changes = plan_remove(await effects.read_dns(client), backup)
        await effects.change_and_watch(client, changes, [], (), 1, gone=True)
        await effects.delete_backup(client)
        assert await effects.read_backup(client) == {}

    kubeconfig = person(cluster, SPACE, "dns-person", RIGHTS)
    run(kubeconfig, install)
    assert "svc.mesh:53 {" in cluster.admin.get(COREDNS)["data"]["Corefile"]
    run(kubeconfig, remove)
    after = cluster.admin.get(COREDNS)
    for document in (before, after):
        del document["metadata"]["resourceVersion"], document["metadata"]["managedFields"]
    assert after == before


def test_a_configmap_of_our_own_is_made_and_goes_again(cluster: ControlPlane) -> None:
    change = Change("coredns-custom", "svcmesh.server", None, "svc.mesh:53 {\n}\n", "")

    async def make(client: ObjectClient) -> None:
        await effects.write_change(client, change)
        found = (await effects.read_dns(client)).configmaps["coredns-custom"]
        assert found.data == {"svcmesh.server": change.after}
        back = Change(found.name, change.key, change.after, None, found.version)
        await effects.change_and_watch(client, [back], [], (), 1, gone=True)
        assert "coredns-custom" not in (await effects.read_dns(client)).configmaps

    run(person(cluster, SPACE, "dns-person", RIGHTS), make)


def test_without_a_pod_that_could_be_asked_nothing_is_changed(cluster: ControlPlane) -> None:
    before = cluster.admin.get(COREDNS)
    kubeconfig = person(cluster, SPACE, "dns-person", RIGHTS)
    command = ["dns", "install", "--yes", "--kubeconfig", kubeconfig]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, "no running pod of CoreDNS" in result.output) == (1, True), result.output
    assert cluster.admin.get(COREDNS) == before


def test_who_may_nothing_is_told_what_is_missing(cluster: ControlPlane) -> None:
    token = cluster.service_account_token(SPACE, "nobody")
    kubeconfig = cluster.write_kubeconfig("dns-nobody", {"token": token})
    result = CliRunner().invoke(main, ["dns", "install", "--yes", "--kubeconfig", kubeconfig])
    assert result.exit_code == 1
    assert 'cannot get resource "deployments" in API group "apps"' in result.output

    async def forward(client: ObjectClient) -> None:
        async with client.forward("kube-system", "coredns-1", 53):
            pass

    with pytest.raises(ApiError) as caught:
        run(kubeconfig, forward)
    assert msgspec.structs.asdict(caught.value.failure)["kind"] == "forbidden"


def test_a_forward_to_a_pod_that_does_not_exist(cluster: ControlPlane) -> None:
    async def forward(client: ObjectClient) -> None:
        async with client.forward("kube-system", "coredns-1", 53):
            pass

    with pytest.raises(ApiError, match="status 404"):
        run(person(cluster, SPACE, "dns-person", RIGHTS), forward)
