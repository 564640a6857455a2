"""`meshctl stat`: the Services that are used now, over all nodes, once."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import Literal

import click
import yaml

from discovery.source import SourceError
from nodeagent.meshctl.asking import WhichAgents, open_agents
from nodeagent.meshctl.commands.cluster import parse_service
from nodeagent.meshctl.commands.live import (
    agents_options,
    complain,
    namespace_option,
    window_option,
)
from nodeagent.meshctl.commands.output import colour_choice, print_json
from nodeagent.meshctl.live import ask_live, only
from nodeagent.meshctl.stat import SORTS, SortBy, summary_lines, table_lines
from nodeagent.stats.overview import Live, live_document


@click.command(short_help="Show rate, success and latency of Services, over all nodes.")
@click.argument("service", default="", callback=parse_service)
@namespace_option
@agents_options
@window_option
@click.option("--sort", type=click.Choice(SORTS), default="name", show_default=True, help="What goes first.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "yaml"]),
    default="text",
    show_default=True,
    help="For people, or for programs.",
)
def stat(
    service: str,
    namespace: str,
    which: WhichAgents,
    window: str,
    sort: SortBy,
    output: Literal["text", "json", "yaml"],
) -> None:
    """Show the Services that were used in the last seconds: rate, success and latency over all nodes.

    Rates are sums; percentiles come from the histograms of all nodes together. An agent begins to look when
    it is first asked, and stops a minute after: the last line says of how many seconds the numbers are.

    Agents are asked through the API server's pod proxy, as `meshctl status` does; with --agent at their
    addresses.

    Exits with 0 if all agents have answered, with 1 if one has not or there is none, with 2 if the cluster
    cannot be read.
    """
    try:
        live = only(asyncio.run(_ask(which, window)), namespace, service)
    except SourceError as error:
        raise click.UsageError(str(error)) from None
    complain(live)
    if output == "json":
        print_json(live_document(live, "services"))
    elif output == "yaml":
        click.echo(yaml.safe_dump(live_document(live, "services"), sort_keys=False), nl=False)
    elif live.agents:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        if live.overview.services:
            for line in table_lines(live, sort, width, colour=True):
                click.echo(line, color=colour_choice())
        for line in summary_lines(live):
            click.echo(line)
    sys.exit(0 if live.complete else 1)


async def _ask(which: WhichAgents, window: str) -> Live:
    async with open_agents(which) as agents:
        return await ask_live(agents, window)
