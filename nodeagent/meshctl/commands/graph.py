"""`meshctl graph`: who calls whom, over all nodes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import Final, Literal

import click

from nodeagent.meshctl.asking import WhichAgents, open_agents
from nodeagent.meshctl.commands.agents import agents_options
from nodeagent.meshctl.commands.cluster import reading, service_argument
from nodeagent.meshctl.commands.live import (
    complain,
    namespace_option,
    window_option,
)
from nodeagent.meshctl.commands.output import PROGRAMS, output_option, print_answer, print_lines
from nodeagent.meshctl.graph import dot_lines, graph_lines, mermaid_lines
from nodeagent.meshctl.live import ask_live, only
from nodeagent.meshctl.plans import ask_backing
from nodeagent.meshctl.stat import summary_lines
from nodeagent.meshctl.table import Table
from nodeagent.stats.overview import Live, Overview, live_document

Form = Literal["text", "dot", "mermaid", "json", "yaml"]
_LINES: Final[dict[str, Callable[[Overview], Iterable[str | Table]]]] = {
    "text": graph_lines,
    "dot": dot_lines,
    "mermaid": mermaid_lines,
}


@click.command(short_help="Show who calls whom: rate, success and latency of each edge.")
@service_argument(required=False)
@namespace_option
@agents_options
@window_option
@output_option("dot", "mermaid", help="For people, for Graphviz, for Mermaid, or for programs.")
def graph(service: str, namespace: str, which: WhichAgents, window: str, output: Form) -> None:
    """Show who calls whom, over all nodes: rate, success and latency of each edge.

    With SERVICE only its callers and what it calls. A caller whose pods are endpoints of a Service has that
    Service's name; others have their workload's, such as deployment/web.shop. `node` is a node itself or a
    pod on its network, `unknown` is a client that no agent knows.

    `meshctl graph -o dot | dot -Tsvg > mesh.svg` draws a picture.

    Exits as `meshctl stat` does.
    """
    with reading(which):
        live = only(asyncio.run(_ask(which, window)), namespace, service)
    complain(live, which)
    if output in PROGRAMS:
        print_answer(output, live_document(live, "edges"))
    else:
        print_lines(_LINES[output](live.overview))
        for line in summary_lines(live):
            click.echo(line, err=output != "text")
    sys.exit(0 if live.complete else 1)


async def _ask(which: WhichAgents, window: str) -> Live:
    async with open_agents(which) as agents:
        return await ask_live(agents, window, backing=await ask_backing(agents))
