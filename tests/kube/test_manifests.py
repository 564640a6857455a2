"""The manifests on a real API server: accepted, applied, what they allow, and removed without a trace."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.kit.waiting import until
from hack.kube.client import Client, Refused, path_of
from hack.kube.control_plane import ControlPlane
from tests.kube.objects import namespace
from tests.manifests.objects import BASE, MANIFESTS, Object, only, parse, resources
from tests.manifests.tools import invoke, run, tool

pytestmark = pytest.mark.kube

OBJECTS = resources(BASE)
AGENT = only(OBJECTS, "ServiceAccount")["metadata"]
CHART = MANIFESTS / "charts" / "svcmesh"
ACCOUNTS = "/api/v1/namespaces/{}/serviceaccounts"
PASSING = {"events", "leases", "componentstatuses"}
"""What comes and goes in any cluster, by itself, or is no object but the answer to a probe."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    """A control plane of its own: what else is in it must be known."""
    with ControlPlane() as cluster:
        until(lambda: settled(cluster.admin), seconds=60)
        yield cluster


def settled(admin: Client) -> bool:
    """Whether controllers have made what every namespace gets, and nothing has changed for a while."""
    homes = [one["metadata"]["name"] for one in admin.get("/api/v1/namespaces")["items"]]
    made = [f"/api/v1/namespaces/{home}/configmaps/kube-root-ca.crt" for home in homes]
    made += [f"{ACCOUNTS.format(home)}/default" for home in homes]
    return all(code(admin, "GET", path) == 200 for path in made) and export(admin) == export(admin)


@pytest.fixture
def installed(cluster: ControlPlane) -> Iterator[ControlPlane]:
    before = export(cluster.admin)
    for one in OBJECTS:
        cluster.admin.apply(one)
    yield cluster
    remove(cluster.admin)
    until(lambda: export(cluster.admin) == before, seconds=60)


def remove(admin: Client) -> None:
    """Delete as `kubectl delete -k` does; what is gone already is."""
    for one in reversed(OBJECTS):
        assert code(admin, "DELETE", path_of(one)) in (200, 202, 404)


def export(admin: Client) -> dict[str, Any]:
    """Return every object of every listable kind, without what the server counts."""
    roots = [
        "/api/v1",
        *(f"/apis/{g['preferredVersion']['groupVersion']}" for g in admin.get("/apis")["groups"]),
    ]
    found: dict[str, Any] = {}
    for root in roots:
        for resource in admin.get(root)["resources"]:
            if "list" in resource["verbs"] and resource["name"] not in PASSING:
                path = f"{root}/{resource['name']}"
                found[path] = [essence(one) for one in admin.get(path)["items"]]
    return found


def essence(one: Object) -> Object:
    metadata = {k: v for k, v in one["metadata"].items() if k not in ("managedFields", "resourceVersion")}
    return {**{k: v for k, v in one.items() if k != "status"}, "metadata": metadata}


def code(client: Client, method: str, path: str, body: Object | None = None) -> int:
    return client.raw(method, path, body)[0]


def test_the_server_accepts_what_both_render_and_changes_nothing_in_a_dry_run(cluster: ControlPlane) -> None:
    objects = parse(run(tool("kustomize"), "build", BASE))
    chart = run(tool("helm"), "template", "svcmesh", CHART, "--namespace", "svcmesh")
    home = only(objects, "Namespace")
    assert sorted(one["kind"] for one in (*parse(chart), home)) == sorted(one["kind"] for one in objects)
    before = export(cluster.admin)
    for one in (*objects, *parse(chart)):
        if "namespace" not in one["metadata"]:
            cluster.admin.apply(one, dry_run=True)
    assert export(cluster.admin) == before
    cluster.admin.apply(home)
    for one in (*objects, *parse(chart)):
        cluster.admin.apply(one, dry_run=True)
    cluster.admin.delete(home)
    until(lambda: export(cluster.admin) == before, seconds=60)


def test_what_was_applied_is_the_same_when_applied_again(installed: ControlPlane) -> None:
    first, second = ([installed.admin.apply(one) for one in OBJECTS] for _ in range(2))
    versions = [[one["metadata"]["resourceVersion"] for one in applied] for applied in (first, second)]
    assert versions[0] == versions[1]


def test_a_pod_is_admitted_here_and_nowhere_that_keeps_to_the_baseline(installed: ControlPlane) -> None:
    template = only(OBJECTS, "DaemonSet")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {"name": "agent", "labels": template["metadata"]["labels"]}
    pod["spec"] = {**template["spec"]}
    home = f"/api/v1/namespaces/{AGENT['namespace']}/pods?dryRun=All"
    installed.admin.request("POST", home, pod)
    strict = namespace("strict")
    strict["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "baseline"}
    installed.admin.apply(strict)
    try:
        pod["spec"]["serviceAccountName"] = "default"
        until(lambda: code(installed.admin, "GET", f"{ACCOUNTS.format('strict')}/default") == 200)
        with pytest.raises(Refused, match="violates PodSecurity"):
            installed.admin.request("POST", "/api/v1/namespaces/strict/pods?dryRun=All", pod)
    finally:
        installed.admin.delete(strict)


EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
EVENT: Object = {
    "apiVersion": "events.k8s.io/v1",
    "kind": "Event",
    "metadata": {"name": "kubernetes.1", "namespace": "default"},
    "eventTime": "2026-01-01T00:00:00.000000Z",
    "reportingController": "svc.mesh/agent",
    "reportingInstance": "n1",
    "action": "Checked",
    "reason": "BadAnnotation",
    "type": "Warning",
    "note": "said",
    "regarding": {"kind": "Service", "namespace": "default", "name": "kubernetes"},
}
REFUSED = (
    ("GET", "/api/v1/secrets"),
    ("GET", "/api/v1/configmaps"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/api/v1/namespaces/default"),
    ("PATCH", "/api/v1/namespaces/default"),
    ("GET", "/api/v1/namespaces/default/services/kubernetes"),
    ("DELETE", "/api/v1/namespaces/default/services/kubernetes"),
    ("PATCH", "/api/v1/namespaces/default/services/kubernetes"),
    ("POST", "/api/v1/namespaces/default/services"),
    ("POST", "/api/v1/namespaces/default/pods"),
    ("POST", "/api/v1/namespaces/default/pods/any/exec?command=sh"),
    ("GET", "/api/v1/namespaces/default/pods/any/proxy/"),
    ("GET", "/api/v1/namespaces/default/pods/any/log"),
    ("POST", "/api/v1/namespaces/default/pods/any/portforward"),
    ("POST", "/apis/authentication.k8s.io/v1/tokenreviews"),
    ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
    ("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"),
    ("GET", EVENTS),
    ("DELETE", f"{EVENTS}/kubernetes.1"),
    ("PATCH", f"{EVENTS}/kubernetes.1"),
    ("POST", "/api/v1/namespaces/default/serviceaccounts/default/token"),
    ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
    ("PATCH", "/apis/rbac.authorization.k8s.io/v1/clusterroles/svcmesh-agent"),
    ("GET", "/apis/apps/v1/namespaces/svcmesh/daemonsets"),
)


def test_the_agent_s_account_may_do_what_the_role_says_and_nothing_else(installed: ControlPlane) -> None:
    agent = installed.client(installed.service_account_token(AGENT["namespace"], AGENT["name"]))
    core = [f"/api/v1/{plural}" for plural in ("services", "pods", "namespaces")]
    allowed = (*core, "/apis/discovery.k8s.io/v1/endpointslices")
    assert [code(agent, "GET", path) for path in allowed] == [200] * len(allowed)
    assert code(agent, "POST", EVENTS, EVENT) == 201
    installed.admin.request("DELETE", f"{EVENTS}/kubernetes.1")
    refused = {}
    for method, path in REFUSED:
        body: Object | None = None if method == "GET" else {}
        refused[method, path] = agent.raw(method, path, body)[0]
    assert {key: found for key, found in refused.items() if found != 403} == {}


def test_removing_it_leaves_the_cluster_as_it_was(cluster: ControlPlane) -> None:
    before = export(cluster.admin)
    for one in OBJECTS:
        cluster.admin.apply(one)
    assert export(cluster.admin) != before
    remove(cluster.admin)
    until(lambda: export(cluster.admin) == before, seconds=60)


DAEMONSET = "/apis/apps/v1/namespaces/{}/daemonsets/svcmesh-agent"
TYPED = ("install", "svcmesh", CHART, "-n", "svcmesh", "--create-namespace")
"""What everybody types."""


@pytest.fixture
def helm(cluster: ControlPlane) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Call Helm; in the end the cluster is as it was before."""
    before = export(cluster.admin)

    def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return invoke(tool("helm"), "--kubeconfig", cluster.kubeconfig, *words)

    yield call
    until(lambda: export(cluster.admin) == before, seconds=60)


Helm = Callable[..., subprocess.CompletedProcess[str]]


def said_by(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def labelled(cluster: ControlPlane) -> Iterator[Callable[[str, str], None]]:
    """Make namespaces with a label of Pod Security; they are deleted in the end."""
    made = []

    def make(name: str, level: str) -> None:
        home = namespace(name)
        home["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": level}
        cluster.admin.apply(home)
        made.append(home)

    yield make
    for home in made:
        cluster.admin.delete(home)


def test_what_everybody_types_installs_and_it_is_upgraded_and_uninstalled(
    helm: Helm, cluster: ControlPlane
) -> None:
    said = said_by(helm(*TYPED, "--set", "agent.zone=mesh.test"))
    assert "http://NAME.NAMESPACE.mesh.test/" in said
    assert "kubectl label namespace svcmesh pod-security.kubernetes.io/enforce=privileged" in said
    home, name = "svcmesh", "svcmesh-agent"
    agent = cluster.client(cluster.service_account_token(home, name))
    assert code(agent, "GET", "/api/v1/services") == 200, "the role is bound to the account of this namespace"
    said_by(helm("upgrade", "svcmesh", CHART, "-n", home, "--set", "agent.workers=7"))
    (container,) = cluster.admin.get(DAEMONSET.format(home))["spec"]["template"]["spec"]["containers"]
    assert {"name": "SVCMESH_WORKERS", "value": "7"} in container["env"]
    said_by(helm("uninstall", "svcmesh", "-n", home))
    cluster.admin.delete(namespace(home))


def test_helm_installs_into_a_namespace_that_is_labelled(
    helm: Helm, labelled: Callable[[str, str], None], cluster: ControlPlane
) -> None:
    labelled("mesh-system", "privileged")
    said = said_by(helm("install", "mesh", CHART, "-n", "mesh-system"))
    assert "kubectl label" not in said
    assert (
        cluster.admin.get(DAEMONSET.format("mesh-system"))["metadata"]["labels"].items()
        >= {
            "app.kubernetes.io/instance": "mesh",
            "app.kubernetes.io/managed-by": "Helm",
        }.items()
    )
    said_by(helm("uninstall", "mesh", "-n", "mesh-system"))


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_a_namespace_that_forbids_the_pods_is_refused_before_anything_is_made(
    helm: Helm, labelled: Callable[[str, str], None], cluster: ControlPlane, level: str
) -> None:
    labelled("svcmesh", level)
    until(lambda: settled(cluster.admin), seconds=60)
    before = export(cluster.admin)
    done = helm(*TYPED)
    assert done.returncode != 0
    assert f"namespace svcmesh enforces the Pod Security level {level}" in done.stderr
    assert (
        "Type: kubectl label namespace svcmesh pod-security.kubernetes.io/enforce=privileged --overwrite"
        in done.stderr
    )
    assert export(cluster.admin) == before


def test_a_second_installation_is_refused_before_anything_is_made(helm: Helm, cluster: ControlPlane) -> None:
    said_by(helm(*TYPED))
    until(lambda: settled(cluster.admin), seconds=60)
    before = export(cluster.admin)
    done = helm("install", "second", CHART, "-n", "elsewhere", "--create-namespace")
    assert done.returncode != 0
    assert "as release svcmesh in namespace svcmesh, and a node can have one agent only" in done.stderr
    assert "helm upgrade svcmesh CHART --namespace svcmesh" in done.stderr
    assert export(cluster.admin) == before
    said_by(helm("uninstall", "svcmesh", "-n", "svcmesh"))
    cluster.admin.delete(namespace("svcmesh"))


def test_helm_does_not_take_over_what_kubectl_has_made(installed: ControlPlane, helm: Helm) -> None:
    until(lambda: settled(installed.admin), seconds=60)
    before = export(installed.admin)
    done = helm(*TYPED)
    assert done.returncode != 0
    assert "installed without Helm. Take that away first: kubectl delete -k manifests/base" in done.stderr
    assert export(installed.admin) == before


def test_values_that_contradict_each_other_make_nothing(helm: Helm, cluster: ControlPlane) -> None:
    before = export(cluster.admin)
    done = helm(*TYPED, "--set", "agent.drainTimeout=2m")
    assert "Add --set terminationGracePeriodSeconds=130" in done.stderr
    done = helm("install", "svcmesh", CHART)
    assert "add --namespace svcmesh --create-namespace" in done.stderr
    assert export(cluster.admin) == before
