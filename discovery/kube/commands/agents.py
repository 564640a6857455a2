"""The agents of a cluster and what they answer, through the API server's pod proxy.

With an ordinary kubeconfig; needs `list` on `pods` and `get` on `pods/proxy`, in the agents' namespace if it
is known, or else in all. What an agent answers and what the API server answers in its place are told apart by
the body: the latter is a `Status`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from discovery.kube.commands.listing import list_items
from discovery.kube.commands.reading import Cluster, connect
from discovery.kube.commands.waiting import why_not_running
from discovery.kube.connection import Connection
from discovery.kube.failure import UNREADABLE, ApiError
from discovery.kube.resource import Resource
from discovery.model import PodKey

AT_ONCE = 16
"""Requests under way, so that a large cluster is read in seconds and its API server does not notice."""
PAGE_BYTES = 256 * 1024
"""Of a page that is read: an agent's own numbers come first, those of thousands of Services after them."""


class AgentPod(msgspec.Struct, frozen=True):
    """A pod of the agents' DaemonSet."""

    name: str
    node: str
    """Empty while no node is found for it."""
    phase: str
    leaving: bool
    """Whether it has been told to end."""
    namespace: str = ""
    environment: Mapping[str, str] = {}
    """The variables of its containers that are written out in the pod."""
    waits: str = ""
    """Why it does not run, as far as its status tells: `ErrImagePull: ...`."""


class Page(msgspec.Struct, frozen=True):
    """What came for one page: a status code and text, or why there was no answer of the agent's."""

    status: int = 0
    text: str = ""
    whole: bool = True
    error: str = ""


class AgentPages(msgspec.Struct, frozen=True):
    """An agent and its pages."""

    pod: AgentPod
    readyz: Page
    """`/readyz?verbose`."""
    metrics: Page
    """`/metrics`, its start."""


class _Status(msgspec.Struct):
    kind: str = ""
    message: str = ""


_status_decoder = msgspec.json.Decoder(_Status)


async def read_agents(
    cluster: Cluster, *, namespace: str, selector: str, port_of: Callable[[AgentPod], int]
) -> tuple[AgentPages, ...]:
    """Return all agents of a namespace (empty: of all), by node and name.

    `port_of` tells where an agent's pages are. One that cannot be reached says so in its pages.

    Raises:
        SourceError: the pods cannot be listed; the message says why.
    """
    resource = Resource(
        "Pod",
        "v1",
        f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods",
        PodKey,
        label_selector=selector,
        field_selector="status.phase!=Succeeded,status.phase!=Failed",
    )
    async with connect(cluster, AT_ONCE) as connection:
        pods = [read_pod(item) async for items in list_items(connection, resource) for item in items]
        reading = (_read_agent(connection, pod, port_of(pod)) for pod in pods)
        agents = await asyncio.gather(*reading)
    return tuple(sorted(agents, key=lambda agent: (agent.pod.node, agent.pod.name)))


async def _read_agent(connection: Connection, pod: AgentPod, port: int) -> AgentPages:
    if not_running := why_unanswered(pod):
        page = Page(error=not_running)
        return AgentPages(pod, page, page)
    proxy = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}:{port}/proxy"
    readyz, metrics = await asyncio.gather(
        read_page(connection, f"{proxy}/readyz", {"verbose": "1"}),
        read_page(connection, f"{proxy}/metrics", {}),
    )
    return AgentPages(pod, readyz, metrics)


def why_unanswered(pod: AgentPod) -> str:
    """Return why a pod need not be asked for its pages; empty if it runs."""
    if pod.leaving:
        return "the pod is ending"
    if pod.waits:
        return pod.waits
    return "" if pod.phase == "Running" else f"the pod is {pod.phase or 'not there yet'}"


async def read_page(connection: Connection, path: str, query: Mapping[str, str]) -> Page:
    """Return what came for a page of a pod, through the API server's proxy; never raises for a failure."""
    try:
        status, body = await connection.read_start(path, query, PAGE_BYTES)
    except ApiError as error:
        return Page(error=error.failure.reason)
    try:
        said = _status_decoder.decode(body)
    except UNREADABLE:
        return Page(status, body.decode("utf-8", "replace"), len(body) < PAGE_BYTES)
    if said.kind == "Status":
        return Page(status, error=said.message or f"the API server answers {status}")
    return Page(status, body.decode("utf-8", "replace"))


def read_pod(document: Mapping[str, Any]) -> AgentPod:
    """Read a pod; what is missing or of another type counts as empty."""
    metadata, spec, status = (_mapping(document, name) for name in ("metadata", "spec", "status"))
    return AgentPod(
        name=_text(metadata, "name"),
        node=_text(spec, "nodeName"),
        phase=_text(status, "phase"),
        leaving="deletionTimestamp" in metadata,
        namespace=_text(metadata, "namespace"),
        environment=dict(_environment(spec)),
        waits=why_not_running(document),
    )


def _environment(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for container in _mappings(spec, "containers"):
        for variable in _mappings(container, "env"):
            if value := _text(variable, "value"):
                yield _text(variable, "name"), value


def _mappings(document: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    found = document.get(name)
    if isinstance(found, list):
        yield from (one for one in found if isinstance(one, Mapping))


def _mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, Mapping) else {}


def _text(mapping: Mapping[str, Any], name: str) -> str:
    value = mapping.get(name)
    return value if isinstance(value, str) else ""
