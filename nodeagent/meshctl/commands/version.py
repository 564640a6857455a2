"""`meshctl version`: of this program, and of the agents where a cluster can be asked."""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform

import click
import msgspec

from discovery.kube.commands.objects import open_objects
from discovery.kube.failure import ApiError
from discovery.source import SourceError
from nodeagent.meshctl.clustercheck.agents import AgentFact
from nodeagent.meshctl.clustercheck.reading import read_agent_facts
from nodeagent.meshctl.clustercheck.result import Unknown
from nodeagent.meshctl.clustercheck.target import Target
from nodeagent.meshctl.commands.cluster import cluster_options
from nodeagent.meshctl.commands.output import Output, output_option, print_answer

PATIENCE = 10.0
"""Seconds for the cluster: a version is asked for in bad weather, too."""


class AgentVersion(msgspec.Struct, frozen=True):
    """The version of one agent; empty where it does not tell."""

    node: str
    pod: str
    version: str


@click.command(short_help="Print the version of meshctl, and those of the agents.")
@cluster_options
@click.option("--client", is_flag=True, help="Of meshctl alone: no cluster is asked.")
@output_option()
def version(kubeconfig: str, context: str, client: bool, output: Output) -> None:
    """Print the version of meshctl, and those of the agents if the cluster of the kubeconfig can be asked.

    Agents are looked for in all namespaces; that needs the rights of `meshctl status`. Exits with 0 whether
    or not it can be asked.
    """
    own = importlib.metadata.version("svcmesh")
    agents = Unknown("--client was given") if client else asyncio.run(_agents(kubeconfig, context))
    if output != "text":
        unknown = isinstance(agents, Unknown)
        print_answer(
            output,
            {
                "client": {"version": own, "python": platform.python_version(), "system": platform.system()},
                "agents": None if unknown else agents,
                "reason": agents.reason if isinstance(agents, Unknown) else "",
            },
        )
        return
    click.echo(f"meshctl {own} (Python {platform.python_version()}, {platform.system()})")
    if isinstance(agents, Unknown):
        if not client:
            click.echo(f"agents not asked: {agents.reason}")
    elif not agents:
        click.echo("agents: none")
    for agent in agents if not isinstance(agents, Unknown) else ():
        click.echo(f"agent {agent.version or '(does not say)'} on {agent.node or '(no node)'} ({agent.pod})")


async def _agents(kubeconfig: str, context: str) -> list[AgentVersion] | Unknown:
    try:
        async with asyncio.timeout(PATIENCE), open_objects(kubeconfig, context) as client:
            return [_version_of(fact) for fact in await read_agent_facts(client, Target(), "")]
    except TimeoutError:
        return Unknown(f"no answer in {PATIENCE:g} s")
    except ApiError as error:
        return Unknown(error.failure.reason)
    except SourceError as error:
        return Unknown(str(error))


def _version_of(fact: AgentFact) -> AgentVersion:
    return AgentVersion(fact.status.node, fact.status.pod, fact.status.version)
