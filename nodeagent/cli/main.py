"""The command line of the daemon: `nodeagent run`, `nodeagent node-check` and `nodeagent version`.

Every flag is also read from the environment, as `SVCMESH_` and its name; the command line goes first.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from middleware.registry import FOLDER_VARIABLE
from nodeagent import compiled
from nodeagent.cli.flags import Given, resolve_settings
from nodeagent.cli.flagvalues import (
    COLLECTOR_FORMS,
    parse_assignment,
    parse_collector,
    parse_drain_timeout,
    parse_listen,
    parse_node_name,
    parse_node_zone,
    parse_override,
    parse_range,
    parse_series,
    parse_source,
    parse_store,
    parse_worker_memory,
    parse_workers,
    parse_zone,
)
from nodeagent.cli.needs import unmet
from nodeagent.cli.parsed import Parsed, ParsedLines
from nodeagent.init import Kept
from nodeagent.log.forms import LEVELS
from nodeagent.settings import MOST_SERIES, NFTABLES_RANGE

ENVIRONMENT_PREFIX = "SVCMESH"
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class CannotRun(click.ClickException):
    """No agent can run here."""

    exit_code = 2


def _require_agent() -> None:
    """End the command if no agent can run here."""
    reason = unmet(sys.platform, lambda name: importlib.util.find_spec(name) is not None)
    if reason:
        raise CannotRun(reason)


def _flag(*names: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option of `run`; the help shows its variable and its default.

    `show_default` says in words what stands in for a default that depends on the machine.
    """
    variable = f"{ENVIRONMENT_PREFIX}_{names[0].removeprefix('--').replace('-', '_').upper()}"
    options: dict[str, Any] = {"envvar": variable, "show_envvar": True, "show_default": True, **settings}
    return click.option(*names, **options)


def version_line() -> str:
    """Return the version of svc.mesh, and of what runs it."""
    system = platform.uname()
    runs_on = f"Python {platform.python_version()}, {system.system} {system.release} {system.machine}"
    return f"svc.mesh {importlib.metadata.version('svcmesh')} ({runs_on}; {compiled.describe()})"


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(version_line())
        context.exit()


@click.group(context_settings=CONTEXT)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version, as `nodeagent version` does.",
)
def main() -> None:
    """The svc.mesh agent of one node: watches Services, answers DNS, proxies mesh traffic."""


@main.command(short_help="Run the agent in the foreground.")
@_flag(
    "--source",
    type=Parsed("source", "`kube`, or `file:` and the path of a file or folder", parse_source),
    metavar="kube|file:PATH",
    default="kube",
    help="Where Services are read from: the API server, or a file or folder of Kubernetes YAML.",
)
@_flag(
    "--endpoints",
    "overrides",
    type=Parsed(
        "endpoints",
        "a Service, perhaps with a port, and addresses with ports",
        parse_override,
    ),
    metavar="NAME[.NAMESPACE][:PORT]=ADDR:PORT,...",
    multiple=True,
    show_default="none",
    help="With --source file: the endpoints of a Service, or of one of its ports, in place of those in the "
    "files; may be given several times (in the environment: separated by spaces). See docs/file-source.md.",
)
@_flag(
    "--default",
    "defaults",
    type=ParsedLines("setting", "an annotation without svc.mesh/, and a value of it", parse_assignment),
    metavar="NAME=VALUE",
    multiple=True,
    show_default="none",
    help="The value of the annotation svc.mesh/NAME for Services whose owner and Namespace do not set it, "
    "such as timeout=5s; may be given several times (in the environment: one on each line). See "
    "docs/defaults.md.",
)
@_flag(
    "--limit",
    "limits",
    type=ParsedLines("setting", "an annotation without svc.mesh/, and a number of it", parse_assignment),
    metavar="NAME=VALUE",
    multiple=True,
    show_default="none",
    help="The highest number that an owner may set in the annotation svc.mesh/NAME, such as "
    "retry-attempts=3; may be given several times (in the environment: one on each line). See "
    "docs/defaults.md.",
)
@_flag(
    "--service-selector",
    metavar="LABELSELECTOR",
    default="",
    show_default="all Services",
    help="With --source kube: the agent asks the API server only for Services with these labels, and for "
    "EndpointSlices with the same labels. Kubernetes copies a Service's labels to its slices; slices that "
    "you make by hand need the labels too. Example: svc.mesh/watch=true.",
)
@_flag(
    "--capture",
    type=click.Choice(["auto", "nftables", "loopback"]),
    default="auto",
    help="How traffic to mesh addresses reaches the agent. nftables: for a node; needs CAP_NET_ADMIN and the "
    "program nft. loopback: for a laptop; needs no privileges. auto: nftables if the agent has both, else "
    "loopback.",
)
@_flag(
    "--mesh-range",
    type=Parsed("CIDR", "an IPv4 network in CIDR form, /4 to /16", parse_range),
    show_default="240.0.0.0/4 with nftables, 127.64.0.0/10 with loopback",
    help="The range of mesh addresses. With loopback it must lie in 127.0.0.0/8 and must not contain "
    "127.0.0.1; with nftables it must not overlap 127.0.0.0/8.",
)
@_flag(
    "--zone",
    type=Parsed("NAME", "a DNS name", parse_zone),
    default="svc.mesh",
    help="The DNS zone of mesh names, which are <service>.<namespace>.<zone>.",
)
@_flag(
    "--alias-zone",
    "alias_zones",
    type=Parsed("NAME", "a DNS name, other than that of --zone", parse_zone),
    multiple=True,
    show_default="none",
    help="A further zone with the same names. You may give the flag several times; in the variable, separate "
    "zones by spaces.",
)
@_flag(
    "--compat",
    type=click.Choice(["traefik-mesh"]),
    show_default="none",
    help="Another mesh whose annotations are read too. A Service with any of them is in the mesh, and the "
    "zones traefik.mesh and maesh answer besides --zone. See docs/migrate-traefik-mesh.md.",
)
@_flag(
    "--dns-listen",
    type=Parsed("ADDR:PORT", "an IP address and a port; an IPv6 address in brackets", parse_listen),
    show_default="127.0.0.1:10053 with loopback",
    help="Where the agent answers DNS queries. With nftables it always answers at the 53rd address of the "
    "range, port 53 (240.0.0.53:53), and here too if you give an address.",
)
@_flag(
    "--admin-listen",
    type=Parsed("ADDR:PORT", "an IP address and a port; an IPv6 address in brackets", parse_listen),
    show_default="0.0.0.0:15000 with nftables, 127.0.0.1:15000 with loopback",
    help="Where the agent serves /healthz, /readyz and /metrics to everybody. All other pages are for this "
    "machine only: at this address if it is a loopback address or 0.0.0.0, else at 127.0.0.1 with the same "
    "port. See docs/security.md.",
)
@_flag(
    "--workers",
    type=Parsed("N", "a whole number from 1 to 256", parse_workers),
    show_default="the CPUs that the process may use (its affinity and CPU quota, rounded down, at least 1)",
    help="How many processes carry traffic.",
)
@_flag(
    "--worker-memory",
    type=Parsed("SIZE", "a size from 96Mi to 1024Gi, such as 256Mi", parse_worker_memory),
    show_default="70 % of the container's memory limit for all workers together, or of half the machine's "
    "memory if there is none, and at least 96Mi",
    help="How much memory each worker may take. When requests under way fill 85 % of it, a worker refuses "
    "new ones with 503; beyond it, it resets the connections of the client that makes it hold most.",
)
@_flag(
    "--node-name",
    type=Parsed("NAME", "the name of a Node", parse_node_name),
    show_default="the host name in lower case",
    help="The name of this node in Kubernetes. The access log can name the pods that run on it.",
)
@_flag(
    "--node-zone",
    type=Parsed("ZONE", "a value of the label topology.kubernetes.io/zone", parse_node_zone),
    default="",
    show_default="the zone that EndpointSlices say of endpoints on this node",
    help="The zone of this node, for svc.mesh/locality. It has nothing to do with --zone, which is for DNS.",
)
@_flag(
    "--ready-file",
    type=click.Path(dir_okay=False),
    default="",
    metavar="PATH",
    show_default="no file",
    help="A file that exists while this agent is ready, for probes. With host networking two agents overlap "
    "during an upgrade and answer at the same admin address, so a probe by HTTP could ask the wrong one.",
)
@_flag(
    "--state-dir",
    type=click.Path(file_okay=False),
    default="",
    metavar="DIR",
    show_default="no folder: nothing is kept",
    help="The folder in which the agent keeps the last good snapshot, so that it can start and serve while "
    "the source is out of reach.",
)
@_flag(
    "--middleware-path",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    show_default="no folder",
    help="A folder of Python files, each with a middleware of your own as MIDDLEWARE; it may be a mounted "
    "ConfigMap. Services choose them with svc.mesh/middleware. See docs/middleware/writing-one.md.",
)
@_flag(
    "--token-store",
    type=Parsed("URL", "redis://[USER@]HOST[:PORT][/DATABASE]", parse_store),
    metavar="URL",
    show_default="none: each node limits for itself",
    help="The Redis or Valkey that keeps the rate limits of the whole cluster (scope=cluster in "
    "svc.mesh/rate-limit). See docs/middleware/rate-limit.md.",
)
@_flag(
    "--token-store-password-file",
    type=click.Path(dir_okay=False),
    default="",
    metavar="PATH",
    show_default="no password",
    help="A file with the password for --token-store. It is read anew for each connection.",
)
@_flag(
    "--traces",
    type=Parsed("URL", COLLECTOR_FORMS, parse_collector),
    metavar="URL",
    show_default="none: nothing is recorded",
    help="The collector that gets the spans of requests to Services with svc.mesh/tracing: "
    "otlp+http://HOST:4318 or otlp+grpc://HOST:4317 in the protocol of OpenTelemetry, "
    "zipkin+http://HOST:9411 in that of Zipkin. With TLS: https in place of http, grpcs in place of grpc. "
    "See docs/tracing.md.",
)
@_flag(
    "--traces-headers-file",
    type=click.Path(dir_okay=False),
    default="",
    metavar="PATH",
    show_default="no header fields",
    help="A file with header fields for --traces, such as a token, in lines of the form 'Name: value'. It is "
    "read anew each time that spans are sent. See docs/tracing.md.",
)
@_flag(
    "--drain-timeout",
    type=Parsed("DURATION", "a Go duration of at most 1h, such as 30s or 1m30s", parse_drain_timeout),
    default="30s",
    help="How long requests in flight may take to finish after SIGTERM.",
)
@_flag(
    "--log-level",
    type=click.Choice(list(LEVELS)),
    default="info",
    help="The least severe lines that are logged.",
)
@_flag(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    help="How log lines look. auto: console if standard error is a terminal, else json.",
)
@_flag(
    "--access-log",
    type=click.Choice(["off", "errors", "all"]),
    default="errors",
    help="Which requests and tcp connections are logged: none, those the mesh or an endpoint failed, or all.",
)
@_flag(
    "--max-series",
    type=Parsed("N", "a whole number from 500 to 1000000", parse_series),
    default=str(MOST_SERIES),
    help="How many time series /metrics shows at most. The busiest ports and sources have series of their "
    "own; what there is no room for is counted together. See docs/metrics.md.",
)
@click.pass_obj
def run(kept: Kept | None, /, middleware_path: str | None, **given: Any) -> None:
    """Run the agent in the foreground until SIGTERM or SIGINT.

    On a laptop, without privileges:

        nodeagent run --source file:DIR --capture loopback
    """
    _require_agent()
    if middleware_path:
        os.environ[FOLDER_VARIABLE] = str(Path(middleware_path).absolute())  # workers read it too
    try:
        settings = resolve_settings(Given(kept=kept is not None, **given))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    # Imported here so that --help and mistakes are answered at once.
    from nodeagent.agent.run import run_agent

    sys.exit(run_agent(settings, kept))


@click.command(short_help="Say what an agent would find on this node.")
@_flag(
    "--mesh-range",
    type=Parsed("CIDR", "an IPv4 network in CIDR form, /4 to /16", parse_range),
    default=NFTABLES_RANGE,
    show_default=True,
    help="The IPv4 range that an agent would make local.",
)
def node_check(mesh_range: str) -> None:
    """Print as JSON what an agent would find on this node; changes nothing.

    `meshctl check --cluster --pre --probe-nodes` runs it on every node and judges what it says.
    """
    _require_agent()
    # pyroute2 costs 13 MiB, which nothing else of this command line needs.
    from nodeagent.capture.node_check import look_at_node

    try:
        facts = look_at_node(mesh_range, importlib.metadata.version("svcmesh"))
    except OSError as error:
        raise click.ClickException(f"this node cannot be looked at: {error}") from error
    click.echo(msgspec.json.encode(facts))


main.add_command(node_check)


@main.command(short_help="Print the version.")
def version() -> None:
    """Print the version of svc.mesh and of what runs it."""
    click.echo(version_line())
