"""What `stat`, `top`, `graph` and `dashboard` share: the options that say which agents, and the window."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click
import yarl

from middleware.values import InvalidValue, parse_duration
from nodeagent.meshctl.asking import WhichAgents
from nodeagent.meshctl.commands.cluster import (
    agents_namespace_option,
    cluster_options,
    parse_namespace,
    selector_option,
)
from nodeagent.stats.overview import Live
from nodeagent.stats.signals import LONGEST


def _parse_window(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        parse_duration(value, least=1.0, most=LONGEST)
    except InvalidValue as invalid:
        raise click.BadParameter(str(invalid)) from None
    return value


def _parse_agents(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
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


def agents_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which agents are asked; the command gets them as `which`."""

    @wraps(command)
    def run(
        *,
        agents: tuple[str, ...],
        kubeconfig: str,
        context: str,
        agents_namespace: str,
        selector: str,
        **others: Any,
    ) -> Any:
        if agents and (kubeconfig or context or agents_namespace):
            raise click.UsageError("--agent asks no cluster: leave out --kubeconfig, --context and others")
        which = WhichAgents(agents, kubeconfig, context, agents_namespace, selector)
        return command(which=which, **others)

    options = (
        click.option(
            "--agent",
            "agents",
            multiple=True,
            metavar="URL",
            callback=_parse_agents,
            help="Ask the agent whose admin page is here, such as http://127.0.0.1:15000, and no cluster.",
        ),
        cluster_options,
        agents_namespace_option,
        selector_option,
    )
    for option in reversed(options):
        run = option(run)
    return run


namespace_option = click.option(
    "--namespace",
    "-n",
    default="",
    metavar="NAME",
    callback=parse_namespace,
    help="Services of this namespace only.  [default: all]",
)

window_option = click.option(
    "--window",
    default="10s",
    show_default=True,
    metavar="TIME",
    callback=_parse_window,
    help=f"Of how much time the numbers are, 1s to {LONGEST}s.",
)


def complain(live: Live) -> None:
    """Say on standard error that there are no agents, if so."""
    if not live.agents:
        click.echo("no agents: no pod of the cluster is one; --selector says which pods are", err=True)
