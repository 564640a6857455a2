"""The shop as ordinary Kubernetes YAML, one file a Service, laid out for people who edit it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from hack.demo.shop import NAMESPACE, Offer

_FILE = """\
# {about}.
# Change something and save: svc.mesh follows at once. Break something: it says so, and goes on.
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {namespace}
{annotations}spec:
  clusterIP: {cluster_ip}
  selector: {{app: {name}}}
  ports:
    - {{name: {port_name}, port: {port}, targetPort: {target_port}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: {namespace}
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports:
  - {{name: {port_name}, port: {target_port}, protocol: TCP}}
endpoints:
{endpoints}"""


class Target(msgspec.Struct, frozen=True):
    """An endpoint: a server's name and address; one that is `leaving` gets no more requests."""

    name: str
    address: str
    leaving: bool = False


def render_manifest(
    offer: Offer,
    block: int,
    port: int,
    target_port: int,
    annotations: Mapping[str, str],
    targets: Iterable[Target],
) -> str:
    """Return the file of a Service: the Service and its EndpointSlice."""
    lines = "".join(f"    {name}: {json.dumps(value)}\n" for name, value in annotations.items())
    return _FILE.format(
        about=f"{offer.name}: {offer.about}",
        name=offer.name,
        namespace=NAMESPACE,
        annotations=f"  annotations:\n{lines}" if lines else "",
        cluster_ip=offer.cluster_ip(block),
        port_name=offer.port_name,
        port=port,
        target_port=target_port,
        endpoints="".join(_endpoint(target) for target in targets) or "  []\n",
    )


def replace_file(path: Path, text: str) -> None:
    """Write a file in one step, so that a reader never sees half of it."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    os.replace(draft, path)


def _endpoint(target: Target) -> str:
    ready = "false" if target.leaving else "true"
    leaving = "true" if target.leaving else "false"
    return (
        f"  - addresses: [{target.address}]\n"
        f"    conditions: {{ready: {ready}, serving: true, terminating: {leaving}}}\n"
        f"    targetRef: {{kind: Pod, namespace: {NAMESPACE}, name: {target.name}}}\n"
    )
