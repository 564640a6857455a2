"""The control plane itself: a real one, several fit on a machine, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hack.kit.proc import lives
from hack.kit.waiting import until
from hack.kube.assets import kubernetes_version
from hack.kube.client import Client, Refused
from hack.kube.control_plane import ControlPlane
from tests.kube.objects import namespace, node, pod, run_pod, service, write_history

pytestmark = pytest.mark.kube


def refusal(client: Client, method: str, path: str) -> int:
    with pytest.raises(Refused) as refused:
        client.request(method, path)
    return refused.value.code


def test_it_is_kubernetes(shared_cluster: ControlPlane) -> None:
    version = shared_cluster.admin.get("/version")
    if not os.environ.get("KUBEBUILDER_ASSETS"):
        assert version["gitVersion"] == kubernetes_version()
    assert (int(version["major"]), int(version["minor"].rstrip("+"))) >= (1, 33)


def test_a_service_account_s_token_gives_what_rbac_gives(shared_cluster: ControlPlane) -> None:
    token = shared_cluster.service_account_token("default", "default")
    client = shared_cluster.client(token)
    review = client.request(
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
    )
    assert review["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"
    assert refusal(client, "GET", "/api/v1/services") == 403
    assert refusal(shared_cluster.client("nonsense"), "GET", "/api/v1/services") == 401


def test_the_controllers_make_slices_and_collect_garbage(shared_cluster: ControlPlane) -> None:
    admin = shared_cluster.admin
    admin.apply(namespace("controllers"))
    selecting = service("web", "controllers")
    selecting["spec"]["selector"] = {"app": "web"}
    admin.apply(selecting)
    until(lambda: admin.raw("GET", "/api/v1/namespaces/controllers/serviceaccounts/default")[0] == 200)
    admin.apply(node("node-1"))
    run_pod(admin, pod("web-a", "controllers", app="web"), "10.1.0.7")
    slices = "/apis/discovery.k8s.io/v1/namespaces/controllers/endpointslices"

    def addresses() -> list[str]:
        items = admin.get(slices)["items"]
        return [address for item in items for end in item["endpoints"] or [] for address in end["addresses"]]

    assert until(addresses) == ["10.1.0.7"]
    admin.delete(selecting)
    until(lambda: not admin.get(slices)["items"])


def test_two_run_side_by_side_and_know_nothing_of_each_other(shared_cluster: ControlPlane) -> None:
    with ControlPlane(controllers=()) as other:
        other.admin.apply(namespace("only-there"))
        assert refusal(shared_cluster.admin, "GET", "/api/v1/namespaces/only-there") == 404
        assert other.admin.get("/api/v1/namespaces/only-there")["status"]["phase"] == "Active"
        folder = other.folder
    assert not folder.exists()


def test_nothing_outlives_an_owner_that_was_killed() -> None:
    program = (
        "import signal\n"
        "from hack.kube.control_plane import ControlPlane\n"
        "with ControlPlane(controllers=()) as cluster:\n"
        "    print(cluster.etcd.pid, cluster.apiserver.pid, cluster.folder, flush=True)\n"
        "    signal.pause()\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        etcd, apiserver, folder = owner.stdout.readline().split()
    assert Path(f"/proc/{etcd}/stat").exists()
    owner.send_signal(signal.SIGKILL)
    owner.wait(20)
    until(lambda: not any(lives(int(pid)) for pid in (etcd, apiserver)))
    subprocess.run(["rm", "-r", folder], check=True)


def test_the_store_forgets_its_history_and_goes_back(cluster: ControlPlane) -> None:
    admin = cluster.admin
    admin.apply(namespace("before"))
    saved = cluster.save_data()
    until(cluster.ready)
    admin.apply(namespace("after"))
    write_history(admin)
    listed = "/api/v1/namespaces?limit=1"
    version = int(admin.get(listed)["metadata"]["resourceVersion"])
    assert cluster.compact() >= version
    cluster.restore_data(saved)
    assert refusal(admin, "GET", "/api/v1/namespaces/after") == 404
    assert admin.get("/api/v1/namespaces/before")["metadata"]["name"] == "before"
    assert int(admin.get(listed)["metadata"]["resourceVersion"]) < version


def test_the_api_server_comes_back_at_the_same_port(cluster: ControlPlane) -> None:
    cluster.admin.apply(namespace("stays"))
    cluster.apiserver.kill()
    with pytest.raises(OSError, match="refused"):
        cluster.admin.get("/readyz")
    cluster.apiserver.start()
    assert cluster.admin.get("/api/v1/namespaces/stays")["status"]["phase"] == "Active"
