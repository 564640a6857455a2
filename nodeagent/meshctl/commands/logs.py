"""`meshctl logs`: what all agents have logged about one Service, in the order of time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Final

import click
import msgspec

from discovery.kube.commands.reading import Cluster, connect
from middleware.values import InvalidValue, parse_duration
from nodeagent.log.console import terminal_width, uses_colour
from nodeagent.meshctl.asking import WhichAgents
from nodeagent.meshctl.commands.agents import pods_options
from nodeagent.meshctl.commands.cluster import (
    Unreadable,
    reading,
    service_argument,
    service_namespace_option,
)
from nodeagent.meshctl.commands.output import Output, output_option, print_record
from nodeagent.meshctl.logreading import (
    MOST_FOLLOWED,
    LogFailure,
    LogReader,
    TooManyAgents,
    check_number,
    find_agents,
)
from nodeagent.meshctl.logs import LogLine, Newest, TextForm, Wanted, record_of

LONGEST_SINCE: Final = 30 * 24 * 3600.0
STDOUT: Final = 1
INTERRUPTED: Final = 130
"""As a shell says it of a program that Ctrl-C has ended."""


class _Asked(msgspec.Struct, frozen=True):
    """What the command line asks for."""

    which: WhichAgents
    wanted: Wanted
    since: float
    tail: int
    follow: bool


def _parse_since(_: click.Context, __: click.Parameter, value: str) -> float:
    try:
        return parse_duration(value, least=1.0, most=LONGEST_SINCE)
    except InvalidValue as invalid:
        raise click.BadParameter(str(invalid)) from None


@click.command(short_help="Show what all agents have logged about a Service, in the order of time.")
@service_argument()
@service_namespace_option
@click.option(
    "--since",
    default="10m",
    show_default=True,
    metavar="DURATION",
    callback=_parse_since,
    help="How far back, such as 90s or 2h.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on showing what agents write, until Ctrl-C.")
@click.option(
    "--tail",
    type=click.IntRange(1, 1_000_000),
    default=10_000,
    show_default=True,
    help="The newest lines only: so many of all agents together.",
)
@click.option(
    "--event", "events", multiple=True, metavar="NAME", help="These events only, as request_failed."
)
@click.option(
    "--reason", "reasons", multiple=True, metavar="WORD", help="These reasons only, as no_endpoint."
)
@pods_options
@output_option()
def logs(
    service: str,
    namespace: str,
    since: float,
    follow: bool,
    tail: int,
    events: tuple[str, ...],
    reasons: tuple[str, ...],
    which: WhichAgents,
    output: Output,
) -> None:
    """Show what all agents have logged about a Service, in the order of time.

    Lines are in the form of an agent's console with the node in each, or (-o json) as the agent writes them,
    one object a line, with node and pod. Which requests have a line is a setting of the agents: see
    docs/logs.md. Needs `list` on pods and `get` on pods/log in the agents' namespace.

    Exits with 0 if all logs were read, with 1 if one could not be or there is no agent, with 2 if the cluster
    cannot be read.
    """
    asked = _Asked(
        which,
        Wanted(f"{namespace}/{service}", frozenset(events), frozenset(reasons)),
        since,
        tail,
        follow,
    )
    try:
        with reading(which):
            code = asyncio.run(_run(asked, _printer(output)))
    except TooManyAgents as error:
        raise Unreadable(str(error)) from None
    except KeyboardInterrupt:
        code = 0 if follow else INTERRUPTED
    sys.exit(code)


async def _run(asked: _Asked, show: Callable[[LogLine], None]) -> int:
    async with connect(Cluster(asked.which.kubeconfig, asked.which.context), MOST_FOLLOWED + 2) as connection:
        pods = await find_agents(connection, asked.which)
        if asked.follow:
            check_number(pods)
        if not pods:
            click.echo(asked.which.none, err=True)
            return 1
        reader, newest = LogReader(connection, asked.wanted, asked.since), Newest(asked.tail)
        failures = await reader.read_once(pods, newest)
        if newest.left_out:
            click.echo(f"{newest.left_out} older lines are left out: --tail {asked.tail}", err=True)
        for line in newest.lines():
            show(line)
        for failure in failures:
            _tell(failure)
        if asked.follow:
            await reader.follow(asked.which, show, _tell)
        return 1 if failures else 0


def _printer(output: Output) -> Callable[[LogLine], None]:
    if output != "text":
        return lambda line: print_record(output, record_of(line))
    terminal = sys.stdout.isatty()
    # A line is as wide as the window of now: people resize it.
    form = TextForm(
        uses_colour(terminal, os.environ),
        (lambda: terminal_width(STDOUT)) if terminal else (lambda: 0),
        datetime.now().astimezone().date().isoformat(),
    )

    def show(line: LogLine) -> None:
        for text in form.lines(line):
            click.echo(text, color=True)

    return show


def _tell(failure: LogFailure) -> None:
    with contextlib.suppress(OSError):
        place = f"{failure.node} ({failure.pod}): " if failure.pod else ""
        click.echo(f"{place}{' '.join(failure.reason.split())}", err=True)
