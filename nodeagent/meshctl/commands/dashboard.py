"""`meshctl dashboard`: the page of the whole cluster, in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import webbrowser
from functools import partial

import click

from nodeagent.meshctl.asking import WhichAgents, open_agents
from nodeagent.meshctl.clustertap import ClusterTap
from nodeagent.meshctl.commands.agents import agents_options
from nodeagent.meshctl.commands.cluster import Unreadable, reading
from nodeagent.meshctl.dashboard import ADDRESS, serve_dashboard
from nodeagent.meshctl.watching import watch_agents


@click.command(short_help="Open the page of the whole cluster in a browser.")
@agents_options
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help=f"Of {ADDRESS}, where the page is served.  [default: one that is free]",
)
@click.option("--browser/--no-browser", default=True, help="Whether to open it.  [default: browser]")
def dashboard(which: WhichAgents, port: int, browser: bool) -> None:
    """Serve the page of the whole cluster on this machine, and open it, until Ctrl-C.

    It is the page that each agent has at /ui/, with the sums of all nodes. Agents are asked through the API
    server's pod proxy, with your own rights, while the page is looked at. The address has a secret in it, so
    that nobody else on this machine uses your rights: do not pass it on.

    Exits with 0 at the end, with 2 if the cluster cannot be read or the port is in use.
    """
    try:
        with reading(which):
            asyncio.run(_serve(which, port, browser))
    except OSError as error:
        raise Unreadable(f"cannot listen on {ADDRESS}:{port}: {error.strerror or error}") from None
    except KeyboardInterrupt:
        return


async def _serve(which: WhichAgents, port: int, browser: bool) -> None:
    async with open_agents(which) as agents:
        await agents.names()  # to fail now, and not in the browser
        tap = ClusterTap(partial(watch_agents, which))
        async with serve_dashboard(agents, port, tap) as address:
            click.echo(f"The page is at {address} until you press Ctrl-C")
            if browser:
                with contextlib.suppress(webbrowser.Error):
                    await asyncio.to_thread(webbrowser.open, address)
            await asyncio.Event().wait()
