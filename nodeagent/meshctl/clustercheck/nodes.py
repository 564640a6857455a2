"""Checks of the API server's version and of the nodes, as Kubernetes describes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from nodeagent.meshctl.clustercheck.result import Check, Result, Unknown

OLDEST = (1, 25)
"""Kubernetes: a DaemonSet with `maxSurge` is what upgrades without a gap need."""
ARCHITECTURES = ("amd64", "arm64")

NEEDS = "docs/install.md"
API_REACHABLE = Check("api-reachable", "the API server answers", "docs/meshctl.md#rights")
API_VERSION = Check("api-version", "the API server's version is supported", NEEDS)
NODE_VERSIONS = Check("node-versions", "the versions of the kubelets are supported", NEEDS)
NODE_PLATFORMS = Check("node-platforms", "the nodes run Linux on amd64 or arm64", NEEDS)
NODES_READY = Check("nodes-ready", "the nodes are ready", NEEDS)


class NodeFact(msgspec.Struct, frozen=True):
    """What the API server knows of a node."""

    name: str
    kubelet: str = ""
    system: str = "linux"
    architecture: str = "amd64"
    ready: bool = True
    addresses: tuple[str, ...] = ()
    pod_ranges: tuple[str, ...] = ()

    @property
    def eligible(self) -> bool:
        """Whether an agent could run there."""
        return self.system == "linux" and self.architecture in ARCHITECTURES


def read_node(document: dict[str, Any]) -> NodeFact:
    """Read a Node as the API server gives it; what is missing is empty."""
    spec, status = document.get("spec") or {}, document.get("status") or {}
    metadata, info = document.get("metadata") or {}, status.get("nodeInfo") or {}
    labels = metadata.get("labels") or {}
    conditions = {one.get("type"): one.get("status") for one in status.get("conditions") or ()}
    ranges = spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")])
    return NodeFact(
        name=metadata.get("name") or "",
        kubelet=info.get("kubeletVersion") or "",
        system=info.get("operatingSystem") or labels.get("kubernetes.io/os") or "",
        architecture=info.get("architecture") or labels.get("kubernetes.io/arch") or "",
        ready=conditions.get("Ready") == "True",
        addresses=tuple(
            one.get("address") or ""
            for one in status.get("addresses") or ()
            if one.get("type") in ("InternalIP", "ExternalIP")
        ),
        pod_ranges=tuple(ranges),
    )


def parse_version(text: str) -> tuple[int, int] | None:
    """Return major and minor of a version such as `v1.34.1+k3s1`; None of anything else."""
    found = re.match(r"v?(\d{1,4})\.(\d{1,4})\b", text)
    return None if found is None else (int(found[1]), int(found[2]))


def check_api_version(version: str | Unknown) -> Result:
    """Judge the `gitVersion` of the API server."""

    def decide(text: str) -> Result:
        found = parse_version(text)
        if found is None:
            return API_VERSION.warning(f"{text!r} is no version of Kubernetes that is understood")
        if found < OLDEST:
            return API_VERSION.failed(f"it is {text}; svc.mesh needs {_dotted(OLDEST)} or newer: upgrade it")
        return API_VERSION.ok(text)

    return API_VERSION.judge(version, decide)


def check_nodes(nodes: Sequence[NodeFact] | Unknown) -> tuple[Result, ...]:
    """Judge versions, platforms and readiness of the nodes."""
    if not isinstance(nodes, Unknown) and not nodes:
        nodes = Unknown("there is no node")
    return (
        NODE_VERSIONS.judge(nodes, _versions),
        NODE_PLATFORMS.judge(nodes, _platforms),
        NODES_READY.judge(nodes, _readiness),
    )


def _versions(nodes: Sequence[NodeFact]) -> Result:
    old = [f"{node.name} has {node.kubelet or 'none'}" for node in nodes if _is_old(node.kubelet)]
    seen = sorted({node.kubelet for node in nodes})
    return NODE_VERSIONS.of_problems(
        old, ", ".join(seen), f"svc.mesh needs {_dotted(OLDEST)} or newer; upgrade these nodes"
    )


def _is_old(kubelet: str) -> bool:
    found = parse_version(kubelet)
    return found is None or found < OLDEST


def _platforms(nodes: Sequence[NodeFact]) -> Result:
    if not any(node.eligible for node in nodes):
        return NODE_PLATFORMS.failed(
            "there is no Linux node with amd64 or arm64: no agent could run anywhere"
        )
    strange = [
        f"{node.name} has linux/{node.architecture}"
        for node in nodes
        if node.system == "linux" and not node.eligible
    ]
    if strange:
        return NODE_PLATFORMS.of_problems(
            strange, "", "there is no image for that; keep the agent away by a nodeSelector"
        )
    others = [f"{node.name} runs {node.system or 'an unknown system'}" for node in nodes if not node.eligible]
    return NODE_PLATFORMS.of_problems(
        others,
        f"{len(nodes)} of {len(nodes)}",
        "no agent runs there, and pods there cannot use the mesh",
        "warning",
    )


def _readiness(nodes: Sequence[NodeFact]) -> Result:
    return NODES_READY.of_problems(
        (node.name for node in nodes if not node.ready),
        f"{len(nodes)} of {len(nodes)}",
        "not ready; agents start there when they are",
        "warning",
    )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
