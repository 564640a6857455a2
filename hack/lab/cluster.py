"""Services and EndpointSlices as YAML files in a folder, written so that a reader never sees half of one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from hack.lab.topology import NodeSpec


class Target(msgspec.Struct, frozen=True):
    """An endpoint: a pod's address with its conditions."""

    address: str
    pod: str = ""
    node: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False


class Port(msgspec.Struct, frozen=True):
    """A Service port and the port its endpoints listen on."""

    port: int
    target: int
    name: str = ""
    app_protocol: str = ""


class Cluster:
    """A folder of Kubernetes YAML that changes as a test wants: one file a Service, one its endpoints."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def service(
        self,
        name: str,
        ports: Iterable[Port],
        *,
        cluster_ip: str,
        annotations: Mapping[str, str] | None = None,
        namespace: str = "default",
    ) -> None:
        """Write a Service; without `annotations` it asks for the mesh.

        `cluster_ip` may be `None`, as text, for a headless one.
        """
        wanted = {"svc.mesh/enabled": "true"} if annotations is None else dict(annotations)
        self._write(
            f"{namespace}.{name}.service",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": namespace, "annotations": wanted},
                "spec": {
                    "clusterIP": cluster_ip,
                    "clusterIPs": [cluster_ip],
                    "selector": {"app": name},
                    "ports": [_service_port(port) for port in ports],
                },
            },
        )

    def endpoints(
        self, name: str, ports: Iterable[Port], targets: Iterable[Target], *, namespace: str = "default"
    ) -> None:
        """Write the one EndpointSlice of a Service, in place of what it was."""
        self._write(
            f"{namespace}.{name}.endpoints",
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{name}-1",
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": name},
                },
                "addressType": "IPv4",
                "ports": [{"name": port.name, "port": port.target, "protocol": "TCP"} for port in ports],
                "endpoints": [_endpoint(target, namespace) for target in targets],
            },
        )

    def pods(self, nodes: Iterable[NodeSpec], *, namespace: str = "default") -> None:
        """Write a Pod object for each pod of the lab."""
        for node in nodes:
            for pod in node.pods:
                self._write(
                    f"{namespace}.{pod.name}.pod",
                    {
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "metadata": {"name": pod.name, "namespace": namespace},
                        "spec": {"nodeName": node.name, "serviceAccountName": "default"},
                        "status": {"podIP": pod.address, "podIPs": [{"ip": pod.address}], "phase": "Running"},
                    },
                )

    def remove(self, name: str, *, namespace: str = "default") -> None:
        """Remove a Service and its endpoints."""
        for kind in ("service", "endpoints"):
            (self.directory / f"{namespace}.{name}.{kind}.yaml").unlink(missing_ok=True)

    def _write(self, stem: str, content: dict[str, Any]) -> None:
        unfinished = self.directory / f".{stem}.tmp"
        unfinished.write_text(yaml.safe_dump(content, sort_keys=False))
        os.replace(unfinished, self.directory / f"{stem}.yaml")


def _service_port(port: Port) -> dict[str, Any]:
    spec: dict[str, Any] = {"port": port.port, "targetPort": port.target, "protocol": "TCP"}
    if port.name:
        spec["name"] = port.name
    if port.app_protocol:
        spec["appProtocol"] = port.app_protocol
    return spec


def _endpoint(target: Target, namespace: str) -> dict[str, Any]:
    endpoint: dict[str, Any] = {
        "addresses": [target.address],
        "conditions": {
            "ready": target.ready,
            "serving": target.serving,
            "terminating": target.terminating,
        },
    }
    if target.node:
        endpoint["nodeName"] = target.node
    if target.pod:
        endpoint["targetRef"] = {"kind": "Pod", "name": target.pod, "namespace": namespace}
    return endpoint
