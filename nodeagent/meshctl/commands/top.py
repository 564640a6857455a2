"""`meshctl top`: the Services that are used now, over all nodes, live."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from typing import Final

import click

from discovery.source import SourceError
from nodeagent.meshctl.asking import Agents, WhichAgents, open_agents
from nodeagent.meshctl.commands.agents import agents_options
from nodeagent.meshctl.commands.cluster import reading, service_argument
from nodeagent.meshctl.commands.live import (
    complain,
    namespace_option,
    window_option,
)
from nodeagent.meshctl.keyboard import watch_keys
from nodeagent.meshctl.live import ask_live, only
from nodeagent.meshctl.screen import View, filtered, press, screen_lines
from nodeagent.meshctl.stat import SORTS, SortBy, summary_lines, table_lines
from nodeagent.stats.overview import Live

ENTER: Final = "\x1b[?1049h\x1b[?25l"
"""The terminal's other screen, without a cursor."""
LEAVE: Final = "\x1b[?25h\x1b[?1049l"


@click.command(short_help="Show rate, success and latency of Services, live.")
@service_argument(required=False)
@namespace_option
@agents_options
@window_option
@click.option("--sort", type=click.Choice(SORTS), default="rate", show_default=True, help="What goes first.")
@click.option("--filter", "wanted", default="", metavar="TEXT", help="Services with this in name.namespace.")
@click.option(
    "--every",
    type=click.FloatRange(0.5, 60),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often agents are asked.",
)
def top(
    service: str,
    namespace: str,
    which: WhichAgents,
    window: str,
    sort: SortBy,
    wanted: str,
    every: float,
) -> None:
    """Show the Services that are used now: rate, success and latency over all nodes, live.

    Keys: n, r, s, 5, 9, p sort by name, rate, success, p50, p95, p99; / filters, Esc shows all again; space
    holds the table; q or Ctrl-C ends. On a narrow terminal columns are left out: NODES, CALLERS, 5XX, P50,
    P95, in this order. Without a terminal it prints once and ends, as `meshctl stat` does.

    Exits with 0 at the end; without a terminal with 1 if an agent has not answered; with 2 if the cluster
    cannot be read at the start.
    """
    view = View(sort, wanted.lower())
    try:
        with reading(which):
            live = asyncio.run(_run(which, service, namespace, window, view, every))
    except KeyboardInterrupt:
        return
    if live is not None:
        complain(live, which)
        shown = filtered(live, view.wanted)
        if shown.overview.services:
            for line in table_lines(shown, sort):
                click.echo(line)
        for line in summary_lines(shown):
            click.echo(line)
        sys.exit(0 if live.complete else 1)


async def _run(
    which: WhichAgents, service: str, namespace: str, window: str, view: View, every: float
) -> Live | None:
    """Show the table until it is ended; without a terminal return what there is to print."""
    async with open_agents(which) as agents:
        live = only(await ask_live(agents, window), namespace, service)
        if not sys.stdout.isatty():
            return live
        screen = _Screen(live, view)
        with watch_keys(screen.press):
            click.echo(ENTER, nl=False, color=True)
            try:
                tasks = (
                    asyncio.create_task(_follow(agents, screen, service, namespace, window, every)),
                    asyncio.create_task(screen.ended.wait()),
                )
                try:
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()  # a fault ends the command with its traceback
                finally:
                    for task in tasks:
                        task.cancel()
            finally:
                click.echo(LEAVE, nl=False, color=True)
    return None


async def _follow(
    agents: Agents, screen: _Screen, service: str, namespace: str, window: str, every: float
) -> None:
    while True:
        screen.draw()
        await asyncio.sleep(every)
        try:
            screen.show(only(await ask_live(agents, window), namespace, service))
        except SourceError as error:
            screen.trouble = str(error)


class _Screen:
    """What stands on the terminal."""

    def __init__(self, live: Live, view: View) -> None:
        self._live = live
        self._view = view
        self.trouble = ""
        """Why the numbers are old."""
        self.ended = asyncio.Event()

    def press(self, key: str) -> None:
        """Do what a key says."""
        self._view = press(self._view, key)
        if self._view.ended:
            self.ended.set()
        else:
            self.draw()

    def show(self, live: Live) -> None:
        """Show newer numbers."""
        self.trouble = ""
        if not self._view.held:
            self._live = live

    def draw(self) -> None:
        """Write the screen in place of what is there, a line at a time so that nothing flickers."""
        width, height = shutil.get_terminal_size()
        trouble = [f"old numbers: {self.trouble}"[:width]] if self.trouble else []
        colour = not os.environ.get("NO_COLOR")
        lines = [*trouble, *screen_lines(self._live, self._view, width, height - len(trouble), colour)]
        text = "\x1b[H" + "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J"
        click.echo(text, nl=False, color=True)
