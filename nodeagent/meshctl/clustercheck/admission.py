"""Checks whether the mesh is there already, and whether its namespace would admit the agent's pod. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from nodeagent.meshctl.clustercheck.result import Check, Result, Unknown

NOT_INSTALLED = Check("not-installed", "no svc.mesh is installed", "docs/install.md#upgrading-and-removing")
POD_SECURITY = Check("pod-security", "the namespace admits the agent's pod", "docs/security.md#the-namespace")

ENFORCE: Final = "pod-security.kubernetes.io/enforce"
PRIVILEGED: Final = "privileged"
AGENT_USER: Final = 65532
Admission = Literal["admitted", "refused", "unknown"]


class Space(msgspec.Struct, frozen=True):
    """The namespace that the mesh is to be installed into."""

    name: str
    present: bool
    level: str = ""
    """What its label says that Pod Security enforces; empty without one."""


class Trial(msgspec.Struct, frozen=True):
    """What the API server said to the agent's pod, without making it."""

    admitted: Admission
    message: str = ""


def agent_pod(
    namespace: str, name: str, image: str, args: Sequence[str], labels: Mapping[str, str], node: str = ""
) -> dict[str, Any]:
    """Return a pod that asks for what the agent's does (manifests/base/daemonset.yaml), and ends by itself.

    `node` binds it to a node without the scheduler; where it is empty, the pod is for a trial only.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {
            **({"nodeName": node} if node else {}),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostNetwork": True,
            "dnsPolicy": "Default",
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 120,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": AGENT_USER,
                "runAsGroup": AGENT_USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "agent",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "args": list(args),
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "64Mi"},
                        "limits": {"memory": "256Mi"},
                    },
                    "securityContext": {
                        "privileged": False,
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
                    },
                }
            ],
        },
    }


def check_admission(space: Space | Unknown, trial: Trial | Unknown) -> Result:
    """Judge the namespace by its label, and by what the API server said to a pod, which counts more."""

    def decide(known: Space) -> Result:
        if not known.present:
            return POD_SECURITY.ok(
                f"namespace {known.name} is not there yet: make it with {ENFORCE}={PRIVILEGED}"
            )
        label = f"kubectl label --overwrite namespace {known.name} {ENFORCE}={PRIVILEGED}"
        if not isinstance(trial, Unknown):
            if trial.admitted == "refused":
                return POD_SECURITY.failed(
                    f"namespace {known.name} refuses it: {trial.message}; try `{label}`"
                )
            if trial.admitted == "admitted":
                return POD_SECURITY.ok(f"namespace {known.name} admits it, on trial")
        if known.level and known.level != PRIVILEGED:
            return POD_SECURITY.failed(
                f"namespace {known.name} enforces {known.level!r}, which forbids what it needs: `{label}`"
            )
        if known.level == PRIVILEGED:
            return POD_SECURITY.ok(f"namespace {known.name} enforces {PRIVILEGED!r}, by its label")
        reason = trial.reason if isinstance(trial, Unknown) else trial.message
        return POD_SECURITY.not_checked(
            f"namespace {known.name} has no label, and a trial was not made: {reason}"
        )

    return POD_SECURITY.judge(space, decide)


def check_not_installed(found: Sequence[str] | Unknown) -> Result:
    """Judge what was found of an earlier installation, such as `DaemonSet svcmesh/svcmesh-agent`."""

    def decide(objects: Sequence[str]) -> Result:
        return NOT_INSTALLED.of_problems(
            objects,
            "",
            "there already; upgrade it, or remove it first (`meshctl check --cluster` says how it is)",
        )

    return NOT_INSTALLED.judge(found, decide)
