"""`meshctl routes` and `meshctl endpoints`: what one agent's plan says of a Service."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import click
import msgspec

from discovery.compat import Compat
from discovery.files.overrides import Override
from discovery.kube.commands.reading import Cluster
from discovery.source import SourceError
from nodeagent.meshctl.asking import Agents, Answer, Untold, WhichAgents, ask_any, open_agents, told_by_none
from nodeagent.meshctl.breakers import read_breakers
from nodeagent.meshctl.check import node_settings, plan_of
from nodeagent.meshctl.commands.agents import agents_options
from nodeagent.meshctl.commands.cluster import (
    Where,
    compat_option,
    overrides_option,
    read_events,
    reading,
    service_argument,
    service_namespace_option,
)
from nodeagent.meshctl.commands.output import Output, output_option, print_answer
from nodeagent.meshctl.planview import (
    NodeSaid,
    NotInPlan,
    endpoints_document,
    endpoints_lines,
    has_breaker,
    routes_document,
    routes_lines,
    service_in,
    unused_in,
)
from nodeagent.meshctl.said import why_line
from nodeagent.meshctl.table import Table
from nodeagent.plan.render import plan_document

Document = Mapping[str, Any]
Found = tuple[Document, list[NodeSaid]]
"""A Service in the plan, and what nodes say of it."""


class _Plan(msgspec.Struct):
    """What is needed of the page `/plan`."""

    services: dict[str, dict[str, Any]]


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what both commands take."""
    options = (
        service_argument(),
        service_namespace_option,
        click.option("--files", multiple=True, metavar="PATH", help="Go by files; - is standard input."),
        agents_options,
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
    """Show what is in force for a Service: ports, rules, layers, and settings with their origins.

    The plan is that of one agent: it is the same on all nodes. Circuit breakers are each node's own, so all
    agents are asked for them, or that of --node.

    SERVICE is catalog, shop/catalog or catalog.shop. Exits with 0, with 1 if the Service is not in the
    mesh, with 2 if that cannot be found out.
    """
    _show(routes_document, routes_lines, _read_routes, output, **asked)


@click.command(short_help="Show the endpoints of a Service: health, ejections, balancing.")
@_options
def endpoints(output: Output, **asked: Any) -> None:
    """Show the endpoints of a Service: which are used, and why others are not.

    Health and ejections are each node's own, so all agents are asked, or that of --node.

    SERVICE is catalog, shop/catalog or catalog.shop. Exits with 0, with 1 if the Service is not in the
    mesh, with 2 if that cannot be found out.
    """
    _show(endpoints_document, endpoints_lines, _read_endpoints, output, **asked)


def _show(
    document_of: Callable[[str, Document, Sequence[NodeSaid]], dict[str, Any]],
    lines_of: Callable[[Document], Iterator[str | Table]],
    read: Callable[[Agents, str], Awaitable[Found]],
    output: Output,
    *,
    service: str,
    namespace: str,
    files: tuple[str, ...],
    which: WhichAgents,
    compat: Compat | None,
    overrides: tuple[Override, ...],
) -> None:
    name = f"{namespace}/{service}"
    nodes: list[NodeSaid] = []
    with reading(which):
        try:
            if files:
                events = read_events(Where(files, Cluster("", ""), ""), compat, overrides)
                found = service_in(plan_document(plan_of(events, node_settings(compat))), name)
            else:
                if compat or overrides:
                    raise click.UsageError("--compat and --endpoints need --files")
                found, nodes = asyncio.run(_ask(which, name, read))
        except NotInPlan as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(1)
    document = document_of(name, found, nodes)
    print_answer(output, document, lines_of(document), fold=2)
    for one in nodes:
        if one.reason:
            click.echo(why_line(one.node, one.agent, one.reason), err=True)


async def _ask(which: WhichAgents, name: str, read: Callable[[Agents, str], Awaitable[Found]]) -> Found:
    async with open_agents(which) as agents:
        return await read(agents, name)


async def _read_routes(agents: Agents, name: str) -> Found:
    service = _service_of(await ask_any(agents, "/plan", {"service": name}), name)
    said = []
    for answer in await agents.ask("/metrics", {}) if has_breaker(service) else ():
        breakers, reason = [], answer.reason
        if not reason:
            try:
                breakers = read_breakers(answer.text, name)
            except ValueError as error:
                reason = f"its metrics cannot be read: {error}"
        said.append(NodeSaid(answer.node, answer.agent, reason, breakers))
    return service, said


async def _read_endpoints(agents: Agents, name: str) -> Found:
    service, missing, said = None, None, []
    for answer in await agents.ask("/plan", {"service": name}):
        unused, reason = [], answer.reason
        if not reason:
            try:
                known = _service_of(answer, name)
            except (NotInPlan, SourceError) as error:
                missing, reason = missing or error, str(error)
            else:
                service, unused = service or known, unused_in(known)
        said.append(NodeSaid(answer.node, answer.agent, reason, endpoints=unused))
    if service is not None:
        return service, said
    if missing is not None:
        raise missing
    if not said:
        raise Untold(agents.none)
    raise told_by_none("/plan", said[0].node, said[0].agent, said[0].reason)


def _service_of(answer: Answer, name: str) -> Document:
    """Return the Service as an agent's plan has it; raises `NotInPlan`, or `SourceError` for another page."""
    try:
        plan = msgspec.json.decode(answer.text, type=_Plan)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise SourceError(f"{answer.agent} gives no plan of this version: {error}") from None
    return service_in({"services": plan.services}, name)
