"""Clients are named after the Pods of this node, as real controllers make them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from discovery.kube.resource import watched_resources
from hack.kit.manifests import Document
from hack.kit.waiting import until
from hack.kube.client import Client, path_of
from hack.kube.control_plane import CONTROLLERS, ControlPlane
from tests.agent.harness import Agent
from tests.agent.test_source_pods import request_line, source_keys
from tests.kube.objects import namespace, node, pod, service

pytestmark = pytest.mark.kube

SPACE = "clients"
MAKERS = ("deployment-controller", "replicaset-controller", "cronjob-controller", "job-controller")
TEMPLATE: Document = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "main", "image": "none"}]},
}


@pytest.fixture
def cluster() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=(*CONTROLLERS, *MAKERS)) as cluster:
        cluster.admin.apply(namespace(SPACE))
        account = f"/api/v1/namespaces/{SPACE}/serviceaccounts/default"
        until(lambda: cluster.admin.raw("GET", account)[0] == 200)
        for name in ("node-1", "node-2"):
            cluster.admin.apply(node(name))
        yield cluster


@pytest.fixture
def agent(cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """The agent of node-1, with a Service that nobody serves: every request becomes a line."""
    cluster.admin.apply(service("none", SPACE, port=18080))
    monkeypatch.setenv("KUBECONFIG", cluster.kubeconfig)
    (tmp_path / "cluster").mkdir()
    agent = Agent(tmp_path / "cluster", "--source", "kube", "--node-name", "node-1")
    try:
        until(agent.ready)
        yield agent
    finally:
        agent.stop()


def deployment() -> Document:
    selector = {"matchLabels": {"app": "web"}}
    spec = {"replicas": 1, "selector": selector, "template": TEMPLATE}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": SPACE},
        "spec": spec,
    }


def cron_job() -> Document:
    template = {**TEMPLATE, "spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "backup", "namespace": SPACE},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}},
    }


def pods_of(admin: Client, kind: str) -> list[Any]:
    """Return the Pods that an object of this kind controls."""
    found = admin.get(f"/api/v1/namespaces/{SPACE}/pods")["items"]
    return [one for one in found if one["metadata"].get("ownerReferences", [{}])[0].get("kind") == kind]


def place(admin: Client, name: str, where: str, address: str) -> None:
    """Do what scheduler and kubelet would: bind the Pod to a node and give it an address."""
    path = f"/api/v1/namespaces/{SPACE}/pods/{name}"
    if "nodeName" not in admin.get(path)["spec"]:
        target = {"apiVersion": "v1", "kind": "Node", "name": where}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        admin.request("POST", f"{path}/binding", binding)
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    admin.request("PATCH", f"{path}/status", {"status": status})


def said(agent: Agent, client: str) -> dict[str, str]:
    return source_keys(request_line(agent, client, f"none.{SPACE}"))


def test_a_pod_of_this_node_is_named_by_what_a_person_made(cluster: ControlPlane, agent: Agent) -> None:
    admin = cluster.admin
    assert len(agent.events("node_without_pods")) == 1, "there is no Pod yet, and it is said once"
    admin.apply(deployment())
    admin.create(cron_job())
    # The controller catches up with a run that it missed, so nobody waits for the next minute.
    missed = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    admin.request(
        "PATCH",
        f"{path_of(cron_job())}/status",
        {"status": {"lastScheduleTime": missed.strftime("%Y-%m-%dT%H:%M:%SZ")}},
    )
    expected = {}
    for number, (kind, workload) in enumerate((("ReplicaSet", "deployment/web"), ("Job", "cronjob/backup"))):
        (made, *_) = until(lambda kind=kind: pods_of(admin, kind), seconds=60)  # type: ignore[misc]
        name, address = made["metadata"]["name"], f"127.0.0.{21 + number}"
        place(admin, name, "node-1", address)
        expected[address] = {
            "source": address,
            "source_pod": f"{SPACE}/{name}",
            "source_workload": f"{SPACE}/{workload}",
        }
    for address, keys in expected.items():
        until(lambda address=address, keys=keys: said(agent, address) == keys)  # type: ignore[misc]
    assert len(agent.events("node_without_pods")) == 1
    print(json.dumps(expected))


def test_pods_of_other_nodes_and_those_that_have_ended_are_not_asked_for(
    cluster: ControlPlane, agent: Agent
) -> None:
    admin = cluster.admin
    elsewhere = pod("elsewhere", SPACE)
    elsewhere["spec"]["nodeName"] = "node-2"
    for document, where, address in (
        (elsewhere, "node-2", "127.0.0.31"),
        (pod("here", SPACE), "node-1", "127.0.0.32"),
    ):
        admin.apply(document)
        place(admin, document["metadata"]["name"], where, address)
    here = {"source_pod": f"{SPACE}/here", "source_workload": f"{SPACE}/pod/here"}
    until(lambda: said(agent, "127.0.0.32") == {"source": "127.0.0.32", **here})
    assert said(agent, "127.0.0.31") == {"source": "127.0.0.31"}
    ended = {"status": {"phase": "Succeeded"}}
    admin.request("PATCH", f"/api/v1/namespaces/{SPACE}/pods/here/status", ended)
    until(lambda: said(agent, "127.0.0.32") == {"source": "127.0.0.32"})
    agent.stop()
    agent.start()
    until(agent.ready)
    listed = [line["objects"] for line in agent.events("source_listed") if line["resource"] == "Pod"]
    assert listed == [0, 0]


def test_a_host_name_that_no_node_can_have_selects_no_pod_and_nothing_else(cluster: ControlPlane) -> None:
    cluster.admin.apply(pod("here", SPACE))
    found = []
    for name in ("node-1", "node-2", "(none)", "my host", r"a\b", "a=b", "node-2,spec.nodeName=node-1"):
        (*_, pods) = watched_resources(name, "")
        listed = cluster.admin.get(f"{pods.path}?fieldSelector={quote(pods.field_selector)}")
        found.append([one["metadata"]["name"] for one in listed["items"]])
    assert found == [["here"], [], [], [], [], [], []]
