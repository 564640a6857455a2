"""How a cluster lays its DNS out, as values, and in which ConfigMap the stub belongs.

Two ways are known. Where the Corefile imports `*.server` from a folder that a ConfigMap is mounted to (AKS,
k3s), the stub is a key of its own there. Elsewhere (kubeadm, kind, EKS, NodeLocal DNSCache) it is a marked
block at the end of the Corefile.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from nodeagent.meshctl.clusterdns.corefile import Corefile, CorefileNotUnderstood, read_corefile

NAMESPACE = "kube-system"
COREFILE = "Corefile"
OWN_KEY = "svcmesh.server"
CORE = "coredns"
NODE_LOCAL = ("node-local-dns", "nodelocaldns")
"""The second is Kubespray's."""
CUSTOM = "coredns-custom"
CONFIG_FOLDER = "/etc/coredns"


class ConfigMap(msgspec.Struct, frozen=True):
    """The parts of a ConfigMap that are used."""

    name: str
    data: dict[str, str]
    labels: dict[str, str]
    annotations: dict[str, str]
    version: str


class Workload(msgspec.Struct, frozen=True):
    """A Deployment or DaemonSet: which pods it has, and which ConfigMap is mounted where."""

    selector: dict[str, str]
    mounts: dict[str, str]


class ClusterDns(msgspec.Struct, frozen=True):
    """What was found in the namespace of the cluster's DNS, by name."""

    configmaps: dict[str, ConfigMap]
    workloads: dict[str, Workload]


class Place(msgspec.Struct, frozen=True):
    """Where a stub goes: a key of a ConfigMap, about a Corefile."""

    workload: str
    configmap: str
    key: str
    corefile: Corefile
    notices: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["block", "file"]:
        """Whether it is a block in a Corefile or a file of its own."""
        return "block" if self.key == COREFILE else "file"


class LayoutNotUnderstood(Exception):
    """A cluster whose DNS must be changed by hand; the message says why."""


def read_configmap(document: Mapping[str, Any]) -> ConfigMap:
    """Read a ConfigMap as the API server gives it; what is missing is empty."""
    metadata = document.get("metadata") or {}
    return ConfigMap(
        name=metadata.get("name") or "",
        data=document.get("data") or {},
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        version=metadata.get("resourceVersion") or "",
    )


def read_workload(document: Mapping[str, Any]) -> Workload:
    """Read a Deployment or DaemonSet as the API server gives it."""
    spec = document.get("spec") or {}
    pod = (spec.get("template") or {}).get("spec") or {}
    sources = {
        one["name"]: one["configMap"].get("name", "")
        for one in pod.get("volumes") or ()
        if one.get("configMap")
    }
    mounts = [
        mount for container in pod.get("containers") or () for mount in container.get("volumeMounts") or ()
    ]
    return Workload(
        selector=(spec.get("selector") or {}).get("matchLabels") or {},
        mounts={
            one["mountPath"].rstrip("/"): sources[one["name"]] for one in mounts if one.get("name") in sources
        },
    )


def find_places(dns: ClusterDns) -> tuple[Place, ...]:
    """Return where stubs belong: in CoreDNS, and in NodeLocal DNSCache where there is one.

    Raises:
        LayoutNotUnderstood: there is no CoreDNS as we know it.
    """
    if CORE not in dns.configmaps:
        raise LayoutNotUnderstood(
            f"there is no ConfigMap {NAMESPACE}/{CORE}: this cluster's DNS is not CoreDNS as we know it"
        )
    return (_core_place(dns), *(_block_place(dns, name) for name in NODE_LOCAL if name in dns.configmaps))


def _core_place(dns: ClusterDns) -> Place:
    place = _block_place(dns, CORE)
    workload = dns.workloads.get(CORE)
    for pattern in place.corefile.imports:
        if posixpath.basename(pattern) == "*.server":
            folder = posixpath.join(CONFIG_FOLDER, posixpath.dirname(pattern))
            mounted = CUSTOM if workload is None else workload.mounts.get(folder)
            if mounted is None:
                raise LayoutNotUnderstood(
                    f"the Corefile imports {pattern}, and no ConfigMap is mounted to {folder}"
                )
            return msgspec.structs.replace(place, configmap=mounted, key=OWN_KEY, notices=())
    if any(name.startswith("objectset.rio.cattle.io/") for name in dns.configmaps[CORE].annotations):
        raise LayoutNotUnderstood(
            "k3s writes this Corefile anew at each start, and it imports no `custom/*.server`"
        )
    return place


def _block_place(dns: ClusterDns, name: str) -> Place:
    found = dns.configmaps[name]
    text = found.data.get(COREFILE)
    if text is None:
        raise LayoutNotUnderstood(f"ConfigMap {NAMESPACE}/{name} has no key {COREFILE}")
    try:
        corefile = read_corefile(text)
    except CorefileNotUnderstood as error:
        raise LayoutNotUnderstood(f"the Corefile of {NAMESPACE}/{name} is not understood: {error}") from error
    return Place(name, name, COREFILE, corefile, tuple(_overwriters(found)))


def _overwriters(found: ConfigMap) -> list[str]:
    """Say who else writes a ConfigMap, as its labels tell."""
    said = f"ConfigMap {NAMESPACE}/{found.name} also belongs to"
    again = "when it overwrites the stub, run `meshctl dns install` again"
    known = {
        "eks.amazonaws.com/component": "the EKS add-on `coredns` (or give it the stub):",
        "addonmanager.kubernetes.io/mode": "the cluster's add-on manager:",
        "helm.sh/chart": "a Helm release:",
    }
    return [f"{said} {owner} {again}" for label, owner in known.items() if label in found.labels]
