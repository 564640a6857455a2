"""What runs on the node beside the mesh: CoreDNS as kubeadm sets it up, two whoami pods, two clients."""

from __future__ import annotations

from inspect import getsource
from typing import Any

from hack.kube.node import ADDRESS, CLUSTER_DNS
from hack.kube.one_node import ROOT
from hack.release.versions import read_version
from hack.samples import whoami
from tests.dns_install import samples
from tests.e2e import load

Document = dict[str, Any]

AGENT_IMAGE = f"svcmesh-agent:{read_version(ROOT)}"
"""It has Python and aiohttp, which is all that the samples need."""
COREDNS_IMAGE = "localhost/coredns:1"
PYTHON = "/opt/svcmesh/bin/python"
BY_MESH_DNS: Document = {
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["240.0.0.53"], "searches": ["svc.mesh"]},
}
"""As docs/install.md has it for pods that do without the cluster's DNS."""


def corefile() -> str:
    """Return kubeadm's, with upstream servers that nobody asks here, and taking up changes at once."""
    text = samples.read("kubeadm").replace("/etc/resolv.conf", f"{ADDRESS}:53")
    return text.replace("    reload\n", "    reload 2s 1s\n")


def coredns() -> list[Document]:
    """Return the objects of the cluster's DNS."""
    system: Document = {"namespace": "kube-system"}
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"}
    account = {"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}
    mounted = [{"name": "config", "mountPath": "/etc/coredns"}]
    container = {
        "name": "coredns",
        "image": COREDNS_IMAGE,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "volumeMounts": mounted,
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
    }
    pod = {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    ports = [{"name": f"dns-{kind.lower()}", "port": 53, "protocol": kind} for kind in ("UDP", "TCP")]
    labels = {"k8s-app": "kube-dns"}
    return [
        _object("v1", "ServiceAccount", {"name": "coredns", **system}),
        _object("rbac.authorization.k8s.io/v1", "ClusterRole", {"name": "system:coredns"}, rules=rules),
        _object(
            *("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", {"name": "system:coredns"}),
            roleRef=role,
            subjects=[account],
        ),
        _object("v1", "ConfigMap", {"name": "coredns", **system}, data={"Corefile": corefile()}),
        _deployment("coredns", labels, pod, replicas=1, **system),
        _object(
            *("v1", "Service", {"name": "kube-dns", **system}),
            spec={"clusterIP": CLUSTER_DNS, "selector": labels, "ports": ports},
        ),
    ]


def shop() -> list[Document]:
    """Return two whoami pods with their Service, and a client for each way to find mesh names."""
    scripts = {f"{module.__name__.rpartition('.')[2]}.py": getsource(module) for module in (whoami, load)}
    name = {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    command = [PYTHON, "/scripts/whoami.py", "--listen", "0.0.0.0:8080", "--name", "$(NAME)"]
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    labels = {"app": "whoami"}
    spec = {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return [
        _object("v1", "ConfigMap", {"name": "scripts"}, data=scripts),
        _deployment("whoami", labels, _pod(command, env=[name], readinessProbe=probe), replicas=2),
        _object("v1", "Service", {"name": "whoami", "annotations": {"svc.mesh/enabled": "true"}}, spec=spec),
        _object("v1", "Pod", {"name": "client"}, spec={**_pod(["sleep", "infinity"]), **BY_MESH_DNS}),
        _object("v1", "Pod", {"name": "ordinary"}, spec=_pod(["sleep", "infinity"])),
    ]


def _pod(command: list[str], **more: Any) -> Document:
    mounted = [{"name": "scripts", "mountPath": "/scripts"}]
    container = {"name": "main", "image": AGENT_IMAGE, "command": command, "volumeMounts": mounted, **more}
    return {
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "scripts", "configMap": {"name": "scripts"}}],
    }


def _deployment(name: str, labels: Document, pod: Document, *, replicas: int, **metadata: str) -> Document:
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return _object("apps/v1", "Deployment", {"name": name, **metadata}, spec=spec)


def _object(version: str, kind: str, metadata: Document, **fields: Any) -> Document:
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}
