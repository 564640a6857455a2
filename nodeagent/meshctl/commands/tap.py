"""`meshctl tap`: live requests of a Service from the agents of all nodes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator

import click

from discovery.kube.commands.agents import wanted
from nodeagent.meshctl.asking import WhichAgents
from nodeagent.meshctl.commands.agents import agents_options
from nodeagent.meshctl.commands.cluster import (
    reading,
    service_argument,
    service_namespace_option,
)
from nodeagent.meshctl.commands.output import Output, output_option, print_lines, print_record
from nodeagent.meshctl.tapline import text_line
from nodeagent.meshctl.watching import Line, watch_agents


@click.command(short_help="Show requests of a Service as they end.")
@service_argument()
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
    namespace: str,
    workload: str,
    status: str,
    path: str,
    method: str,
    most: int | None,
    which: WhichAgents,
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
    watch = watch_agents(which, target)
    try:
        with reading(which):
            complete = asyncio.run(_show(watch, most, output))
    except KeyboardInterrupt:
        complete = True
    sys.exit(0 if complete else 1)


async def _show(watch: AsyncGenerator[Line, None], most: int | None, output: Output) -> bool:
    """Print lines; return whether as many came as were wanted."""
    shown = 0
    async with contextlib.aclosing(watch) as lines:
        async for line in lines:
            if line.error:
                click.echo(f"{line.node}: {line.error}", err=True)
            elif "dropped" in line.fields:
                click.echo(f"{line.node}: {line.fields['dropped']} requests are left out here", err=True)
            else:
                fields = {"node": line.node, **line.fields}
                if output == "text":
                    print_lines([text_line(fields)], fold=4)
                else:
                    print_record(output, fields)
                shown += 1
                if shown == most:
                    return True
    return False
