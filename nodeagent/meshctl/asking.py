"""Asking agents for a page: those of a cluster through the API server, or those at addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

import aiohttp
import msgspec

from discovery.kube.commands.agents import WHOLE_PAGE, AgentPod, read_pod, wanted, why_unanswered
from discovery.kube.commands.objects import ObjectClient, open_objects
from discovery.kube.failure import ApiError
from discovery.source import SourceError
from nodeagent.meshctl.admin_port import admin_port

PATIENCE: Final = aiohttp.ClientTimeout(total=15.0, connect=5.0)
"""For an agent that is asked at its address."""

T = TypeVar("T")


class Answer(msgspec.Struct, frozen=True):
    """What one agent said, or why it did not."""

    node: str
    """Empty where only the answer tells it."""
    agent: str
    """The pod, or the address."""
    text: str = ""
    reason: str = ""
    """Why there is no text."""


class Agents(Protocol):
    """Some agents."""

    async def ask(self, path: str, query: Mapping[str, str], one: str = "") -> list[Answer]:
        """Ask all agents for a page, or only `one`: a node, a pod or an address.

        Raises:
            SourceError: it is not known which agents there are; the message says why.
        """

    async def names(self) -> list[str]:
        """Return what each of the agents that run is called in `ask`.

        Raises:
            SourceError: it is not known which agents there are; the message says why.
        """


class WhichAgents(msgspec.Struct, frozen=True):
    """Which agents are meant, as the options of a command say."""

    urls: tuple[str, ...] = ()
    """Addresses of agents; if there are any, no cluster is asked."""
    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    """Where the agents run; empty: anywhere."""
    selector: str = ""
    """Labels of their pods; empty: all pods."""


class ClusterAgents:
    """The agents of a cluster."""

    def __init__(self, client: ObjectClient, which: WhichAgents) -> None:
        self._client = client
        self._which = which

    async def ask(self, path: str, query: Mapping[str, str], one: str = "") -> list[Answer]:
        """Ask all agents for a page, or only `one`: a node or a pod."""
        pods = await self._pods()
        if one:
            pods = [pod for pod in pods if one in (pod.node, pod.name)]
        answers = await asyncio.gather(*(self._ask_one(pod, path, query) for pod in pods))
        return sorted(answers, key=lambda answer: (answer.node, answer.agent))

    async def names(self) -> list[str]:
        """Return the names of the pods that run."""
        return [pod.name for pod in await self._pods() if not why_unanswered(pod)]

    async def _pods(self) -> list[AgentPod]:
        namespace = self._which.namespace
        folder = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
        fields = "status.phase!=Succeeded,status.phase!=Failed"
        try:
            found: list[dict[str, Any]] = (
                await self._client.items(folder, labelSelector=self._which.selector, fieldSelector=fields)
                or []
            )
        except ApiError as error:
            raise SourceError(f"cannot list the agents' pods: {error.failure.reason}") from error
        pods = (pod for pod in map(read_pod, found) if not pod.leaving)
        return sorted(pods, key=lambda pod: (pod.node, pod.name))

    async def _ask_one(self, pod: AgentPod, path: str, query: Mapping[str, str]) -> Answer:
        if not_running := why_unanswered(pod):
            return Answer(pod.node, pod.name, reason=not_running)
        (page,) = await self._client.agent_pages(pod, admin_port(pod), wanted(path, query, WHOLE_PAGE))
        if page.error:
            return Answer(pod.node, pod.name, reason=page.error)
        if page.status != 200:
            return Answer(pod.node, pod.name, reason=_refusal(page.status, page.text))
        if not page.whole:
            return Answer(pod.node, pod.name, reason=f"{path} is longer than {WHOLE_PAGE >> 20} MiB")
        return Answer(pod.node, pod.name, page.text)


class AddressedAgents:
    """Agents at addresses that somebody gave."""

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str]) -> None:
        self._session = session
        self._urls = urls

    async def ask(self, path: str, query: Mapping[str, str], one: str = "") -> list[Answer]:
        """Ask all agents for a page, or only the one at the address `one`."""
        urls = [url for url in self._urls if url == (one or url)]
        return await asyncio.gather(*(self._ask_one(url, path, query) for url in urls))

    async def names(self) -> list[str]:
        """Return the addresses."""
        return list(self._urls)

    async def _ask_one(self, url: str, path: str, query: Mapping[str, str]) -> Answer:
        try:
            async with self._session.get(url.rstrip("/") + path, params=query) as response:
                text = await response.text("utf-8", "replace")
        except TimeoutError:
            return Answer("", url, reason=f"no answer within {PATIENCE.total:g} s")
        except (aiohttp.ClientError, ValueError, OSError) as error:
            return Answer("", url, reason=str(error) or type(error).__name__)
        if response.status != 200:
            return Answer("", url, reason=_refusal(response.status, text))
        return Answer("", url, text)


def _refusal(status: int, text: str) -> str:
    return f"it answers {status}: {text[:200].strip()}"


@asynccontextmanager
async def open_agents(which: WhichAgents) -> AsyncIterator[Agents]:
    """Give the agents that are meant.

    Raises:
        SourceError: there is no usable configuration of a cluster; the message says why.
    """
    if which.urls:
        async with aiohttp.ClientSession(timeout=PATIENCE) as session:
            yield AddressedAgents(session, which.urls)
        return
    async with open_objects(which.kubeconfig, which.context) as client:
        yield ClusterAgents(client, which)
