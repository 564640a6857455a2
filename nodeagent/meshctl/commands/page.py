"""`meshctl page`: one page of an agent's admin server, as it is."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Final

import click

from nodeagent.meshctl.asking import Answer, WhichAgents, open_agents
from nodeagent.meshctl.commands.agents import agents_options
from nodeagent.meshctl.commands.cluster import reading

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
@agents_options
def page(target: str, which: WhichAgents) -> None:
    """Print a page of the agent of one node: /plan, say, or '/resolve?name=cart.shop.svc.mesh'; / lists them.

    The page is read by port forwarding through the API server, so that pages are there which an agent shows
    on its own node only. Needs `list` on pods, and `get` and `create` on pods/portforward, in the agents'
    namespace.

    Exits with 0 if the agent has answered with 200, with 1 if not or if there is no such agent, with 2 if the
    cluster cannot be read.
    """
    try:
        with reading(which):
            answer = asyncio.run(_read(which, target))
    except NoSuchAgent as error:
        answer = Answer("", "", reason=str(error))
    if answer.status:
        click.echo(answer.text, nl=False, err=answer.status != 200)
    else:
        place = f"{answer.agent}{answer.node and f' on {answer.node}'}: " if answer.agent else ""
        click.echo(f"{place}{answer.reason}", err=True)
    sys.exit(1 if answer.reason else 0)


async def _read(which: WhichAgents, target: str) -> Answer:
    async with open_agents(which) as agents:
        places = await agents.places()
        if not places:
            raise NoSuchAgent(agents.none)
        if len(places) > 1:
            nodes = sorted({place.node or place.agent for place in places})
            named = ", ".join(nodes[:MOST_NAMED]) + (", ..." if len(nodes) > MOST_NAMED else "")
            raise NoSuchAgent(f"{len(places)} agents ({named}): choose one with --node")
        (answer,) = await agents.ask(target, {})
        return answer
