"""From a Kubernetes object, as plain values, to what the mesh uses of it.

Both sources end here: YAML and JSON files, and what the API server sends. Of an object only the fields of
`discovery.model` are looked at; what else it holds is never checked. A bad field is reported and falls back
to something harmless, the rest of the object goes on. Pure: no I/O, no clock.

The meaning of the fields is that of the Kubernetes API reference (Service v1, EndpointSlice
discovery.k8s.io/v1, Pod v1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from discovery.compat import Compat
from discovery.manifest.endpointslice import SERVICE_NAME_LABEL, read_slice
from discovery.manifest.fields import Fields, describe_type
from discovery.manifest.pod import read_pod
from discovery.manifest.service import read_service
from discovery.manifest.smi import SMI_KINDS, TRAFFIC_TARGET, SmiKind, is_smi, report_smi
from discovery.model import MeshObject, Problem, ServiceObject, SliceObject

__all__ = [
    "SERVICE_NAME_LABEL",
    "SMI_KINDS",
    "TRAFFIC_TARGET",
    "SmiKind",
    "describe_type",
    "kind_of",
    "read_object",
]


def read_object(
    document: Mapping[str, Any], origin: str, compat: Compat | None = None
) -> tuple[MeshObject | None, tuple[Problem, ...]]:
    """Trim a Service, EndpointSlice or Pod to what the mesh uses.

    Returns the object, or None if it is of another kind or cannot be used at all, and what is wrong with it.
    `origin` goes into object and problems as it is. With `compat` the annotations of that mesh are read too,
    and its other objects reported. Never raises for bad input.
    """
    kind, version = document.get("kind"), document.get("apiVersion")
    if not (isinstance(kind, str) and isinstance(version, str)):
        return None, ()
    fields = Fields(document, kind, origin)
    found: MeshObject | None = None
    if kind == "EndpointSlice" and version.startswith("discovery.k8s.io/v1"):
        found = read_slice(fields, version)
    elif kind == "Service" and version == "v1":
        found = read_service(fields, compat)
    elif kind == "Pod" and version == "v1":
        found = read_pod(fields)
    elif compat is not None and is_smi(kind, version):
        report_smi(fields)
    return found, fields.problems()


def kind_of(found: MeshObject) -> str:
    """Return the Kubernetes kind of an object."""
    if isinstance(found, ServiceObject):
        return "Service"
    return "EndpointSlice" if isinstance(found, SliceObject) else "Pod"
