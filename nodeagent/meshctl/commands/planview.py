"""`meshctl routes` and `meshctl endpoints`: what one agent's plan says of a Service."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from discovery.compat import Compat
from discovery.files.overrides import Override
from discovery.kube.commands.objects import open_objects
from discovery.kube.commands.reading import Cluster
from nodeagent.meshctl.ask import Agents, agent_options, read_plan
from nodeagent.meshctl.check import node_settings, plan_of
from nodeagent.meshctl.commands.cluster import (
    Where,
    compat_option,
    overrides_option,
    read_events,
    service_namespace_option,
    usage_errors,
)
from nodeagent.meshctl.commands.output import Output, output_option, print_answer
from nodeagent.meshctl.planview import (
    NotInPlan,
    endpoints_document,
    endpoints_lines,
    routes_document,
    routes_lines,
    service_in,
)
from nodeagent.plan.render import plan_document

Document = Mapping[str, Any]


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what both commands take."""
    options = (
        click.argument("service"),
        service_namespace_option,
        click.option("--files", multiple=True, metavar="PATH", help="Go by files; - is standard input."),
        agent_options,
        compat_option,
        overrides_option,
        output_option(),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(short_help="Show the rules and settings of a Service, and where each setting comes from.")
@_options
def routes(output: Output, **asked: Any) -> None:
    """Show what an agent has in force for a Service: ports, rules, layers, and settings with their origins.

    SERVICE is a name of --namespace, or NAMESPACE/NAME. Exits with 0, with 1 if the Service is not in the
    mesh, with 2 if that cannot be found out.
    """
    _show(routes_document, routes_lines, output, **asked)


@click.command(short_help="Show the endpoints of a Service: health, ejections, balancing.")
@_options
def endpoints(output: Output, **asked: Any) -> None:
    """Show the endpoints of a Service as an agent has them: which are used, and why others are not.

    SERVICE is a name of --namespace, or NAMESPACE/NAME. Exits with 0, with 1 if the Service is not in the
    mesh, with 2 if that cannot be found out.
    """
    _show(endpoints_document, endpoints_lines, output, **asked)


def _show(
    document_of: Callable[[str, Document], dict[str, Any]],
    lines_of: Callable[[Document], Iterator[str]],
    output: Output,
    *,
    service: str,
    namespace: str,
    files: tuple[str, ...],
    agents: Agents,
    compat: Compat | None,
    overrides: tuple[Override, ...],
) -> None:
    name = service if "/" in service else f"{namespace}/{service}"
    with usage_errors():
        try:
            if files:
                events = read_events(Where(files, Cluster("", ""), ""), compat, overrides)
                plan = plan_document(plan_of(events, node_settings(compat)))
            else:
                if compat or overrides:
                    raise click.UsageError("--compat and --endpoints need --files")
                plan = asyncio.run(_read(agents))
            document = document_of(name, service_in(plan, name))
        except NotInPlan as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(1)
    print_answer(output, document, lines_of(document))


async def _read(agents: Agents) -> dict[str, Any]:
    async with open_objects(agents.kubeconfig, agents.context) as client:
        return await read_plan(client, agents)
