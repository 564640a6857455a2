"""Which agents a command asks: the same options for every command that asks them, as one `WhichAgents`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click
import yarl

from nodeagent.meshctl.asking import WhichAgents
from nodeagent.meshctl.commands.cluster import cluster_options, parse_namespace

SELECTOR: Final = "app.kubernetes.io/name=svcmesh"
"""Labels of agents."""


def _parse_addresses(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            url = yarl.URL(value)
            good = url.scheme in ("http", "https") and bool(url.host)
        except ValueError:
            good = False
        if not good:
            raise click.BadParameter(
                f"{value!r} is not the address of an agent, such as http://127.0.0.1:15000"
            )
    return values


_address_option = click.option(
    "--agent",
    "addresses",
    multiple=True,
    metavar="URL",
    callback=_parse_addresses,
    help="Ask the agent whose admin page is here, such as http://127.0.0.1:15000, and no cluster.",
)
_node_option = click.option(
    "--node", default="", metavar="NAME", help="The agent of this node only.  [default: any, or all]"
)
_namespace_option = click.option(
    "--agents-namespace",
    default="",
    metavar="NAME",
    callback=parse_namespace,
    help="Where the agents run.  [default: they are looked for in all namespaces]",
)
_selector_option = click.option(
    "--selector", default=SELECTOR, show_default=True, metavar="LABELS", help="Which pods are agents."
)


def agents_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which agents are asked; the command gets them as `which`."""

    @wraps(command)
    def run(
        *,
        addresses: tuple[str, ...],
        kubeconfig: str,
        context: str,
        node: str,
        agents_namespace: str,
        selector: str,
        **others: Any,
    ) -> Any:
        if addresses and (kubeconfig or context or node or agents_namespace):
            raise click.UsageError("--agent asks no cluster: leave out --kubeconfig, --context and others")
        which = WhichAgents(addresses, kubeconfig, context, agents_namespace, selector, node)
        return command(which=which, **others)

    return _address_option(_cluster_agents(run))


def pods_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the same options without `--agent`, for a command that needs more of agents than their pages."""

    @wraps(command)
    def run(
        *, kubeconfig: str, context: str, node: str, agents_namespace: str, selector: str, **others: Any
    ) -> Any:
        return command(which=WhichAgents((), kubeconfig, context, agents_namespace, selector, node), **others)

    return _cluster_agents(run)


def _cluster_agents(command: Callable[..., Any]) -> Callable[..., Any]:
    return cluster_options(_node_option(_namespace_option(_selector_option(command))))
