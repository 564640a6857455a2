"""The command line for people: one group, its commands in `nodeagent.meshctl.commands`."""

from __future__ import annotations

import os

import click

from nodeagent.meshctl.commands.cache import cache
from nodeagent.meshctl.commands.check import check
from nodeagent.meshctl.commands.completion import completion
from nodeagent.meshctl.commands.dashboard import dashboard
from nodeagent.meshctl.commands.dns import dns
from nodeagent.meshctl.commands.explain import explain
from nodeagent.meshctl.commands.failures import failures
from nodeagent.meshctl.commands.graph import graph
from nodeagent.meshctl.commands.logs import logs
from nodeagent.meshctl.commands.migrate import migrate
from nodeagent.meshctl.commands.page import page
from nodeagent.meshctl.commands.planview import endpoints, routes
from nodeagent.meshctl.commands.stat import stat
from nodeagent.meshctl.commands.status import status
from nodeagent.meshctl.commands.tap import tap
from nodeagent.meshctl.commands.top import top
from nodeagent.meshctl.commands.version import version


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="svcmesh", prog_name="meshctl", message="%(prog)s, svc.mesh %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Look into svc.mesh from outside."""
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        context.color = False


main.add_command(cache)
main.add_command(check)
main.add_command(completion)
main.add_command(dashboard)
main.add_command(dns)
main.add_command(failures)
main.add_command(graph)
main.add_command(logs)
main.add_command(migrate)
main.add_command(page)
main.add_command(stat)
main.add_command(endpoints)
main.add_command(explain)
main.add_command(routes)
main.add_command(status)
main.add_command(top)
main.add_command(tap)
main.add_command(version)
