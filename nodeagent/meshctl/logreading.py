"""Reads the logs of all agents for `meshctl logs`: once, or followed as they grow and agents come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from discovery.kube.commands.agents import AgentPod, list_agents
from discovery.kube.commands.pod_logs import Since, read_log
from discovery.kube.connection import Connection
from discovery.kube.failure import ApiError
from discovery.source import SourceError
from nodeagent.meshctl.asking import WhichAgents
from nodeagent.meshctl.logs import LogLine, Merge, Newest, Wanted

AT_ONCE: Final = 16
"""Logs that are read at the same time, if they are read once."""
MOST_FOLLOWED: Final = 200
"""Agents that are followed: each is a connection to the API server."""
LOOK_EVERY: Final = 5.0
"""Seconds between two looks at which agents there are, while they are followed."""
MOST_TOLD: Final = 1000
"""Failures that are remembered, so that each is told once."""
WINDOW: Final = 0.5
"""Seconds that a followed line is held for older ones of other agents."""
MOST_HELD: Final = 10_000
"""Lines that are held for that; beyond it they are printed as they come."""
WAITING: Final = 1000
"""Lines that wait for the printer: then agents' logs are read no further until it has caught up."""


class LogFailure(msgspec.Struct, frozen=True):
    """Why the log of an agent is not shown, or not shown to its end."""

    node: str
    pod: str
    reason: str


class TooManyAgents(Exception):
    """More agents than can be followed; the message says what to do."""


async def find_agents(connection: Connection, agents: WhichAgents) -> list[AgentPod]:
    """Return the pods that are meant, by node and name.

    Raises:
        SourceError: they cannot be listed.
    """
    pods = await list_agents(connection, agents.namespace, agents.selector)
    return agents.meant(pod for pod in pods if pod.node)


class LogReader:
    """Reads logs of agents; remembers how far each was read."""

    def __init__(self, connection: Connection, wanted: Wanted, since: float) -> None:
        self._connection = connection
        self._wanted = wanted
        self._since = since
        self._last: dict[str, str] = {}
        """By pod: the stamp of the last line that was read, of whatever Service."""

    async def read_once(self, pods: list[AgentPod], newest: Newest) -> list[LogFailure]:
        """Put the lines of these agents into `newest`; return which logs could not be read."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def read(pod: AgentPod) -> LogFailure | None:
            async with turns:
                try:
                    await self._read(pod, newest.add)
                except ApiError as error:
                    return LogFailure(pod.node, pod.name, error.failure.reason)
                return None

        found = await asyncio.gather(*map(read, pods))
        return [failure for failure in found if failure is not None]

    async def follow(
        self, agents: WhichAgents, show: Callable[[LogLine], None], tell: Callable[[LogFailure], None]
    ) -> None:
        """Show what agents write from where they were read to, until cancelled. Each failure is told once.

        Raises:
            TooManyAgents: there are more than `MOST_FOLLOWED`.
            SourceError: agents could not be listed at the beginning.
        """
        lines: asyncio.Queue[LogLine] = asyncio.Queue(WAITING)
        check_number(await find_agents(self._connection, agents))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_following(agents, lines, tell))
                group.create_task(_print_in_order(lines, show))
        except* OSError as group_of_errors:
            # Nobody reads what is shown any more: an ordinary end, as of `meshctl logs -f | head`.
            raise group_of_errors.exceptions[0] from None

    async def _keep_following(
        self, agents: WhichAgents, lines: asyncio.Queue[LogLine], tell: Callable[[LogFailure], None]
    ) -> None:
        told: set[LogFailure] = set()
        running: dict[str, asyncio.Task[None]] = {}

        def say(failure: LogFailure) -> None:
            if failure not in told:
                if len(told) >= MOST_TOLD:
                    told.clear()
                told.add(failure)
                tell(failure)

        async def follow(pod: AgentPod) -> None:
            try:
                await self._read(pod, lines.put, follow=True)
            except ApiError as error:
                say(LogFailure(pod.node, pod.name, error.failure.reason))

        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    pods = await find_agents(self._connection, agents)
                    for pod in pods[:MOST_FOLLOWED]:
                        task = running.get(_key(pod))
                        if task is None or task.done():
                            running[_key(pod)] = group.create_task(follow(pod))
                    gone = running.keys() - set(map(_key, pods))
                    for name in [name for name in gone if running[name].done()]:
                        del running[name]
                        self._last.pop(name, None)
                except SourceError as error:
                    say(LogFailure("", "", str(error)))
                await asyncio.sleep(LOOK_EVERY)

    async def _read(self, pod: AgentPod, put: Callable[[LogLine], object], *, follow: bool = False) -> None:
        since = Since(self._since, self._last.get(_key(pod), ""))
        async for line in read_log(self._connection, pod, since, follow=follow):
            if line.stamp:
                self._last[_key(pod)] = line.stamp
            if (found := self._wanted.read(pod, line)) is not None:
                waiting = put(found)
                if asyncio.iscoroutine(waiting):
                    await waiting


def _key(pod: AgentPod) -> str:
    return f"{pod.namespace}/{pod.name}"


def check_number(pods: list[AgentPod]) -> None:
    """See that these agents can be followed.

    Raises:
        TooManyAgents: they cannot.
    """
    if len(pods) > MOST_FOLLOWED:
        raise TooManyAgents(f"{len(pods)} agents: {MOST_FOLLOWED} can be followed; choose one with --node")


async def _print_in_order(lines: asyncio.Queue[LogLine], show: Callable[[LogLine], None]) -> None:
    now = asyncio.get_running_loop().time
    merge = Merge(WINDOW, MOST_HELD)
    while True:
        try:
            async with asyncio.timeout(WINDOW / 5 if len(merge) else None):
                merge.add(await lines.get(), now())
        except TimeoutError:
            pass
        for line in merge.take(now()):
            show(line)
