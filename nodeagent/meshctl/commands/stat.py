"""`meshctl stat`: the Services that are used now, over all nodes, once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import click

from nodeagent.meshctl.asking import WhichAgents, open_agents
from nodeagent.meshctl.commands.agents import agents_options
from nodeagent.meshctl.commands.cluster import reading, service_argument
from nodeagent.meshctl.commands.live import (
    complain,
    namespace_option,
    window_option,
)
from nodeagent.meshctl.commands.output import Output, output_option, print_answer, terminal_width
from nodeagent.meshctl.live import ask_live, only
from nodeagent.meshctl.stat import SORTS, SortBy, summary_lines, table_lines
from nodeagent.stats.overview import Live, live_document


@click.command(short_help="Show rate, success and latency of Services, over all nodes.")
@service_argument(required=False)
@namespace_option
@agents_options
@window_option
@click.option("--sort", type=click.Choice(SORTS), default="name", show_default=True, help="What goes first.")
@output_option()
def stat(
    service: str,
    namespace: str,
    which: WhichAgents,
    window: str,
    sort: SortBy,
    output: Output,
) -> None:
    """Show the Services that were used in the last seconds: rate, success and latency over all nodes.

    Rates are sums; percentiles come from the histograms of all nodes together. An agent begins to look when
    it is first asked, and stops a minute after: the last line says of how many seconds the numbers are.

    Agents are asked through the API server's pod proxy, as `meshctl status` does; with --agent at their
    addresses.

    Exits with 0 if all agents have answered, with 1 if one has not or there is none, with 2 if the cluster
    cannot be read.
    """
    with reading(which):
        live = only(asyncio.run(_ask(which, window)), namespace, service)
    complain(live, which)
    print_answer(output, live_document(live, "services"), _lines(live, sort))
    sys.exit(0 if live.complete else 1)


def _lines(live: Live, sort: SortBy) -> Iterator[str]:
    if live.overview.services:
        yield from table_lines(live, sort, terminal_width(), colour=True)
    if live.agents:
        yield from summary_lines(live)


async def _ask(which: WhichAgents, window: str) -> Live:
    async with open_agents(which) as agents:
        return await ask_live(agents, window)
