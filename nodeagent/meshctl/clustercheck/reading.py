"""Facts about a cluster, read at the API server. What may not be read is `Unknown`, with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from discovery.annotations import ENABLED
from discovery.kube.commands.agents import (
    METRICS,
    READYZ,
    AgentPages,
    Page,
    read_pod,
    wanted,
    why_unanswered,
)
from discovery.kube.commands.daemonsets import DaemonSetState, read_daemonsets
from discovery.kube.commands.objects import Conflict, Document, ObjectClient
from discovery.kube.failure import UNREADABLE, ApiError
from nodeagent.admin.resolve import Resolution
from nodeagent.meshctl.admin_port import admin_port
from nodeagent.meshctl.clustercheck.admission import ENFORCE, Space, Trial, agent_pod
from nodeagent.meshctl.clustercheck.agents import AgentFact, read_capture, read_worker_plans
from nodeagent.meshctl.clustercheck.names import DnsFact
from nodeagent.meshctl.clustercheck.nodes import NodeFact, read_node
from nodeagent.meshctl.clustercheck.ranges import ServiceAddresses
from nodeagent.meshctl.clustercheck.result import Unknown
from nodeagent.meshctl.clustercheck.rights import Right
from nodeagent.meshctl.clustercheck.target import PLACEHOLDER, SELECTOR, Target
from nodeagent.meshctl.clusterdns.change import plan_install
from nodeagent.meshctl.clusterdns.cluster import read_dns
from nodeagent.meshctl.clusterdns.corefile import CorefileNotUnderstood
from nodeagent.meshctl.clusterdns.layout import NAMESPACE, LayoutNotUnderstood
from nodeagent.meshctl.clusterdns.question import find_respondents, look
from nodeagent.meshctl.clusterdns.verdict import Sight
from nodeagent.meshctl.status import read_status

T = TypeVar("T")
UNREACHABLE: Final = ("connect", "credentials", "unauthorized")
"""Failures after which nothing else need be asked."""
NO_ACCOUNT: Final = "error looking up service account"
"""What the API server says to a pod whose namespace is so new that it has no ServiceAccount yet."""
SOME_PODS: Final = "500"
REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

_resolution_decoder = msgspec.json.Decoder(Resolution)


class Unreachable(Exception):
    """The API server does not answer, or not to us; the message says why."""


async def known(reading: Awaitable[T]) -> T | Unknown:
    """Return what is read, or why it cannot be.

    Raises:
        Unreachable: nothing can be read.
    """
    try:
        return await reading
    except ApiError as error:
        if error.failure.kind in UNREACHABLE:
            raise Unreachable(error.failure.reason) from error
        return Unknown(error.failure.reason)


async def read_version(client: ObjectClient) -> str:
    """Return the API server's version.

    Raises:
        ApiError: it does not say.
    """
    found = await client.get("/version")
    return str((found or {}).get("gitVersion") or "")


async def read_nodes(client: ObjectClient) -> list[NodeFact]:
    """Return all nodes.

    Raises:
        ApiError: they cannot be listed.
    """
    found = [read_node(document) for document in await client.items("/api/v1/nodes") or ()]
    return sorted(found, key=lambda node: node.name)


async def read_rights(client: ObjectClient, rights: Sequence[Right]) -> Mapping[Right, bool]:
    """Return which of these the person has.

    Raises:
        ApiError: the API server does not say.
    """
    allowed = await asyncio.gather(*(_may(client, right) for right in rights))
    return dict(zip(rights, allowed, strict=True))


async def _may(client: ObjectClient, right: Right) -> bool:
    attributes = {name: value for name, value in msgspec.to_builtins(right).items() if value}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = await client.submit(REVIEWS, review)
    return bool((answer.get("status") or {}).get("allowed"))


async def read_space(client: ObjectClient, namespace: str) -> Space:
    """Return the namespace, which need not be there.

    Raises:
        ApiError: it may not be read.
    """
    found = await client.get(f"/api/v1/namespaces/{namespace}")
    labels = ((found or {}).get("metadata") or {}).get("labels") or {}
    return Space(namespace, found is not None, labels.get(ENFORCE, ""))


async def try_pod(client: ObjectClient, namespace: str) -> Trial:
    """Have the API server judge the agent's pod in a namespace, without making it.

    Raises:
        ApiError: it may not be asked.
    """
    pod = agent_pod(namespace, "svcmesh-check", PLACEHOLDER, ["run"], {})
    try:
        await client.submit(f"/api/v1/namespaces/{namespace}/pods", pod, dryRun="All")
    except Conflict:
        return Trial("unknown", "a pod of the name svcmesh-check is there")
    except ApiError as error:
        if not error.failure.status or error.failure.kind in UNREACHABLE or _not_about_the_pod(error):
            raise
        return Trial("refused", error.failure.reason)
    return Trial("admitted")


def _not_about_the_pod(error: ApiError) -> bool:
    """Whether a refusal says nothing of the pod itself, as where there is no right to make one."""
    reason = error.failure.reason
    return error.failure.status >= 500 or "cannot create resource" in reason or NO_ACCOUNT in reason


async def read_installed(client: ObjectClient) -> list[str]:
    """Return what there is of the mesh: its DaemonSets, and the roles of an earlier one.

    Raises:
        ApiError: they cannot be listed.
    """
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    places = (
        ("DaemonSet", "/apis/apps/v1/daemonsets"),
        ("ClusterRole", f"{rbac}/clusterroles"),
        ("ClusterRoleBinding", f"{rbac}/clusterrolebindings"),
    )
    found = []
    for kind, path in places:
        for document in await client.items(path, labelSelector=SELECTOR) or ():
            metadata = document.get("metadata") or {}
            name = "/".join(filter(None, (metadata.get("namespace"), metadata.get("name"))))
            found.append(f"{kind} {name}")
    return found


async def read_service_addresses(client: ObjectClient) -> ServiceAddresses:
    """Return the ranges of ClusterIPs if the server has ServiceCIDRs (1.33 and newer), else the ClusterIPs.

    Raises:
        ApiError: neither can be listed.
    """
    for version in ("v1", "v1beta1"):
        found = await known(client.items(f"/apis/networking.k8s.io/{version}/servicecidrs"))
        if isinstance(found, list) and found:
            ranges = (cidr for one in found for cidr in (one.get("spec") or {}).get("cidrs") or ())
            return ServiceAddresses(ranges=tuple(sorted(set(ranges))))
    services = await client.items("/api/v1/services") or ()
    specs = [service.get("spec") or {} for service in services]
    addresses = {one for spec in specs for one in spec.get("clusterIPs") or [spec.get("clusterIP")] if one}
    return ServiceAddresses(addresses=tuple(sorted(addresses - {"None"})))


async def read_pod_addresses(client: ObjectClient) -> list[str]:
    """Return the addresses of some pods that have their own.

    Raises:
        ApiError: they cannot be listed.
    """
    found = await client.get("/api/v1/pods", limit=SOME_PODS) or {}
    return [
        address["ip"]
        for pod in found.get("items") or ()
        if not (pod.get("spec") or {}).get("hostNetwork")
        for address in (pod.get("status") or {}).get("podIPs") or ()
        if address.get("ip")
    ]


async def read_dns_fact(client: ObjectClient, target: Target) -> DnsFact:
    """Return how the cluster's DNS is laid out, and what its pods answer.

    Raises:
        ApiError: its ConfigMaps cannot be read.
    """
    dns = await read_dns(client)
    try:
        plan = plan_install(dns, target.stub)
    except (LayoutNotUnderstood, CorefileNotUnderstood) as error:
        return DnsFact(obstacle=str(error))
    places = tuple(f"ConfigMap {NAMESPACE}/{place.configmap}" for place in plan.places)

    async def ask() -> tuple[Sight, ...]:
        respondents = await find_respondents(client, dns, plan.places)
        return await look(client, respondents, target.stub.zones)

    return DnsFact(places, installed=not plan.changes, sights=await known(ask()))


async def read_daemonset_states(client: ObjectClient, namespace: str) -> tuple[DaemonSetState, ...]:
    """Return the agents' DaemonSets.

    Raises:
        ApiError: they cannot be listed.
    """
    return await read_daemonsets(client, namespace, SELECTOR)


async def find_mesh_name(client: ObjectClient, zone: str) -> str:
    """Return the mesh name of a Service that asks for the mesh and has a ClusterIP; empty if there is none.

    Raises:
        ApiError: Services cannot be listed.
    """
    for service in await client.items("/api/v1/services") or ():
        metadata, spec = service.get("metadata") or {}, service.get("spec") or {}
        enabled = (metadata.get("annotations") or {}).get(ENABLED) == "true"
        if enabled and spec.get("clusterIP") not in (None, "", "None"):
            return f"{metadata['name']}.{metadata['namespace']}.{zone}"
    return ""


async def read_agent_facts(client: ObjectClient, target: Target, name: str) -> list[AgentFact]:
    """Return every agent with what it says of itself and of a name.

    Raises:
        ApiError: the pods cannot be listed.
    """
    inside = f"/namespaces/{target.namespace}" if target.namespace else ""
    ended = "status.phase!=Succeeded,status.phase!=Failed"
    found = await client.items(f"/api/v1{inside}/pods", labelSelector=SELECTOR, fieldSelector=ended)
    facts = await asyncio.gather(*(_read_agent(client, one, name) for one in found or ()))
    return sorted(facts, key=lambda fact: (fact.status.node, fact.status.pod))


async def _read_agent(client: ObjectClient, document: Document, name: str) -> AgentFact:
    pod = read_pod(document)
    if not_running := why_unanswered(pod):
        page = Page(error=not_running)
        return AgentFact(read_status(AgentPages(pod, page, page)), resolved=Unknown(not_running))
    resolve = wanted("/resolve", {"name": name} if name else {})
    readyz, resolved, metrics = await client.agent_pages(pod, admin_port(pod), READYZ, resolve, METRICS)
    return AgentFact(
        read_status(AgentPages(pod, readyz, metrics)),
        read_worker_plans(metrics),
        read_capture(readyz),
        read_resolution(resolved),
    )


def read_resolution(page: Page) -> Resolution | Unknown:
    """Read what `/resolve` answers; an agent that does not have the page is older than this check."""
    if page.error:
        return Unknown(page.error)
    if page.status == 404:
        return Unknown("the agent is older than this check")
    if page.status != 200:
        return Unknown(" ".join(page.text.split())[:200] or f"the agent answers {page.status}")
    try:
        return _resolution_decoder.decode(page.text.encode())
    except UNREADABLE as error:
        return Unknown(f"the agent's answer is not understood: {error}")
