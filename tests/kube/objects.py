"""Objects for a real API server, with all that it insists on."""

from __future__ import annotations

from typing import Any

from hack.kube.client import Client

Document = dict[str, Any]


def namespace(name: str) -> Document:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def service(name: str, namespace: str = "shop", port: int = 80, **annotations: str) -> Document:
    """A Service without a selector: its slices are written by hand."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {"svc.mesh/enabled": "true", **annotations},
        },
        "spec": {"ports": [{"name": "http", "port": port, "targetPort": 8080}]},
    }


def endpoint_slice(
    service: str, namespace: str = "shop", address: str = "10.1.0.1", port: int = 8080, name: str = ""
) -> Document:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name or f"{service}-1",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
    }


def node(name: str) -> Document:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def pod(name: str, namespace: str = "shop", **labels: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "none"}]},
    }


def write_history(admin: Client) -> None:
    """Raise the resource version by more than an API server adds when it starts.

    Without it a store that is put back to an earlier state may have caught up before anybody looks.
    """
    for number in range(300):
        metadata = {"name": "history", "namespace": "default"}
        data = {"number": str(number)}
        admin.apply({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": data})
