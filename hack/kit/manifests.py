"""Services and EndpointSlices: as documents for an API server, and as YAML for people who edit it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

Document = dict[str, Any]

ENABLED: Mapping[str, str] = {"svc.mesh/enabled": "true"}
"""The annotation that puts a Service into the mesh."""


class Port(msgspec.Struct, frozen=True):
    """A Service port and the port its endpoints listen on."""

    port: int
    target_port: int
    name: str = ""


class Endpoint(msgspec.Struct, frozen=True):
    """An endpoint's address, its pod and node, and its conditions."""

    address: str
    pod: str = ""
    node: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False


def service(
    name: str,
    ports: Iterable[Port],
    *,
    namespace: str,
    cluster_ip: str = "",
    annotations: Mapping[str, str] | None = ENABLED,
    selector: Mapping[str, str] | None = None,
) -> Document:
    """Return a Service; what is empty is left to the API server. A headless one has the ClusterIP `None`."""
    metadata: Document = {"name": name, "namespace": namespace}
    if annotations is not None:
        metadata["annotations"] = dict(annotations)
    spec: Document = {"clusterIP": cluster_ip} if cluster_ip else {}
    if selector:
        spec["selector"] = dict(selector)
    spec["ports"] = [{"name": port.name, "port": port.port, "targetPort": port.target_port} for port in ports]
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def endpoint_slice(
    service: str, ports: Iterable[Port], endpoints: Iterable[Endpoint], *, namespace: str, name: str = ""
) -> Document:
    """Return an EndpointSlice of a Service, named `SERVICE-1` if not otherwise."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name or f"{service}-1",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": port.name, "port": port.target_port, "protocol": "TCP"} for port in ports],
        "endpoints": [_endpoint(endpoint, namespace) for endpoint in endpoints],
    }


def _endpoint(endpoint: Endpoint, namespace: str) -> Document:
    document: Document = {
        "addresses": [endpoint.address],
        "conditions": {
            "ready": endpoint.ready,
            "serving": endpoint.serving,
            "terminating": endpoint.terminating,
        },
    }
    if endpoint.node:
        document["nodeName"] = endpoint.node
    if endpoint.pod:
        document["targetRef"] = {"kind": "Pod", "namespace": namespace, "name": endpoint.pod}
    return document


def render(*documents: Document) -> str:
    """Return the documents as YAML: annotations in quotes, one a line, and short things on one line."""
    return yaml.dump_all(
        map(_laid_out, documents), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=1000
    )


def replace_file(path: Path, text: str) -> None:
    """Write a file in one step, so that a reader never sees half of it."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    os.replace(draft, path)


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Quoted(str):
    __slots__ = ()


class _Block(dict[str, Any]):
    pass


_Dumper.add_representer(_Quoted, lambda d, text: d.represent_scalar("tag:yaml.org,2002:str", str(text), '"'))
_Dumper.add_representer(_Block, lambda d, items: d.represent_mapping("tag:yaml.org,2002:map", items, False))


def _laid_out(document: Document) -> Document:
    metadata = _Block(document["metadata"])
    if "annotations" in metadata:
        metadata["annotations"] = {key: _Quoted(value) for key, value in metadata["annotations"].items()}
    return {**document, "metadata": metadata}
