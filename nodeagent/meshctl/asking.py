"""Asking agents for a page: those of a cluster through the API server, or those at addresses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import aiohttp
import msgspec

from discovery.kube.commands.agents import WHOLE_PAGE, AgentPod, read_pod, wanted, why_unanswered
from discovery.kube.commands.objects import ObjectClient, open_objects
from discovery.kube.failure import ApiError
from discovery.source import SourceError
from nodeagent.meshctl.admin_port import admin_port

PATIENCE: Final = aiohttp.ClientTimeout(total=15.0, connect=5.0)
"""For an agent that is asked at its address."""

MOST_TRIED: Final = 5
"""How many agents are asked, at most, for what any of them can tell."""


class Untold(SourceError):
    """There is no agent, or none of those that were asked answers; the message says why."""


class Answer(msgspec.Struct, frozen=True):
    """What one agent said, or why it did not."""

    node: str
    """Empty where only the answer tells it."""
    agent: str
    """The pod, or the address."""
    text: str = ""
    reason: str = ""
    """Why there is no page: then `text` is what it says of that, if it says anything."""
    namespace: str = ""
    """Of the pod."""
    status: int = 0
    """The status of HTTP; 0: the agent has not answered."""


class Agents(Protocol):
    """Some agents."""

    @property
    def none(self) -> str:
        """What to say if there are none."""

    async def ask(self, path: str, query: Mapping[str, str], one: str = "") -> list[Answer]:
        """Ask all agents for a page, or only `one`: a node, a pod or an address.

        Raises:
            SourceError: it is not known which agents there are; the message says why.
        """

    async def places(self) -> list[Answer]:
        """Return all agents, those that do not run too, each with no answer.

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
    node: str = ""
    """Only the agent of this node; empty: those of all."""

    @property
    def none(self) -> str:
        """What to say if there are no such agents."""
        where = f"namespace {self.namespace}" if self.namespace else "any namespace"
        on = f" on {self.node}" if self.node else ""
        return f"no agents: no pod in {where}{on} matches {self.selector}"

    def meant(self, pods: Iterable[AgentPod]) -> list[AgentPod]:
        """Return the pods on the chosen node, or all, sorted by node and name."""
        return sorted(
            (pod for pod in pods if pod.node == (self.node or pod.node)),
            key=lambda pod: (pod.node, pod.name),
        )


class ClusterAgents:
    """The agents of a cluster."""

    def __init__(self, client: ObjectClient, which: WhichAgents) -> None:
        self._client = client
        self._which = which

    @property
    def none(self) -> str:
        """What to say if there are none."""
        return self._which.none

    async def ask(self, path: str, query: Mapping[str, str], one: str = "") -> list[Answer]:
        """Ask all agents for a page, or only `one`: a node or a pod."""
        pods = await self._pods()
        if one:
            pods = [pod for pod in pods if one in (pod.node, pod.name)]
        answers = await asyncio.gather(*(self._ask_one(pod, path, query) for pod in pods))
        return sorted(answers, key=lambda answer: (answer.node, answer.agent))

    async def places(self) -> list[Answer]:
        """Return the pods, each with no answer."""
        return [Answer(pod.node, pod.name, namespace=pod.namespace) for pod in await self._pods()]

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
        return self._which.meant(pod for pod in map(read_pod, found) if not pod.leaving)

    async def _ask_one(self, pod: AgentPod, path: str, query: Mapping[str, str]) -> Answer:
        said = Answer(pod.node, pod.name, namespace=pod.namespace)
        if not_running := why_unanswered(pod):
            return msgspec.structs.replace(said, reason=not_running)
        (page,) = await self._client.agent_pages(pod, admin_port(pod), wanted(path, query, WHOLE_PAGE))
        if page.error:
            return msgspec.structs.replace(said, reason=page.error)
        if not page.whole:
            return msgspec.structs.replace(said, reason=f"{path} is longer than {WHOLE_PAGE >> 20} MiB")
        return _answered(said, path, page.status, page.text)


class AddressedAgents:
    """Agents at addresses that somebody gave."""

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str]) -> None:
        self._session = session
        self._urls = urls
        self.none = "no agents: no address was given"

    async def ask(self, path: str, query: Mapping[str, str], one: str = "") -> list[Answer]:
        """Ask all agents for a page, or only the one at the address `one`."""
        urls = [url for url in self._urls if url == (one or url)]
        return await asyncio.gather(*(self._ask_one(url, path, query) for url in urls))

    async def places(self) -> list[Answer]:
        """Return the addresses, each with no answer."""
        return [Answer("", url) for url in self._urls]

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
            return Answer("", url, reason=why_no_answer(error))
        return _answered(Answer("", url), path, response.status, text)


def why_no_answer(error: Exception) -> str:
    """Return why an agent at an address does not answer, in the system's words where it has some."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def _answered(said: Answer, path: str, status: int, text: str) -> Answer:
    reason = "" if status == 200 else f"it answers {status}: {' '.join(text[:200].split())}"
    if status == 404:
        reason = f"it has no page {path}: it is of another version"
    return msgspec.structs.replace(said, text=text, reason=reason, status=status)


async def ask_any(agents: Agents, path: str, query: Mapping[str, str], others: Container[int] = ()) -> Answer:
    """Return what the first agent says that answers with 200, or with one of `others`.

    They are asked one after another, `MOST_TRIED` at most.

    Raises:
        Untold: there is no agent, or none of those that were asked answers.
        SourceError: it is not known which agents there are.
    """
    failed = None
    for name in (await agents.names())[:MOST_TRIED]:
        for answer in await agents.ask(path, query, name):
            if not answer.reason or answer.status in others:
                return answer
            failed = failed or answer
    if failed is None:  # none runs: then this asks nobody, and tells why
        failed = next(iter(await agents.ask(path, query)), None)
    if failed is None:
        raise Untold(agents.none)
    raise told_by_none(path, failed.node, failed.agent, failed.reason)


def told_by_none(path: str, node: str, agent: str, reason: str) -> Untold:
    """Return the error that says that no agent tells a page, and of one of them why."""
    return Untold(f"no agent tells {path}: {agent}{node and f' on {node}'}: {reason}")


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
