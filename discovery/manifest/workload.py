"""Which workload a Pod belongs to, from its own metadata alone.

A Pod names what controls it (`metadata.ownerReferences`), and for two kinds that is not what its owner wrote:
Deployments have ReplicaSets, CronJobs have Jobs. Reading those would take a watch on every ReplicaSet and Job
of the cluster, so their names are taken apart instead, as Istio and Cilium do it. It is what the Pod says of
itself: good enough to find somebody, not to grant something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from discovery.manifest.fields import SUBDOMAIN, Fields

TEMPLATE_HASH_LABEL = "pod-template-hash"
"""The Deployment controller puts it on its Pods; the name of the ReplicaSet ends with it."""

_FIELD = "metadata.ownerReferences"
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")
_SCHEDULED = re.compile(r"(.+)-([0-9]{8})")
"""A CronJob's Jobs end with the minute they were due, counted from 1970 (Kubernetes 1.21 and later)."""
_LAST_DATE = 20991231
"""Eight digits up to here are a date that a person wrote (20240131); as minutes they are before 2010."""


def workload_of(fields: Fields, metadata: Mapping[str, Any]) -> str:
    """Return the workload in the Pod's namespace, such as `deployment/web`; without one the Pod itself."""
    alone = f"pod/{fields.name}"
    controller = _controller(fields, metadata)
    if controller is None:
        return alone
    at, reference = controller
    kind, name = fields.text(reference, "kind", f"{at}.kind"), fields.text(reference, "name", f"{at}.name")
    effect = f"the workload is {alone}"
    if not _KIND.fullmatch(kind):
        fields.report(f"{at}.kind", kind, "is not the kind of an object", "ReplicaSet", effect)
        return alone
    if not SUBDOMAIN.fullmatch(name):
        fields.report(f"{at}.name", name, "is not the name of an object", "web-5d89bdfbf9", effect)
        return alone
    if kind == "Node":  # the kubelet's mirror of a Pod that it has from a file
        return alone
    if kind == "ReplicaSet":
        labels = fields.mapping(metadata, "labels", "metadata.labels")
        return _of_replica_set(name, labels.get(TEMPLATE_HASH_LABEL))
    if kind == "Job":
        return _of_job(name)
    return f"{kind.lower()}/{name}"


def _controller(fields: Fields, metadata: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Return the reference to the one owner that manages the Pod, and its path."""
    for at, reference in fields.mappings(fields.items(metadata, "ownerReferences", _FIELD), _FIELD):
        if reference.get("controller") is True:
            return at, reference
    return None


def _of_replica_set(name: str, template_hash: object) -> str:
    if isinstance(template_hash, str) and template_hash:
        deployment = name.removesuffix(f"-{template_hash}")
        if deployment not in ("", name):
            return f"deployment/{deployment}"
    return f"replicaset/{name}"


def _of_job(name: str) -> str:
    scheduled = _SCHEDULED.fullmatch(name)
    if scheduled is not None and int(scheduled[2]) > _LAST_DATE:
        return f"cronjob/{scheduled[1]}"
    return f"job/{name}"
