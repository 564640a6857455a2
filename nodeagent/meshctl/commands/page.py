"""`meshctl page`: one page of an agent's admin server, as it is."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Final

import click

from discovery.kube.commands.agents import WHOLE_PAGE, AgentReader, Page, Wanted, list_agents, why_unanswered
from discovery.kube.commands.reading import Cluster, connect
from discovery.source import SourceError
from nodeagent.meshctl.admin_port import admin_port
from nodeagent.meshctl.commands.cluster import agents_options, cluster_options

MOST_NAMED: Final = 5
"""Nodes that a message names."""
_TARGET: Final = re.compile(r"/[!-~]*")


class NoSuchAgent(Exception):
    """It is not clear which agent is meant, or there is none; the message says what to do."""


def _parse_target(_: click.Context, __: click.Parameter, value: str) -> str:
    if not _TARGET.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not the path of a page, such as /plan")
    return value


@click.command(short_help="Print a page of one node's agent, such as /plan.")
@click.argument("target", metavar="PATH", callback=_parse_target)
@cluster_options
@agents_options
def page(target: str, kubeconfig: str, context: str, node: str, agents_namespace: str, selector: str) -> None:
    """Print a page of the agent of one node: /plan, say, or '/resolve?name=cart.shop.svc.mesh'; / lists them.

    The page is read by port forwarding through the API server, so that pages are there which an agent shows
    on its own node only. Needs `list` on pods, and `get` and `create` on pods/portforward, in the agents'
    namespace.

    Exits with 0 if the agent has answered with 200, with 1 if not or if there is no such agent, with 2 if the
    cluster cannot be read.
    """
    try:
        found = asyncio.run(_read(Cluster(kubeconfig, context), agents_namespace, selector, node, target))
    except SourceError as error:
        raise click.UsageError(str(error)) from None
    except NoSuchAgent as error:
        found = Page(error=str(error))
    if found.error:
        click.echo(found.error, err=True)
    else:
        click.echo(found.text, nl=False, err=found.status != 200)
    sys.exit(0 if not found.error and found.status == 200 else 1)


async def _read(cluster: Cluster, namespace: str, selector: str, node: str, target: str) -> Page:
    async with connect(cluster) as connection:
        pods = [
            pod
            for pod in await list_agents(connection, namespace, selector)
            if pod.node == (node or pod.node) and not pod.leaving
        ]
        if not pods:
            raise NoSuchAgent(f"no agents: no pod{node and f' on {node}'} matches {selector}")
        if len(pods) > 1:
            nodes = sorted({pod.node or "(no node)" for pod in pods})
            named = ", ".join(nodes[:MOST_NAMED]) + (", ..." if len(nodes) > MOST_NAMED else "")
            raise NoSuchAgent(f"{len(pods)} agents ({named}): choose one with --node")
        (pod,) = pods
        if not_running := why_unanswered(pod):
            return Page(error=not_running)
        (found,) = await AgentReader(connection).pages(pod, admin_port(pod), Wanted(target, WHOLE_PAGE))
        return found
