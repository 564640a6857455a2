"""From a Kubernetes object, as plain values, to what the mesh uses of it.

Both sources end here: YAML and JSON files, and what the API server sends. Of an object only the fields of
`discovery.model` are looked at; what else it holds is never checked. A bad field is reported and falls back
to something harmless, the rest of the object goes on. Pure: no I/O, no clock.

The meaning of the fields is that of the Kubernetes API reference (Service v1, EndpointSlice
discovery.k8s.io/v1, Pod v1, Namespace v1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from discovery.compat import Compat
from discovery.manifest.endpoints import read_endpoints
from discovery.manifest.endpointslice import SERVICE_NAME_LABEL, read_slice
from discovery.manifest.fields import Fields, Layout, describe_type
from discovery.manifest.namespace import read_namespace
from discovery.manifest.pod import read_pod
from discovery.manifest.service import read_service
from discovery.manifest.smi import SMI_KINDS, TRAFFIC_TARGET, SmiKind, is_smi, report_smi
from discovery.manifest.written import (
    WORKLOADS,
    FileOnly,
    WrittenEndpoints,
    WrittenWorkload,
    extend_pod,
    extend_service,
    read_workload,
)
from discovery.model import MeshObject, NamespaceObject, PodObject, Problem, ServiceObject, SliceObject

__all__ = [
    "SERVICE_NAME_LABEL",
    "SMI_KINDS",
    "TRAFFIC_TARGET",
    "SmiKind",
    "describe_type",
    "kind_of",
    "read_object",
    "read_written",
]


def read_object(
    document: Mapping[str, Any], origin: str, compat: Compat | None = None
) -> tuple[MeshObject | None, tuple[Problem, ...]]:
    """Trim a Service, EndpointSlice, Pod or Namespace to what the mesh uses.

    Returns the object, or None if it is of another kind or cannot be used at all, and what is wrong with it.
    `origin` goes into object and problems as it is. With `compat` the annotations of that mesh are read too,
    and its other objects reported. Never raises for bad input.
    """
    kind, version = document.get("kind"), document.get("apiVersion")
    if not (isinstance(kind, str) and isinstance(version, str)):
        return None, ()
    fields = Fields(document, kind, origin)
    found = _read(fields, kind, version, compat)
    return found, fields.problems()


def read_written(
    document: Mapping[str, Any], origin: str, layout: Layout, compat: Compat | None = None
) -> tuple[MeshObject | FileOnly | None, tuple[Problem, ...]]:
    """Do the same for an object in a file, and read what only files are asked for (`WrittenService` etc.).

    `origin` is the place where it begins, and `layout` says where its fields stand.
    """
    kind, version = document.get("kind"), document.get("apiVersion")
    if not (isinstance(kind, str) and isinstance(version, str)):
        return None, ()
    fields = Fields(document, kind, origin, layout)
    found: MeshObject | FileOnly | None = _read(fields, kind, version, compat)
    if isinstance(found, ServiceObject):
        found = extend_service(fields, found)
    elif isinstance(found, PodObject):
        found = extend_pod(fields, found)
    elif kind == "Endpoints" and version == "v1":
        found = read_endpoints(fields)
    elif kind in WORKLOADS and version.startswith("apps/"):
        found = read_workload(document, kind, origin, fields.lines())
    return found, fields.problems()


def _read(fields: Fields, kind: str, version: str, compat: Compat | None) -> MeshObject | None:
    found: MeshObject | None = None
    if kind == "EndpointSlice" and version.startswith("discovery.k8s.io/v1"):
        found = read_slice(fields, version)
    elif kind == "Service" and version == "v1":
        found = read_service(fields, compat)
    elif kind == "Pod" and version == "v1":
        found = read_pod(fields)
    elif kind == "Namespace" and version == "v1":
        found = read_namespace(fields)
    elif compat is not None and is_smi(kind, version):
        report_smi(fields)
    return found


def kind_of(found: MeshObject | FileOnly) -> str:
    """Return the Kubernetes kind of an object."""
    if isinstance(found, WrittenWorkload):
        return found.key.kind
    if isinstance(found, WrittenEndpoints):
        return "Endpoints"
    if isinstance(found, ServiceObject):
        return "Service"
    if isinstance(found, NamespaceObject):
        return "Namespace"
    return "EndpointSlice" if isinstance(found, SliceObject) else "Pod"
