"""A folder of Kubernetes YAML that stands for a cluster: one file a Service, one its endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hack.kit.manifests import (
    ENABLED,
    Document,
    Endpoint,
    Port,
    endpoint_slice,
    render,
    replace_file,
    service,
)
from hack.lab.topology import NodeSpec


class Cluster:
    """The folder; it changes as a test wants, and a reader never sees half a file."""

    def __init__(self, directory: Path, namespace: str = "default") -> None:
        self.directory = directory
        self._namespace = namespace
        directory.mkdir(parents=True, exist_ok=True)

    def serve(
        self,
        name: str,
        port: Port,
        endpoints: Iterable[Endpoint],
        *,
        cluster_ip: str,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Write a Service of one port and its endpoints; see `service`."""
        # In this order, so that a client that finds the name also finds endpoints.
        self.endpoints(name, [port], endpoints)
        self.service(name, [port], cluster_ip=cluster_ip, annotations=annotations)

    def service(
        self,
        name: str,
        ports: Iterable[Port],
        *,
        cluster_ip: str,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Write a Service; without `annotations` it asks for the mesh.

        `cluster_ip` may be `None`, as text, for a headless one.
        """
        wanted = ENABLED if annotations is None else annotations
        document = service(
            name,
            ports,
            namespace=self._namespace,
            cluster_ip=cluster_ip,
            annotations=wanted,
            selector={"app": name},
        )
        self._write(name, "service", document)

    def endpoints(self, name: str, ports: Iterable[Port], endpoints: Iterable[Endpoint]) -> None:
        """Write the one EndpointSlice of a Service, in place of what it was."""
        self._write(name, "endpoints", endpoint_slice(name, ports, endpoints, namespace=self._namespace))

    def pods(self, nodes: Iterable[NodeSpec]) -> None:
        """Write a Pod object for each pod of the lab."""
        for node in nodes:
            for pod in node.pods:
                document = {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": pod.name, "namespace": self._namespace},
                    "spec": {"nodeName": node.name, "serviceAccountName": "default"},
                    "status": {"podIP": pod.address, "podIPs": [{"ip": pod.address}], "phase": "Running"},
                }
                self._write(pod.name, "pod", document)

    def remove(self, name: str) -> None:
        """Remove a Service and its endpoints."""
        for kind in ("service", "endpoints"):
            self._path(name, kind).unlink(missing_ok=True)

    def _write(self, name: str, kind: str, document: Document) -> None:
        replace_file(self._path(name, kind), render(document))

    def _path(self, name: str, kind: str) -> Path:
        return self.directory / f"{self._namespace}.{name}.{kind}.yaml"
