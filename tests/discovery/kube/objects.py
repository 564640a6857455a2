"""Kubernetes objects for tests, as the API server stores them."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]


def service(name: str, cluster_ip: str = "10.96.0.10", **annotations: str) -> Document:
    return {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {
            "namespace": "shop",
            "name": name,
            "annotations": {"svc.mesh/enabled": "true", **annotations},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    }


def endpoint_slice(name: str, service: str = "cart", address: str = "10.1.0.1") -> Document:
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "namespace": "shop",
            "name": name,
            "labels": {"kubernetes.io/service-name": service} if service else {},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
    }


def pod(name: str, node: str = "node-1", phase: str = "Running") -> Document:
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"nodeName": node, "serviceAccountName": "shop"},
        "status": {"phase": phase, "podIP": "10.1.0.9", "podIPs": [{"ip": "10.1.0.9"}]},
    }
