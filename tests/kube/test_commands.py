"""`meshctl` at a real API server, with no more rights than its pages name."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from hack.kit.ports import free_port
from hack.kit.waiting import until
from hack.kube.control_plane import ControlPlane
from nodeagent.meshctl.main import main
from tests.agent.harness import Agent, endpoints
from tests.agent.harness import service as service_yaml
from tests.kube.link import private_link
from tests.kube.objects import definition, endpoint_slice, namespace, node, person, pod, run_pod, service
from tests.manifests.objects import BASE

pytestmark = pytest.mark.kube

AGENTS = "meshctl-agents"
READER = [
    {"apiGroups": [""], "resources": ["services"], "verbs": ["list"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]},
]
VIEWER = yaml.safe_load((BASE / "viewer.yaml").read_text())["rules"]
"""What the Role for people holds."""
WATCHER = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]},
]


def meshctl(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_check_and_migrate(shared_cluster: ControlPlane) -> None:
    space = "meshctl-check"
    shared_cluster.admin.apply(namespace(space))
    old = {"mesh.traefik.io/retry-attempts": "3", "svc.mesh/protocol": "http"}
    shared_cluster.admin.apply(service("cart", space, 80, **old))
    shared_cluster.admin.apply(service("till", space, 80, **{"svc.mesh/retry-attempts": "many"}))
    for name in ("cart", "till"):
        shared_cluster.admin.apply(endpoint_slice(name, space))
    reader = person(shared_cluster, space, "reader", {space: READER})
    where = ("--cluster", "--kubeconfig", reader, "--namespace", space)
    code, output, _ = meshctl("check", *where)
    assert code == 1
    assert f"Service {space}/till: svc.mesh/retry-attempts: many" in output
    assert output.splitlines()[-1] == "2 Services checked, 2 in the mesh, 1 problem, 1 note"
    assert f"info: Namespace {space}" in output  # the reader may not list namespaces
    code, output, _ = meshctl("migrate", *where)
    assert code == 0
    words = shlex.split(output)
    assert words[-5:] == ["-n", space, "cart", "svc.mesh/enabled=true", "svc.mesh/retry-attempts=2"]
    code, _, errors = meshctl("check", *where[:-2])
    assert code == 2
    assert "services is forbidden" in " ".join(errors.split())


def test_what_another_mesh_heeds(shared_cluster: ControlPlane) -> None:
    """Two versions of a kind, a group with only one kind installed, and a user who may not list them."""
    admin, space, group = shared_cluster.admin, "meshctl-smi", "access.smi-spec.io"
    admin.apply(namespace(space))
    for kind in (
        definition(group, "TrafficTarget", "v1alpha1", "v1alpha2"),
        definition("specs.smi-spec.io", "TCPRoute", "v1alpha3"),
    ):
        admin.apply(kind)
    target = {
        "apiVersion": f"{group}/v1alpha2",
        "kind": "TrafficTarget",
        "metadata": {"name": "cart", "namespace": space},
        "spec": {
            "destination": {"kind": "ServiceAccount", "name": "cart"},
            "sources": [{"kind": "ServiceAccount", "name": "web", "namespace": "front"}],
        },
    }
    until(lambda: admin.raw("GET", f"/apis/{group}/v1alpha2/traffictargets")[0] == 200)
    until(lambda: admin.raw("GET", "/apis/specs.smi-spec.io/v1alpha3/tcproutes")[0] == 200)
    admin.apply(target)
    rights = [
        {"apiGroups": [group], "resources": ["traffictargets"], "verbs": ["list"]},
        {"apiGroups": ["specs.smi-spec.io"], "resources": ["tcproutes"], "verbs": ["list"]},
    ]
    reader = person(shared_cluster, space, "reader", {space: [*READER, *rights]})
    check = ("check", "--cluster", "--compat", "traefik-mesh", "--namespace", space, "--kubeconfig")
    code, output, _ = meshctl(*check, reader)
    assert code == 1
    assert f"error: TrafficTarget {space}/cart: spec.sources: front/web\n" in output
    assert output.splitlines()[-1] == "0 Services checked, 0 in the mesh, 1 problem, 1 note"
    migrate = ("migrate", "--accept-open", "--cluster", "--namespace", space, "--kubeconfig")
    assert meshctl(*migrate, reader)[0] == 0
    stranger = person(shared_cluster, space, "stranger", {space: READER})
    code, output, _ = meshctl(*check, stranger)
    assert code == 1
    assert f"error: TrafficTarget {space}/*\n    wrong:  could not be looked at: status 403" in output
    assert meshctl(*migrate, stranger)[0] == 1


@pytest.fixture
def address() -> Iterator[str]:
    """An address of this namespace that the API server connects to: it refuses 127.0.0.0/8."""
    with private_link() as link:
        yield link.near


def test_status(shared_cluster: ControlPlane, tmp_path: Path, address: str) -> None:
    admin, port = shared_cluster.admin, free_port()
    admin.apply(namespace(AGENTS))
    admin.apply(node("node-1"))
    until(lambda: admin.raw("GET", f"/api/v1/namespaces/{AGENTS}/serviceaccounts/default")[0] == 200)
    watcher = person(shared_cluster, AGENTS, "watcher", {AGENTS: WATCHER})
    arguments = ("status", "--kubeconfig", watcher, "-n", AGENTS, "--port", str(port))
    assert meshctl(*arguments)[0] == 1

    run_pod(admin, pod("agent-1", AGENTS, **{"app.kubernetes.io/name": "svcmesh"}), address)
    code, output, _ = meshctl(*arguments)
    assert code == 1
    assert "node-1 (agent-1): unreachable: " in output
    needed = "status 403; it needs `get` and `create` on pods/portforward"
    assert needed in output
    assert "connection refused" in output  # by the pod proxy
    viewer = person(shared_cluster, AGENTS, "viewer", {AGENTS: VIEWER})
    code, output, _ = meshctl(*("status", "--kubeconfig", viewer, "-n", AGENTS, "--port", str(port)))
    assert code == 1
    assert f"port forwarding to {AGENTS}/agent-1: " in output
    assert needed not in output, "they may; there is no kubelet here"
    assert "by the pod proxy: pods" in output
    assert "is forbidden" in output

    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "web.yaml").write_text(
        service_yaml("web", {"svc.mesh/enabled": "true", "svc.mesh/retry-attempts": "many"})
        + endpoints("web", [free_port()])
    )
    agent = Agent(folder, "--admin-listen", f"0.0.0.0:{port}")
    agent.admin_port = port
    try:
        until(agent.ready)
        code, output, _ = meshctl(*arguments, "--format", "json")
        (found,) = json.loads(output)["agents"]
        assert code == 0
        assert (found["node"], found["pod"], found["state"]) == ("node-1", "agent-1", "ready")
        assert (found["services"], found["problems"], found["workers"]) == (1, 1, 1)
    finally:
        agent.stop()
