"""`meshctl status`: every node's agent, through the API server."""

from __future__ import annotations

import asyncio
import sys

import click
import msgspec

from discovery.kube.commands.agents import AgentPages, read_agents
from discovery.kube.commands.daemonsets import DaemonSetState, read_daemonsets
from discovery.kube.commands.objects import ObjectClient, open_objects
from discovery.kube.commands.reading import Cluster
from discovery.kube.failure import ApiError
from nodeagent.cli.flags import ADMIN_PORT
from nodeagent.meshctl.admin_port import admin_port
from nodeagent.meshctl.asking import WhichAgents
from nodeagent.meshctl.commands.agents import pods_options
from nodeagent.meshctl.commands.cluster import (
    parse_namespace,
    reading,
)
from nodeagent.meshctl.commands.output import Output, output_option, print_answer
from nodeagent.meshctl.status import missing_lines, read_status, status_document, text_lines


@click.command(short_help="Show every node's agent: version, plan, staleness, services, problems.")
@pods_options
@click.option(
    "--namespace",
    "-n",
    default="",
    metavar="NAME",
    callback=parse_namespace,
    help="The same as --agents-namespace.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help=f"The port of --admin-listen.  [default: what the pod says, or {ADMIN_PORT}]",
)
@output_option()
def status(
    which: WhichAgents,
    namespace: str,
    port: int | None,
    output: Output,
) -> None:
    """Show every node's agent: its version and plan, whether it is in touch, its Services and problems.

    Agents are asked by port forwarding through the API server: an ordinary kubeconfig that may `list` pods,
    and `get` and `create` pods/portforward, is enough, with --agents-namespace in that
    namespace alone. If you may
    also `list` daemonsets and events there, it says why pods are missing.

    Exits with 0 if all are in order, with 1 if any is stale, not ready or cannot be reached, if pods are
    missing or if there is none, with 2 if the cluster cannot be read.
    """
    if namespace and which.namespace:
        raise click.UsageError("--namespace and --agents-namespace are the same: give one of them")
    which = msgspec.structs.replace(which, namespace=namespace or which.namespace)
    cluster = Cluster(which.kubeconfig, which.context)

    async def read() -> tuple[tuple[AgentPages, ...], tuple[DaemonSetState, ...]]:
        pages = await read_agents(
            cluster,
            namespace=which.namespace,
            selector=which.selector,
            port_of=lambda pod: port or admin_port(pod),
            node=which.node,
        )
        if which.node:
            return pages, ()
        async with open_objects(which.kubeconfig, which.context) as client:
            return pages, await _daemonsets(client, which.namespace, which.selector)

    with reading(which):
        pages, daemonsets = asyncio.run(read())
    agents = [read_status(agent) for agent in pages]
    lines = (*(text_lines(agents) if agents else ()), *missing_lines(daemonsets))
    print_answer(output, status_document(agents, daemonsets), lines)
    if not agents:
        click.echo(which.none, err=True)
    complete = not any(daemonset.missing for daemonset in daemonsets)
    sys.exit(0 if agents and complete and all(agent.good for agent in agents) else 1)


async def _daemonsets(client: ObjectClient, namespace: str, selector: str) -> tuple[DaemonSetState, ...]:
    """Return the agents' DaemonSets; none where they may not be listed: they only add to what is shown."""
    try:
        return await read_daemonsets(client, namespace, selector)
    except ApiError:
        return ()
