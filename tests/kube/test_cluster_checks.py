"""`meshctl check --cluster` at a real API server: before an install, after it, and with few rights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hack.kit.ports import free_port
from hack.kit.waiting import until
from hack.kube.client import path_of
from hack.kube.control_plane import ControlPlane
from nodeagent.meshctl.clustercheck.target import SELECTOR
from nodeagent.meshctl.main import main
from tests.agent.harness import Agent, endpoints
from tests.agent.harness import service as service_yaml
from tests.kube.link import private_link
from tests.kube.objects import namespace, node, person, pod, run_pod, service

pytestmark = pytest.mark.kube

SPACE = "mesh-of-mine"
LABELS = dict(term.split("=") for term in SELECTOR.split(","))


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """One of their own: what other tests install would be found."""
    with ControlPlane() as cluster:
        yield cluster


def check(*words: str) -> tuple[int, dict[str, str], dict[str, str]]:
    """Return the exit code, and by check the result and the message."""
    done = CliRunner().invoke(main, ["check", "--cluster", *words, "-o", "json"])
    assert done.stdout, done.stderr
    checks: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
    outcomes = {one["id"]: one["result"] for one in checks}
    return done.exit_code, outcomes, {one["id"]: one["message"] for one in checks}


def put_node(plane: ControlPlane, name: str) -> None:
    made = node(name)
    plane.admin.apply(made)
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "192.0.2.7"}],
        "nodeInfo": dict.fromkeys(
            ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "kubeProxyVersion"), ""
        )
        | {"containerRuntimeVersion": "", "operatingSystem": "linux", "architecture": "arm64"}
        | {"kubeletVersion": "v1.30.1"},
    }
    plane.admin.request("PATCH", f"{path_of(made)}/status", {"status": status})


def test_before_an_install(plane: ControlPlane) -> None:
    put_node(plane, "node-1")
    where = ("--pre", "--kubeconfig", plane.kubeconfig, "-n", "not-there-yet")
    code, outcomes, messages = check(*where)
    assert code == 0, messages
    for name in ("api-version", "node-versions", "node-platforms", "nodes-ready", "rights-create"):
        assert outcomes[name] == "ok", messages[name]
    assert messages["range-services"] == "10.96.0.0/12", "of the ServiceCIDR"
    assert messages["range-nodes"] == "192.0.2.7"
    assert outcomes["rights-grant"] == outcomes["not-installed"] == outcomes["pod-security"] == "ok"
    assert outcomes["dns-layout"] == "warning", "there is no CoreDNS here"
    assert outcomes["node-ports"] == "not-checked"
    assert check(*where, "--strict")[0] == 1
    code, outcomes, _ = check(*where, "--mesh-range", "10.0.0.0/8")
    assert (code, outcomes["range-services"]) == (1, "failed")


@pytest.mark.parametrize(
    ("level", "outcome"),
    [("privileged", "ok"), ("baseline", "failed"), ("restricted", "failed"), ("", "ok")],
)
def test_pod_security(plane: ControlPlane, level: str, outcome: str) -> None:
    space = namespace(f"level-{level or 'none'}")
    space["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": level} if level else {}
    plane.admin.apply(space)
    name = space["metadata"]["name"]
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    until(lambda: plane.admin.raw("GET", account)[0] == 200)
    _, outcomes, messages = check("--pre", "--kubeconfig", plane.kubeconfig, "-n", name)
    assert outcomes["pod-security"] == outcome, messages["pod-security"]
    if outcome == "failed":
        assert "violates PodSecurity" in messages["pod-security"]
    else:
        assert "on trial" in messages["pod-security"]
    pods = plane.admin.get(f"/api/v1/namespaces/{name}/pods")["items"]
    assert pods == [], "nothing was made"


def test_somebody_with_no_rights(plane: ControlPlane) -> None:
    plane.admin.apply(namespace("people"))
    nobody = person(plane, "people", "nobody", {"people": []})
    code, outcomes, messages = check("--pre", "--kubeconfig", nobody)
    assert code == 1
    failed = {name for name, outcome in outcomes.items() if outcome == "failed"}
    assert failed == {"rights-create", "rights-grant"}
    assert "create clusterroles.rbac.authorization.k8s.io" in messages["rights-create"]
    assert {outcomes[name] for name in ("nodes-ready", "not-installed", "range-services")} == {"not-checked"}
    assert "forbidden" in messages["nodes-ready"]
    code, outcomes, _ = check("--installed", "--kubeconfig", nobody)
    assert code == 0, "nobody knows"
    assert outcomes["agents-ready"] == "not-checked"


def test_after_an_install(plane: ControlPlane, tmp_path: Path) -> None:
    admin, port = plane.admin, free_port()
    admin.apply(namespace(SPACE))
    admin.apply(namespace("default-shop"))
    admin.apply(service("web", "default-shop"))
    put_node(plane, "node-1")
    until(lambda: admin.raw("GET", f"/api/v1/namespaces/{SPACE}/serviceaccounts/default")[0] == 200)
    template = {
        "metadata": {"labels": LABELS},
        "spec": {"containers": [{"name": "agent", "image": "none"}]},
    }
    daemonset = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "svcmesh-agent", "namespace": SPACE, "labels": LABELS},
        "spec": {"selector": {"matchLabels": LABELS}, "template": template},
    }
    admin.apply(daemonset)
    numbers = {"desiredNumberScheduled": 1, "currentNumberScheduled": 1, "numberReady": 1}
    status = {"status": {**numbers, "numberMisscheduled": 0}}
    admin.request("PATCH", f"{path_of(daemonset)}/status", status)
    where = ("--installed", "--kubeconfig", plane.kubeconfig)
    folder = tmp_path / "cluster"
    folder.mkdir()
    yaml = service_yaml("web", {"svc.mesh/enabled": "true"}) + endpoints("web", [free_port()])
    (folder / "web.yaml").write_text(yaml.replace("namespace: shop", "namespace: default-shop"))
    with private_link() as link:
        running = pod("agent-1", SPACE, **LABELS)
        listen = {"name": "SVCMESH_ADMIN_LISTEN", "value": f"0.0.0.0:{port}"}
        running["spec"]["containers"][0]["env"] = [listen]
        run_pod(admin, running, link.near)
        code, outcomes, messages = check(*where)
        assert (code, outcomes["agents-everywhere"], outcomes["agents-ready"]) == (1, "ok", "failed")
        assert "connection refused" in messages["agents-ready"]
        agent = Agent(folder, "--admin-listen", f"0.0.0.0:{port}")
        agent.admin_port = port
        try:
            until(agent.ready)
            code, outcomes, messages = check(*where)
        finally:
            agent.stop()
    bad = {name: outcome for name, outcome in outcomes.items() if outcome not in ("ok", "not-checked")}
    assert (code, bad) == (0, {}), messages
    # No kubelet forwards a port here; on a real node it is checked (tests/node).
    assert outcomes["agents-resolve"] == "not-checked"
    assert "port forwarding" in messages["agents-resolve"]
    assert messages["agents-plan"] == "Services in the mesh: 1"
    assert outcomes["agents-capture"] == "ok"
    code, outcomes, messages = check("--pre", "--kubeconfig", plane.kubeconfig)
    assert (code, outcomes["not-installed"]) == (1, "failed")
    assert f"DaemonSet {SPACE}/svcmesh-agent" in messages["not-installed"]
