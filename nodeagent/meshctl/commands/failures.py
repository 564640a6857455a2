"""`meshctl failures`: the latest requests that failed or were refused, from all nodes, with reasons."""

from __future__ import annotations

import asyncio
import sys

import click
from click.core import ParameterSource

from nodeagent.meshctl.asking import WhichAgents, open_agents
from nodeagent.meshctl.commands.agents import agents_options
from nodeagent.meshctl.commands.cluster import reading, service_argument, service_namespace_option
from nodeagent.meshctl.commands.output import Output, output_option, print_answer
from nodeagent.meshctl.failures import FailuresSaid, ask_failures, failure_lines, summary_lines
from nodeagent.stats.failures import MOST


@click.command(short_help="Show the latest requests that failed or were refused, with reasons.")
@service_argument(required=False)
@service_namespace_option
@agents_options
@click.option(
    "--limit",
    type=click.IntRange(1, MOST),
    default=50,
    show_default=True,
    metavar="N",
    help="Show so many at most.",
)
@output_option()
def failures(
    service: str,
    namespace: str,
    which: WhichAgents,
    limit: int,
    output: Output,
) -> None:
    """Show the latest requests and connections that failed or were refused, from all nodes, the newest last.

    Agents remember them without being asked to: the latest of all Services, or with SERVICE those of one.
    What was too much in one second is only counted, and a line below says how much. There is no query, no
    header value and no body.

    Exits as `meshctl stat` does.
    """
    if (
        not service
        and click.get_current_context().get_parameter_source("namespace") != ParameterSource.DEFAULT
    ):
        raise click.UsageError("--namespace says where SERVICE is, and there is none")
    with reading(which):
        said = asyncio.run(_ask(which, f"{namespace}/{service}" if service else "", limit))
    if not said.agents:
        click.echo(which.none, err=True)
    print_answer(output, said.document(), (*failure_lines(said), *summary_lines(said)), fold=4)
    sys.exit(0 if said.complete else 1)


async def _ask(which: WhichAgents, service: str, limit: int) -> FailuresSaid:
    async with open_agents(which) as agents:
        return await ask_failures(agents, service, limit)
