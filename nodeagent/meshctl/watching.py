"""Live requests from the agents of all nodes, merged: what `meshctl tap` and `meshctl dashboard` show.

Each agent's page `/tap` is read by port forwarding, since it is shown at the node's loopback address only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from typing import Any, Final

import aiohttp
import msgspec
import yarl

from discovery.kube.commands.agents import AgentPod, list_agents, why_unanswered
from discovery.kube.commands.forwarding import forward, get_lines
from discovery.kube.commands.reading import Cluster, connect
from discovery.kube.connection import Connection
from discovery.kube.failure import ApiError
from nodeagent.meshctl.admin_port import admin_port
from nodeagent.meshctl.asking import WhichAgents, why_no_answer

PATIENCE: Final = 20.0
"""Seconds without a byte from an agent, which sends a sign of life every five."""
CONNECT: Final = 5.0
"""Seconds until an agent at an address has accepted the connection."""
LONGEST_LINE: Final = 256 * 1024
NO_LIMIT: Final = 0
"""Of connections to the API server at once: each agent's stays open."""
MOST_WAITING: Final = 1000
"""Lines of all agents that wait to be shown: with more, agents wait, and count what they leave out."""


class Line(msgspec.Struct, frozen=True):
    """A line of an agent, or (`error`) why there are no more."""

    node: str
    fields: dict[str, Any] = {}
    error: str = ""


def watch_agents(which: WhichAgents, target: str, one: str = "") -> AsyncGenerator[Line, None]:
    """Yield the lines of agents for a path `/tap?...`, until none can be watched any more.

    `one`: only of this one, as `nodeagent.meshctl.asking.Agents.ask` takes it.

    Raises:
        SourceError: it is not known which agents there are.
        ApiError: the same.
    """
    if which.urls:
        return _watch_addresses([url for url in which.urls if url == (one or url)], target)
    return _watch_pods(which, target, one)


async def _watch_pods(which: WhichAgents, target: str, one: str) -> AsyncGenerator[Line, None]:
    """Yield the lines of the agents of a cluster until none can be watched any more."""
    queue: asyncio.Queue[Line] = asyncio.Queue(MOST_WAITING)
    async with connect(Cluster(which.kubeconfig, which.context), limit=NO_LIMIT) as connection:
        listed = await list_agents(connection, which.namespace, which.selector)
        pods = [pod for pod in which.meant(listed) if not pod.leaving and one in ("", pod.node, pod.name)]
        if not pods:
            yield Line("meshctl", error=which.none)
            return
        async with contextlib.aclosing(
            _merge(queue, [_follow(connection, pod, target, queue) for pod in pods])
        ) as lines:
            async for line in lines:
                yield line


async def _watch_addresses(urls: Sequence[str], target: str) -> AsyncGenerator[Line, None]:
    """Yield the lines of the agents at addresses until none can be watched any more."""
    queue: asyncio.Queue[Line] = asyncio.Queue(MOST_WAITING)
    patience = aiohttp.ClientTimeout(total=None, connect=CONNECT, sock_read=PATIENCE)
    async with (
        aiohttp.ClientSession(timeout=patience, read_bufsize=LONGEST_LINE) as session,
        contextlib.aclosing(
            _merge(queue, [_follow_url(session, url, target, queue) for url in urls])
        ) as lines,
    ):
        async for line in lines:
            yield line


async def _merge(
    queue: asyncio.Queue[Line], follow: Iterable[Coroutine[Any, Any, None]]
) -> AsyncGenerator[Line, None]:
    """Yield what is put into the queue until nobody follows an agent any more."""
    following = {asyncio.create_task(one) for one in follow}
    coming = asyncio.create_task(queue.get())
    try:
        while following or coming.done() or not queue.empty():
            await asyncio.wait({coming, *following}, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                yield coming.result()
                coming = asyncio.create_task(queue.get())
            for task in [one for one in following if one.done()]:
                following.remove(task)
                task.result()
    finally:
        for one in (coming, *following):
            one.cancel()
        await asyncio.gather(coming, *following, return_exceptions=True)


async def _follow(connection: Connection, pod: AgentPod, target: str, queue: asyncio.Queue[Line]) -> None:
    """Put the lines of one agent into the queue; ask again when its longest time is over."""
    place = pod.node or pod.name
    if not_running := why_unanswered(pod):
        await queue.put(Line(place, error=not_running))
        return
    try:
        while True:
            async with forward(connection, pod.namespace, pod.name, admin_port(pod), PATIENCE) as forwarded:
                async for line in get_lines(forwarded, target, LONGEST_LINE):
                    await _put(queue, place, line)
    except ApiError as error:
        await queue.put(Line(place, error=error.failure.reason))
    except msgspec.DecodeError as error:
        await queue.put(Line(place, error=f"the agent's answer is no JSON: {error}"))


async def _follow_url(
    session: aiohttp.ClientSession, url: str, target: str, queue: asyncio.Queue[Line]
) -> None:
    """Put the lines of the agent at an address into the queue; ask again when its longest time is over."""
    try:
        while True:
            async with session.get(yarl.URL(url.rstrip("/") + target, encoded=True)) as response:
                if response.status != 200:
                    said = " ".join((await response.text("utf-8", "replace"))[:200].split())
                    await queue.put(Line(url, error=f"it answers {response.status}: {said}"))
                    return
                async for line in response.content:
                    await _put(queue, url, line.strip())
    except TimeoutError:
        await queue.put(Line(url, error=f"nothing came for {PATIENCE:g} s"))
    except (aiohttp.ClientError, ValueError, OSError) as error:
        await queue.put(Line(url, error=why_no_answer(error)))
    except msgspec.DecodeError as error:
        await queue.put(Line(url, error=f"the agent's answer is no JSON: {error}"))


async def _put(queue: asyncio.Queue[Line], place: str, line: bytes) -> None:
    """Put a line into the queue, unless it only says that the agent is alive or ends its answer."""
    fields = msgspec.json.decode(line, type=dict[str, Any]) if line else {"ended": ""}
    if "ended" not in fields:
        await queue.put(Line(place, fields))
