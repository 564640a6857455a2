"""The agents of a cluster and what they answer, by port forwarding through the API server.

With an ordinary kubeconfig; needs `list` on `pods`, and `get` and `create` on `pods/portforward`, in the
agents' namespace if it is known, or else in all. Port forwarding ends at the loopback address of the agent's
node, where all its pages are shown. If it cannot be had, the API server's pod proxy (`get` on `pods/proxy`)
is tried: agents show health and metrics to everybody, and older ones all pages. What an agent answers and
what the API server answers in its place are told apart by the body: the latter is a `Status`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from discovery.kube.commands.forwarding import forward, get
from discovery.kube.commands.listing import list_items
from discovery.kube.commands.reading import PATIENCE, Cluster, connect
from discovery.kube.commands.waiting import why_not_running
from discovery.kube.connection import Connection
from discovery.kube.failure import UNREADABLE, ApiError
from discovery.kube.resource import Resource
from discovery.model import PodKey

AT_ONCE = 16
"""Requests under way, so that a large cluster is read in seconds and its API server does not notice."""
PAGE_BYTES = 256 * 1024
"""Of a page that is read: an agent's own numbers come first, those of thousands of Services after them."""
WHOLE_PAGE = 64 * 1024 * 1024
"""For those who need all of a page."""
SAID = 300
"""Characters of what an agent says when it refuses a page."""


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


class Wanted(msgspec.Struct, frozen=True):
    """A page to ask for: `/readyz?verbose=1`."""

    target: str
    limit: int = PAGE_BYTES
    """Bytes of its body that are read."""


def wanted(path: str, query: Mapping[str, str] = {}, limit: int = PAGE_BYTES) -> Wanted:
    """Return a page to ask for, the query written as it has to be in a URL."""
    return Wanted(path + (f"?{urlencode(query)}" if query else ""), limit)


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


READYZ: Final = wanted("/readyz", {"verbose": "1"})
METRICS: Final = wanted("/metrics")
"""Ask for it last: where it is long, only its start is read, which uses up the connection."""


class _Status(msgspec.Struct):
    kind: str = ""
    message: str = ""


_status_decoder = msgspec.json.Decoder(_Status)


async def read_agents(
    cluster: Cluster, *, namespace: str, selector: str, port_of: Callable[[AgentPod], int], node: str = ""
) -> tuple[AgentPages, ...]:
    """Return all agents of a namespace and a node (empty: of all), by node and name.

    `port_of` tells where an agent's pages are. One that cannot be reached says so in its pages.

    Raises:
        SourceError: the pods cannot be listed; the message says why.
    """
    async with connect(cluster, AT_ONCE) as connection:
        pods = await list_agents(connection, namespace, selector)
        reader = AgentReader(connection)
        meant = (pod for pod in pods if pod.node == (node or pod.node))
        reading = (_read_agent(reader, pod, port_of(pod)) for pod in meant)
        agents = await asyncio.gather(*reading)
    return tuple(sorted(agents, key=lambda agent: (agent.pod.node, agent.pod.name)))


async def list_agents(connection: Connection, namespace: str, selector: str) -> list[AgentPod]:
    """Return the pods with these labels of a namespace (empty: of all) that have not ended.

    Raises:
        SourceError: they cannot be listed; the message says why.
    """
    resource = Resource(
        "Pod",
        "v1",
        f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods",
        PodKey,
        label_selector=selector,
        field_selector="status.phase!=Succeeded,status.phase!=Failed",
    )
    return [read_pod(item) async for items in list_items(connection, resource) for item in items]


async def _read_agent(reader: AgentReader, pod: AgentPod, port: int) -> AgentPages:
    if not_running := why_unanswered(pod):
        page = Page(error=not_running)
        return AgentPages(pod, page, page)
    return AgentPages(pod, *await reader.pages(pod, port, READYZ, METRICS))


class AgentReader:
    """Reads pages of agents, `AT_ONCE` agents at the same time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._forbidden: dict[str, ApiError] = {}
        """Namespaces in which port forwarding is refused: it is tried there once."""

    async def pages(self, pod: AgentPod, port: int, *wanted: Wanted) -> tuple[Page, ...]:
        """Return what came for each page of one agent; never raises for a failure."""
        async with self._turns:
            found: list[Page] = []
            while len(found) < len(wanted):
                before = len(found)
                try:
                    await self._forward(pod, port, wanted[before:], found)
                except ApiError as error:
                    found += [await self._by_proxy(pod, port, one, error) for one in wanted[len(found) :]]
            return tuple(found)

    async def _forward(self, pod: AgentPod, port: int, wanted: Sequence[Wanted], found: list[Page]) -> None:
        """Add pages to `found` until one is too long to read to its end: then the connection is used up.

        Raises:
            ApiError: the next page cannot be had in this way.
        """
        if (known := self._forbidden.get(pod.namespace)) is not None:
            raise known
        patience = PATIENCE.answer
        try:
            async with forward(self._connection, pod.namespace, pod.name, port, patience) as forwarded:
                for one in wanted:
                    said = await get(forwarded, one.target, one.limit)
                    found.append(Page(said.status, said.body.decode("utf-8", "replace"), said.whole))
                    if not said.reusable:
                        return
        except ApiError as error:
            if error.failure.kind == "forbidden":
                self._forbidden[pod.namespace] = error
            raise

    async def _by_proxy(self, pod: AgentPod, port: int, one: Wanted, failed: ApiError) -> Page:
        """Return the page that the pod proxy brings, or else why neither way leads to it."""
        path, _, query = one.target.partition("?")
        proxy = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}:{port}/proxy{path}"
        page = await read_page(self._connection, proxy, dict(parse_qsl(query)), one.limit)
        if page.error:
            return Page(page.status, error=f"{failed.failure.reason}; by the pod proxy: {page.error}")
        if page.status == 403:
            said = " ".join(page.text.split())[:SAID]
            return Page(403, error=f"{failed.failure.reason}; by the pod proxy the agent says: {said}")
        return page


def why_unanswered(pod: AgentPod) -> str:
    """Return why a pod need not be asked for its pages; empty if it runs."""
    if pod.leaving:
        return "the pod is ending"
    if pod.waits:
        return pod.waits
    return "" if pod.phase == "Running" else f"the pod is {pod.phase or 'not there yet'}"


async def read_page(
    connection: Connection, path: str, query: Mapping[str, str], limit: int = PAGE_BYTES
) -> Page:
    """Return what came for a page of a pod, through the API server's proxy; never raises for a failure."""
    try:
        status, body = await connection.read_start(path, query, limit)
    except ApiError as error:
        return Page(error=error.failure.reason)
    try:
        said = _status_decoder.decode(body)
    except UNREADABLE:
        return Page(status, body.decode("utf-8", "replace"), len(body) < limit)
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
