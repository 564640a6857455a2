"""The command line of the daemon: `nodeagent run` and `nodeagent version`.

Every flag is also read from the environment, as `SVCMESH_` and its name; the command line goes first.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Callable
from typing import Any

import click

from nodeagent.cli.flags import (
    Given,
    parse_drain_timeout,
    parse_listen,
    parse_node_name,
    parse_range,
    parse_source,
    parse_workers,
    parse_zone,
    resolve_settings,
)
from nodeagent.init import Kept
from nodeagent.log.configure import LEVELS

ENVIRONMENT_PREFIX = "SVCMESH"
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Parsed(click.ParamType[Any]):
    """A value that one of our parsers reads; its ValueError becomes click's message."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse text; pass on what is parsed already (a default)."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _flag(*names: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option of `run`, with its name in the environment shown in the help."""
    variable = f"{ENVIRONMENT_PREFIX}_{names[0].removeprefix('--').replace('-', '_').upper()}"
    return click.option(*names, envvar=variable, show_envvar=True, **settings)


@click.group(context_settings=CONTEXT)
def main() -> None:
    """The svc.mesh agent of one node: watches Services, answers DNS, proxies mesh traffic."""


@main.command(short_help="Run the agent in the foreground.")
@_flag(
    "--source",
    type=Parsed("source", parse_source),
    metavar="kube|file:PATH",
    default="kube",
    show_default=True,
    help="Where Services are read from: the API server, or a file or folder of Kubernetes YAML.",
)
@_flag(
    "--service-selector",
    metavar="LABELSELECTOR",
    default="",
    help="With --source kube: watch only Services and slices with these labels, for example "
    "svc.mesh/watch=true. Kubernetes copies a Service's labels to its slices; slices made "
    "by hand need them too.  [default: all]",
)
@_flag(
    "--capture",
    type=click.Choice(["auto", "nftables", "loopback"]),
    default="auto",
    show_default=True,
    help="How traffic to mesh addresses gets here. nftables: a node, needs CAP_NET_ADMIN and nft. "
    "loopback: a laptop, no privileges. auto: nftables where it is possible, else loopback.",
)
@_flag(
    "--mesh-range",
    type=Parsed("CIDR", parse_range),
    help="The IPv4 range of mesh addresses, /4 to /16.  "
    "[default: 240.0.0.0/4 with nftables, 127.64.0.0/10 with loopback]",
)
@_flag(
    "--zone",
    type=Parsed("NAME", parse_zone),
    default="svc.mesh",
    show_default=True,
    help="The DNS zone: <service>.<namespace>.<zone>.",
)
@_flag(
    "--alias-zone",
    "alias_zones",
    type=Parsed("NAME", parse_zone),
    multiple=True,
    help="A further zone with the same names; may be given more than once (in the environment: separated "
    "by spaces).",
)
@_flag(
    "--compat",
    type=click.Choice(["traefik-mesh"]),
    help="Another mesh whose annotations are read too. A Service with any of them is in the mesh, and DNS "
    "also answers for the zones traefik.mesh and maesh. See docs/migrate-traefik-mesh.md.",
)
@_flag(
    "--dns-listen",
    type=Parsed("ADDR:PORT", parse_listen),
    help="Where DNS answers. With nftables it always answers at 240.0.0.53:53 (the 53rd address of the "
    "range), and also here if this is given.  [default with loopback: 127.0.0.1:10053]",
)
@_flag(
    "--admin-listen",
    type=Parsed("ADDR:PORT", parse_listen),
    help="Where /healthz, /readyz, /metrics and /plan answer.  "
    "[default: 0.0.0.0:15000 with nftables, 127.0.0.1:15000 with loopback]",
)
@_flag(
    "--workers",
    type=Parsed("N", parse_workers),
    help="Processes that carry traffic, 1 to 256.  [default: the CPUs this process may use]",
)
@_flag(
    "--node-name",
    type=Parsed("NAME", parse_node_name),
    help="The name of this node in Kubernetes. The access log names the pods on this node.  "
    "[default: the host name in lower case]",
)
@_flag(
    "--ready-file",
    type=click.Path(dir_okay=False),
    default="",
    metavar="PATH",
    help="A file that exists while this agent is ready, for probes: during an upgrade two agents with host "
    "networking answer at the same admin address.",
)
@_flag(
    "--state-dir",
    type=click.Path(file_okay=False),
    default="",
    metavar="DIR",
    help="A folder for the last good snapshot, so that the agent can start and serve while the source cannot "
    "be reached.  [default: nowhere]",
)
@_flag(
    "--drain-timeout",
    type=Parsed("DURATION", parse_drain_timeout),
    default="30s",
    show_default=True,
    help="How long requests in flight may take to finish after SIGTERM, such as 30s or 1m30s.",
)
@_flag(
    "--log-level",
    type=click.Choice(list(LEVELS)),
    default="info",
    show_default=True,
    help="The least severe lines that are logged.",
)
@_flag(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    show_default=True,
    help="auto: console on a terminal, else json.",
)
@_flag(
    "--access-log",
    type=click.Choice(["off", "errors", "all"]),
    default="errors",
    show_default=True,
    help="Which requests are logged: none, those the mesh or an endpoint failed, or all.",
)
@click.pass_obj
def run(kept: Kept | None, /, **given: Any) -> None:
    """Run the agent in the foreground until SIGTERM or SIGINT.

    On a laptop, without privileges:

        nodeagent run --source file:DIR --capture loopback
    """
    try:
        settings = resolve_settings(Given(kept=kept is not None, **given))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    # Imported here so that --help and mistakes are answered at once.
    from nodeagent.agent.app import run_agent

    sys.exit(run_agent(settings, kept))


@main.command(short_help="Print the version.")
def version() -> None:
    """Print the version of svc.mesh and of what runs it."""
    system = platform.uname()
    click.echo(
        f"svc.mesh {importlib.metadata.version('svcmesh')} "
        f"(Python {platform.python_version()}, {system.system} {system.release} {system.machine})"
    )
