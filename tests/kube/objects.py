"""Objects for a real API server, with all that it insists on."""

from __future__ import annotations

from collections.abc import Mapping

from hack.kit import manifests
from hack.kit.manifests import ENABLED, Document, Endpoint, Port
from hack.kube.client import Client, path_of
from hack.kube.control_plane import ControlPlane


def namespace(name: str) -> Document:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def service(name: str, namespace: str = "shop", port: int = 80, **annotations: str) -> Document:
    """A Service without a selector: its slices are written by hand."""
    ports = [Port(port, 8080, "http")]
    return manifests.service(name, ports, namespace=namespace, annotations={**ENABLED, **annotations})


def endpoint_slice(
    service: str, namespace: str = "shop", address: str = "10.1.0.1", port: int = 8080, name: str = ""
) -> Document:
    ports = [Port(port, port, "http")]
    return manifests.endpoint_slice(service, ports, [Endpoint(address)], namespace=namespace, name=name)


def node(name: str) -> Document:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def pod(name: str, namespace: str = "shop", **labels: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "none"}]},
    }


def person(cluster: ControlPlane, space: str, name: str, rights: Mapping[str, list[Document]]) -> str:
    """Return the kubeconfig of a user who has these rights, by namespace, and no others."""
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": space}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": space}}
    cluster.admin.apply(account)
    for where, rules in rights.items():
        common = {"apiVersion": f"{group}/v1", "metadata": {"name": name, "namespace": where}}
        role = {"apiGroup": group, "kind": "Role", "name": name}
        cluster.admin.apply({**common, "kind": "Role", "rules": rules})
        cluster.admin.apply({**common, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]})
    return cluster.write_kubeconfig(name, {"token": cluster.service_account_token(space, name)})


def definition(group: str, kind: str, *versions: str) -> Document:
    """Return the definition of a kind whose objects may hold anything; the last version is stored."""
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [
                {"name": name, "served": True, "storage": name == versions[-1], "schema": schema}
                for name in versions
            ],
        },
    }


def run_pod(admin: Client, pod: Document, address: str) -> None:
    """Make a Pod that is ready, as the kubelet would say."""
    admin.apply(pod)
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    admin.request("PATCH", f"{path_of(pod)}/status", {"status": status})


def write_history(admin: Client) -> None:
    """Raise the resource version by more than an API server adds when it starts.

    Without it a store that is put back to an earlier state may have caught up before anybody looks.
    """
    for number in range(300):
        metadata = {"name": "history", "namespace": "default"}
        data = {"number": str(number)}
        admin.apply({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": data})
