"""Objects for a real API server, with all that it insists on."""

from __future__ import annotations

from typing import Any

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
