"""`--service-selector` on a real API server, with the slices that its own controller makes."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from hack.kit.waiting import until
from hack.kube.control_plane import ControlPlane
from tests.agent.harness import Agent
from tests.discovery.kube.test_selector import REFUSED, TAKEN
from tests.kube.objects import namespace, node, pod, run_pod, service

pytestmark = pytest.mark.kube

SPACE = "selected"


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
        run_pod(admin, pod(name, SPACE, app=name), address)
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
            admin.request("PATCH", path, patch)
            until(lambda answer=answer: agent.resolve(f"web.{SPACE}")[0] == answer)  # type: ignore[misc]
        until(lambda: "10.1.0.8" in agent.admin("/plan")[1])
        assert agent.admin("/plan")[1].count("10.1.0.9") == 0
    finally:
        agent.stop()


def status_of(cluster: ControlPlane, selector: str) -> int:
    return cluster.admin.raw("GET", f"/api/v1/services?labelSelector={quote(selector)}&limit=1")[0]


def test_what_we_take_and_refuse_is_what_the_server_does(shared_cluster: ControlPlane) -> None:
    assert {text: status_of(shared_cluster, text) for text in TAKEN} == dict.fromkeys(TAKEN, 200)
    refused = [text for text, _ in REFUSED if text]  # none at all is everything for the server
    assert {text: status_of(shared_cluster, text) for text in refused} == dict.fromkeys(refused, 400)
