"""What `stat`, `top` and `graph` share: the options that say of what, and of how much time."""

from __future__ import annotations

import click

from middleware.values import InvalidValue, parse_duration
from nodeagent.meshctl.asking import WhichAgents
from nodeagent.meshctl.commands.cluster import parse_service_namespace
from nodeagent.stats.overview import Live
from nodeagent.stats.signals import LONGEST


def _parse_window(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        parse_duration(value, least=1.0, most=LONGEST)
    except InvalidValue as invalid:
        raise click.BadParameter(str(invalid)) from None
    return value


namespace_option = click.option(
    "--namespace",
    "-n",
    default="",
    metavar="NAME",
    callback=parse_service_namespace,
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


def complain(live: Live, which: WhichAgents) -> None:
    """Say on standard error that there are no agents, if so."""
    if not live.agents:
        click.echo(which.none, err=True)
