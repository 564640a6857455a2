"""The resources that are watched: paths and selectors, so that the server sends only what is used."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from discovery.manifest import SERVICE_NAME_LABEL
from discovery.model import NamespaceKey, ObjectKey, PodKey, ServiceKey, SliceKey


class Resource(msgspec.Struct, frozen=True):
    """A collection at the API server and the part of it we want."""

    kind: str
    api_version: str
    path: str
    key: Callable[[str, str], ObjectKey]
    label_selector: str = ""
    field_selector: str = ""
    namespaced: bool = True
    """Whether its objects are in namespaces."""
    optional: str = ""
    """If the mesh goes on where it may not read this: what it does without then."""

    def origin(self, *key: str) -> str:
        """How an object is called in problems and logs: `Service shop/cart`."""
        return f"{self.kind} {'/'.join(key)}"


def watched_resources(node_name: str, label_selector: str) -> tuple[Resource, ...]:
    """Return the resources of a node: Services that match the selector, their slices, Namespaces, and the
    node's own Pods.

    The selector goes for slices too: Kubernetes copies a Service's labels to the slices it makes for it.
    Slices made by hand count if they match; without a selector all that is asked of them is that they name
    their Service. Pods that have ended are left out by the server (they leave the watch as DELETED): their
    addresses are used again. Without a node name no Pods are watched.
    """
    services = Resource("Service", "v1", "/api/v1/services", ServiceKey, label_selector=label_selector)
    slices = Resource(
        "EndpointSlice",
        "discovery.k8s.io/v1",
        "/apis/discovery.k8s.io/v1/endpointslices",
        SliceKey,
        label_selector=",".join(filter(None, (SERVICE_NAME_LABEL, label_selector))),
    )
    namespaces = Resource(
        "Namespace",
        "v1",
        "/api/v1/namespaces",
        lambda _, name: NamespaceKey(name),
        namespaced=False,
        optional="annotations of Namespaces (svc.mesh/default.*, svc.mesh/limit.*) are not read",
    )
    if not node_name:
        return (services, slices, namespaces)
    # As the server takes selectors apart: a host name, which may stand for the node's, can be anything.
    node = re.sub(r"([\\,=])", r"\\\1", node_name)
    living = f"spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed"
    return (
        services,
        slices,
        namespaces,
        Resource("Pod", "v1", "/api/v1/pods", PodKey, field_selector=living),
    )
