"""The agent as its own ServiceAccount, with what its manifests give it: enough for everything, no more."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.kit.waiting import until
from hack.kube.client import Client, Refused
from hack.kube.control_plane import ControlPlane
from tests.agent.harness import load
from tests.kube.mesh import failures, running_mesh
from tests.kube.objects import namespace, node, pod, service

pytestmark = pytest.mark.kube

BASE = Path(__file__).parents[2] / "manifests" / "base"
ACCESS = ("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding")
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")

Rule = tuple[str, str, str]
"""API group, resource, verb."""

NEEDED: set[Rule] = {
    ("", "services", "list"),
    ("", "services", "watch"),
    ("discovery.k8s.io", "endpointslices", "list"),
    ("discovery.k8s.io", "endpointslices", "watch"),
    ("", "namespaces", "list"),
    ("", "namespaces", "watch"),
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("events.k8s.io", "events", "create"),
}
OF_EVERYBODY: set[Rule] = {
    ("authorization.k8s.io", "selfsubjectaccessreviews", "create"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "create"),
    ("authentication.k8s.io", "selfsubjectreviews", "create"),
}
"""What Kubernetes grants to every identity (ClusterRole system:basic-user)."""


def manifests() -> Iterator[dict[str, Any]]:
    """Return the objects that give the agent its identity and rights, as they are installed."""
    found = [
        document for path in sorted(BASE.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())
    ]
    for kind in ACCESS:
        yield from (document for document in found if document and document.get("kind") == kind)


def install_access(cluster: ControlPlane) -> str:
    """Apply them, and return a token of the agent's ServiceAccount."""
    for document in manifests():
        cluster.admin.apply(document)
    return cluster.service_account_token("svcmesh", "svcmesh-agent")


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[ControlPlane]:
    """One for this module: installed rights would be in the way of the tests of installing."""
    with ControlPlane(controllers=()) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def as_agent(own_cluster: ControlPlane) -> Client:
    token = install_access(own_cluster)
    admin = own_cluster.admin
    for document in (namespace("shop"), node("node-1"), service("web")):
        admin.apply(document)
    return own_cluster.client(token)


def resources(admin: Client) -> Iterator[tuple[str, str]]:
    """Return group and name of every resource and subresource that the API server has."""
    roots = [("", "/api/v1")]
    for group in admin.get("/apis")["groups"]:
        roots += [(group["name"], f"/apis/{version['groupVersion']}") for version in group["versions"]]
    for group_name, root in roots:
        for resource in admin.get(root)["resources"]:
            yield group_name, resource["name"]


def may(client: Client, rule: Rule) -> bool:
    group, resource, verb = rule
    name, _, subresource = resource.partition("/")
    attributes = {"group": group, "resource": name, "subresource": subresource, "verb": verb}
    review = client.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        },
    )
    return bool(review["status"]["allowed"])


@pytest.mark.timeout(300)
def test_of_all_there_is_it_may_do_what_it_needs_and_nothing_else(
    own_cluster: ControlPlane, as_agent: Client
) -> None:
    everything = {(*resource, verb) for resource, verb in product(set(resources(own_cluster.admin)), VERBS)}
    # Verbs of their own kind, which no list of resources names.
    everything |= {
        ("", "users", "impersonate"),
        ("", "groups", "impersonate"),
        ("", "serviceaccounts", "impersonate"),
        ("rbac.authorization.k8s.io", "clusterroles", "bind"),
        ("rbac.authorization.k8s.io", "clusterroles", "escalate"),
        ("certificates.k8s.io", "signers", "sign"),
        ("certificates.k8s.io", "signers", "approve"),
        ("*", "*", "*"),
    }
    assert len(everything) > 500
    assert {rule for rule in everything if may(as_agent, rule)} == NEEDED | OF_EVERYBODY


REFUSED = {
    "read Secrets": ("GET", "/api/v1/secrets"),
    "read its own namespace's Secrets": ("GET", "/api/v1/namespaces/svcmesh/secrets"),
    "read ConfigMaps": ("GET", "/api/v1/configmaps"),
    "read one Service": ("GET", "/api/v1/namespaces/shop/services/web"),
    "change a Service": ("PATCH", "/api/v1/namespaces/shop/services/web"),
    "delete a Service": ("DELETE", "/api/v1/namespaces/shop/services/web"),
    "make a Pod": ("POST", "/api/v1/namespaces/shop/pods"),
    "run a command in a Pod": ("POST", "/api/v1/namespaces/shop/pods/web/exec?command=id"),
    "read a Pod's log": ("GET", "/api/v1/namespaces/shop/pods/web/log"),
    "proxy to a Pod": ("GET", "/api/v1/namespaces/shop/pods/web/proxy/"),
    "read Nodes": ("GET", "/api/v1/nodes"),
    "change a Node": ("PATCH", "/api/v1/nodes/node-1"),
    "proxy to a kubelet": ("GET", "/api/v1/nodes/node-1/proxy/pods"),
    "make a token": ("POST", "/api/v1/namespaces/kube-system/serviceaccounts/default/token"),
    "give itself rights": ("PATCH", "/apis/rbac.authorization.k8s.io/v1/clusterroles/svcmesh-agent"),
    "read roles": ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
    "change slices": ("POST", "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"),
    "read Events": ("GET", "/apis/events.k8s.io/v1/events"),
    "delete Events": ("DELETE", "/apis/events.k8s.io/v1/namespaces/shop/events"),
    "change DaemonSets": ("POST", "/apis/apps/v1/namespaces/svcmesh/daemonsets"),
    "read metrics of the server": ("GET", "/metrics"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused(as_agent: Client, what: str) -> None:
    method, path = REFUSED[what]
    body: dict[str, Any] | None = None if method in ("GET", "DELETE") else {}
    with pytest.raises(Refused) as refused:
        as_agent.request(method, path, body)
    assert refused.value.code == 403


def test_every_verb_of_the_role_has_its_reason() -> None:
    path = BASE / "clusterrole.yaml"
    verbs = [
        line
        for line in path.read_text().splitlines()
        if line.strip().startswith("- ") and line.strip(" -").split()[0] in VERBS
    ]
    assert len(verbs) == len(NEEDED)
    assert [line for line in verbs if len(line.partition("#")[2].split()) < 3] == []


def test_the_agent_does_all_it_does_with_its_own_token(
    cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text(install_access(cluster))
    with running_mesh(cluster, tmp_path, monkeypatch, {"tokenFile": str(token)}) as mesh:
        with load(mesh.agent, connections=1) as outcome:
            # The ServiceAccount of a Pod has to be there before it, as nothing makes it here.
            account = {"name": "default", "namespace": "shop"}
            mesh.admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
            mesh.admin.apply(pod("web-a"))
            name = mesh.add()
            until(lambda: mesh.serves(name))
            mesh.remove(name)
            until(lambda: not mesh.serves(name))
            mesh.admin.apply(service("web", port=18080, **{"svc.mesh/retry-attempts": "many"}))
            until(lambda: mesh.agent.events("problem_found"))
            shop = namespace("shop")
            shop["metadata"]["annotations"] = {"svc.mesh/default.timeout": "9s"}
            mesh.admin.apply(shop)
            until(lambda: "svc.mesh/default.timeout of Namespace shop" in mesh.agent.admin("/plan")[1])
            mesh.gate.cut()
            name = mesh.add()
            until(lambda: mesh.serves(name))
        assert outcome["ok"] > 0
        assert outcome["failed"] == 0
        listed = {line["resource"] for line in mesh.agent.events("source_listed")}
        assert listed == {"Service", "EndpointSlice", "Namespace", "Pod"}
        assert failures(mesh.agent, "forbidden") + failures(mesh.agent, "unauthorized") == []
        assert "forbidden" not in mesh.agent.log.read_text().lower()
