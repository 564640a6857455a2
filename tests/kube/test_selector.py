"""`--service-selector` on a real API server, with the slices that its own controller makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.kit.waiting import until
from hack.kube.client import Client
from hack.kube.control_plane import ControlPlane
from tests.agent.harness import Agent
from tests.kube.objects import namespace, node, pod, service

pytestmark = pytest.mark.kube

SPACE = "selected"


def make_pod(admin: Client, name: str, address: str) -> None:
    """A Pod that is ready, as the kubelet would say."""
    admin.apply(pod(name, SPACE, app=name))
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    path = f"/api/v1/namespaces/{SPACE}/pods/{name}/status"
    admin.request("PATCH", path, {"status": status}, kind="application/merge-patch+json")


def test_the_labels_of_a_service_select_it_and_its_slices(
    shared_cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = shared_cluster.admin
    admin.apply(namespace(SPACE))
    until(lambda: admin.raw("GET", f"/api/v1/namespaces/{SPACE}/serviceaccounts/default")[0] == 200)
    admin.apply(node("node-1"))
    for name, address, labels in (("web", "10.1.0.8", {"svc.mesh/watch": "true"}), ("other", "10.1.0.9", {})):
        made = service(name, SPACE)
        made["spec"]["selector"] = {"app": name}
        made["metadata"]["labels"] = labels
        admin.apply(made)
        make_pod(admin, name, address)
    monkeypatch.setenv("KUBECONFIG", shared_cluster.kubeconfig)
    (tmp_path / "cluster").mkdir()
    agent = Agent(tmp_path / "cluster", "--source", "kube", "--service-selector", "svc.mesh/watch=true")
    try:
        until(agent.ready)
        until(lambda: "10.1.0.8" in agent.admin("/plan")[1])
        assert agent.resolve(f"other.{SPACE}")[0] == "NXDOMAIN"
        # A label that goes and comes is seen as the Service and its slices going and coming.
        path = f"/api/v1/namespaces/{SPACE}/services/web"
        for value, answer in ((None, "NXDOMAIN"), ("true", "NOERROR")):
            patch = {"metadata": {"labels": {"svc.mesh/watch": value}}}
            admin.request("PATCH", path, patch, kind="application/merge-patch+json")
            until(lambda answer=answer: agent.resolve(f"web.{SPACE}")[0] == answer)  # type: ignore[misc]
        until(lambda: "10.1.0.8" in agent.admin("/plan")[1])
        assert agent.admin("/plan")[1].count("10.1.0.9") == 0
    finally:
        agent.stop()


@pytest.mark.parametrize(
    "selector", ["team shop", "team=a=b", "-team=shop", "team in (shop", f"team={'v' * 64}"]
)
def test_what_the_server_refuses_ends_the_agent_at_once(
    shared_cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selector: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", shared_cluster.kubeconfig)
    (tmp_path / "cluster").mkdir()
    agent = Agent(tmp_path / "cluster", "--source", "kube", "--service-selector", selector)
    try:
        assert agent.process.wait(30) == 1
        assert "--service-selector" in agent.log.read_text()
        assert "is refused by the API server" in agent.log.read_text()
    finally:
        agent.stop()
