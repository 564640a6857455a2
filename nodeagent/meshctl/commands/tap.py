"""`meshctl tap`: live requests of a Service from the agents of all nodes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import click
import msgspec

from discovery.kube.commands.agents import AgentPod, list_agents, wanted, why_unanswered
from discovery.kube.commands.forwarding import forward, get_lines
from discovery.kube.commands.reading import Cluster, connect
from discovery.kube.connection import Connection
from discovery.kube.failure import ApiError
from discovery.source import SourceError
from nodeagent.meshctl.admin_port import admin_port
from nodeagent.meshctl.commands.cluster import (
    agents_options,
    cluster_options,
    service_namespace_option,
)
from nodeagent.meshctl.commands.output import Output, output_option, print_record
from nodeagent.meshctl.tapline import text_line

PATIENCE: Final = 20.0
"""Seconds without a byte from an agent, which sends a sign of life every five."""
LONGEST_LINE: Final = 256 * 1024
MOST_WAITING: Final = 1000
"""Lines of all agents that wait to be shown: with more, agents wait, and count what they leave out."""


class Line(msgspec.Struct, frozen=True):
    """A line of an agent, or (`error`) why there are no more."""

    node: str
    fields: dict[str, Any] = {}
    error: str = ""


@click.command(short_help="Show requests of a Service as they end.")
@click.argument("service")
@cluster_options
@service_namespace_option
@click.option("--from", "workload", default="", metavar="WORKLOAD", help="Only of this client, such as web.")
@click.option("--status", default="", metavar="CODE", help="Only with this status, or class: 503, 5xx.")
@click.option("--path", default="", metavar="/PREFIX", help="Only paths that begin like this.")
@click.option("--method", default="", metavar="METHOD", help="Only this method, such as GET.")
@click.option("--max", "most", type=click.IntRange(1), help="End after so many requests.")
@agents_options
@output_option()
def tap(
    service: str,
    kubeconfig: str,
    context: str,
    namespace: str,
    workload: str,
    status: str,
    path: str,
    method: str,
    most: int | None,
    node: str,
    agents_namespace: str,
    selector: str,
    output: Output,
) -> None:
    """Show requests to a Service as they end, from the agents of all nodes, until you press Ctrl-C.

    A request is shown by the agent of the client's node. Lines have no query, header values or bodies.
    Agents leave out what is too much, and say how many; nothing is recorded while nobody watches. Needs
    `list` on pods, and `get` and `create` on pods/portforward, in the agents' namespace.

    Exits with 0 after --max requests or Ctrl-C, with 1 if no agent can be watched any more, with 2 if the
    cluster cannot be read.
    """
    query = {
        "service": f"{namespace}/{service}",
        "from": workload,
        "status": status.lower(),
        "path": path,
        "method": method.upper(),
    }
    target = wanted("/tap", {name: value for name, value in query.items() if value}).target
    watch = _watch(Cluster(kubeconfig, context), agents_namespace, selector, node, target)
    try:
        complete = asyncio.run(_show(watch, most, output))
    except SourceError as error:
        raise click.UsageError(str(error)) from None
    except KeyboardInterrupt:
        complete = True
    sys.exit(0 if complete else 1)


async def _show(watch: AsyncIterator[Line], most: int | None, output: Output) -> bool:
    """Print lines; return whether as many came as were wanted."""
    shown = 0
    async with contextlib.aclosing(watch) as lines:  # type: ignore[type-var]
        async for line in lines:
            if line.error:
                click.echo(f"{line.node}: {line.error}", err=True)
            elif "dropped" in line.fields:
                click.echo(f"{line.node}: {line.fields['dropped']} requests are left out here", err=True)
            else:
                fields = {"node": line.node, **line.fields}
                if output == "text":
                    click.echo(text_line(fields))
                else:
                    print_record(output, fields)
                shown += 1
                if shown == most:
                    return True
    return False


async def _watch(
    cluster: Cluster, namespace: str, selector: str, node: str, target: str
) -> AsyncIterator[Line]:
    """Yield the lines of all agents until none can be watched any more."""
    queue: asyncio.Queue[Line] = asyncio.Queue(MOST_WAITING)
    async with connect(cluster) as connection:
        pods = [
            pod
            for pod in await list_agents(connection, namespace, selector)
            if pod.node == (node or pod.node) and not pod.leaving
        ]
        if not pods:
            yield Line("meshctl", error=f"no agents: no pod{node and f' on {node}'} matches {selector}")
            return
        following = {asyncio.create_task(_follow(connection, pod, target, queue)) for pod in pods}
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
                    fields = msgspec.json.decode(line, type=dict[str, Any]) if line else {"ended": ""}
                    if "ended" not in fields:
                        await queue.put(Line(place, fields))
    except ApiError as error:
        await queue.put(Line(place, error=error.failure.reason))
    except msgspec.DecodeError as error:
        await queue.put(Line(place, error=f"the agent's answer is no JSON: {error}"))
