"""Checks of what the person who installs may do. Pure: the answers come from SelfSubjectAccessReviews."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from nodeagent.meshctl.clustercheck.result import Check, Result, Unknown, named

SEE = "docs/meshctl.md#rights"
RIGHTS_CREATE = Check("rights-create", "you may create what is installed", SEE)
RIGHTS_GRANT = Check("rights-grant", "you may grant what the agent is granted", SEE)
RIGHTS_HELM = Check("rights-helm", "you may store what Helm stores", SEE)
RIGHTS_DNS = Check("rights-dns", "you may change the cluster's DNS", SEE)

RBAC = "rbac.authorization.k8s.io"


class Right(msgspec.Struct, frozen=True):
    """A verb on a kind of object, in a namespace or (empty) everywhere."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        """Return it as Kubernetes says it: `create daemonsets.apps in svcmesh`."""
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        kind = f"{resource}.{self.group}" if self.group else resource
        return f"{self.verb} {kind}" + (f" in {self.namespace}" if self.namespace else "")


GRANTED = (
    Right("list", "", "services"),
    Right("watch", "", "services"),
    Right("list", "discovery.k8s.io", "endpointslices"),
    Right("watch", "discovery.k8s.io", "endpointslices"),
    Right("list", "", "namespaces"),
    Right("watch", "", "namespaces"),
    Right("list", "", "pods"),
    Right("watch", "", "pods"),
    Right("create", "events.k8s.io", "events"),
)
"""What the agent's ClusterRole holds: nobody may grant more than they have, unless they may `escalate`."""
ESCALATE = Right("escalate", RBAC, "clusterroles")
BIND = Right("bind", RBAC, "clusterroles")


def viewing(namespace: str) -> tuple[Right, ...]:
    """Return what the Role for people holds, who are granted it by others; see `GRANTED`."""
    return (
        Right("list", "", "pods", namespace=namespace),
        Right("get", "", "pods", "portforward", namespace),
        Right("create", "", "pods", "portforward", namespace),
        Right("get", "", "pods", "log", namespace),
        Right("list", "apps", "daemonsets", namespace=namespace),
        Right("list", "", "events", namespace=namespace),
    )


def escalate_there(namespace: str) -> Right:
    """Return the right to make a Role of rights that one does not have."""
    return Right("escalate", RBAC, "roles", namespace=namespace)


def to_create(namespace: str, *, present: bool) -> tuple[Right, ...]:
    """Return the rights to make the objects; the namespace itself only where it is not there."""
    return (
        *(() if present else (Right("create", "", "namespaces"),)),
        Right("create", "", "serviceaccounts", namespace=namespace),
        Right("create", RBAC, "clusterroles"),
        Right("create", RBAC, "clusterrolebindings"),
        Right("create", RBAC, "roles", namespace=namespace),
        Right("create", "apps", "daemonsets", namespace=namespace),
    )


def for_helm(namespace: str) -> tuple[Right, ...]:
    """Return the rights for Helm's own record of a release."""
    return tuple(Right(verb, "", "secrets", namespace=namespace) for verb in ("create", "get", "list"))


def for_dns() -> tuple[Right, ...]:
    """Return the rights that `meshctl dns install` uses."""
    return (
        Right("create", "", "configmaps", namespace="kube-system"),
        Right("patch", "", "configmaps", namespace="kube-system"),
        Right("create", "", "pods", "portforward", "kube-system"),
    )


def wanted(namespace: str, *, present: bool) -> tuple[Right, ...]:
    """Return every right that is asked about."""
    own = (*to_create(namespace, present=present), *for_helm(namespace), *for_dns())
    return (*own, ESCALATE, BIND, *GRANTED, escalate_there(namespace), *viewing(namespace))


def check_rights(
    allowed: Mapping[Right, bool] | Unknown, namespace: str, *, present: bool
) -> tuple[Result, ...]:
    """Judge what the API server says about these rights."""
    create, helm, dns = to_create(namespace, present=present), for_helm(namespace), for_dns()
    return (
        RIGHTS_CREATE.judge(
            allowed,
            lambda may: RIGHTS_CREATE.of_problems(
                _missing(may, create),
                "",
                "you may not; have an administrator of the cluster install the mesh",
            ),
        ),
        RIGHTS_GRANT.judge(allowed, lambda may: _grant(may, namespace)),
        RIGHTS_HELM.judge(
            allowed,
            lambda may: RIGHTS_HELM.of_problems(
                _missing(may, helm),
                "",
                "you may not; install with kustomize, which stores nothing",
                "warning",
            ),
        ),
        RIGHTS_DNS.judge(
            allowed,
            lambda may: RIGHTS_DNS.of_problems(
                _missing(may, dns),
                "",
                "you may not; somebody else has to run `meshctl dns install`",
                "warning",
            ),
        ),
    )


def _missing(may: Mapping[Right, bool], rights: Iterable[Right]) -> list[str]:
    return [str(right) for right in rights if not may.get(right)]


def _grant(may: Mapping[Right, bool], namespace: str) -> Result:
    lacking = _missing(may, GRANTED)
    if lacking and not (may.get(ESCALATE) and may.get(BIND)):
        return RIGHTS_GRANT.failed(
            f"you may neither {named(lacking)} yourself, nor escalate and bind clusterroles: the API server "
            "refuses the agent's ClusterRole or its binding; have an administrator install the mesh"
        )
    lacking = _missing(may, viewing(namespace))
    if lacking and not may.get(escalate_there(namespace)):
        return RIGHTS_GRANT.failed(
            f"you may neither {named(lacking)} yourself, nor escalate roles there: the API server refuses "
            "the Role svcmesh-viewer; have an administrator install the mesh"
        )
    return RIGHTS_GRANT.ok()
