"""What commands share: the options that say where to read from, and the reading itself."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import click
import msgspec
from click.core import ParameterSource

from discovery.compat import Compat
from discovery.files.overrides import Override
from discovery.files.reading import MAX_BYTES, read_once
from discovery.kube.commands.reading import Cluster, read_cluster
from discovery.kube.failure import ApiError
from discovery.source import Event, SourceError
from nodeagent.cli.flags import check_overrides
from nodeagent.cli.flagvalues import parse_override
from nodeagent.cli.parsed import Parsed
from nodeagent.meshctl.asking import WhichAgents

Command = TypeVar("Command", bound=Callable[..., Any])

NAMESPACE_HELP = "This namespace only. Of `check --pre`: where the mesh is to be installed, else svcmesh."
STDIN = "-"
STDIN_NAME = "<stdin>"
"""Standard input, where a file would be named."""

_NAMED_WITH_SERVICE = "svcmesh.namespace-of-service"
"""Where `Context.meta` has the namespace that stands with SERVICE; empty: there is none."""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Where(msgspec.Struct, frozen=True):
    """Where Services are read from: files, or else a cluster."""

    paths: tuple[str, ...]
    """`-` is standard input."""
    cluster: Cluster
    namespace: str
    """Of the cluster; empty: all."""


def parse_namespace(_: click.Context, __: click.Parameter, value: str) -> str:
    """Read the name of a namespace; empty stays empty."""
    if value and not _NAMESPACE.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not the name of a namespace, such as shop")
    return value


def _parse_service(context: click.Context, _: click.Parameter, value: str) -> str:
    """Read the name of a Service; a namespace that stands with it is for `parse_service_namespace`."""
    if "/" in value:
        namespace, _slash, name = value.partition("/")
        parts = [name, namespace]
    else:
        parts = value.split(".", 1)
    if value and not all(map(_NAMESPACE.fullmatch, parts)):
        raise click.BadParameter(
            f"{value!r} is not the name of a Service, such as catalog, shop/catalog or catalog.shop"
        )
    context.meta[_NAMED_WITH_SERVICE] = parts[1] if len(parts) == 2 else ""
    return parts[0]


def parse_service_namespace(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Read `--namespace` of a command that has SERVICE: the namespace may stand there instead."""
    namespace = parse_namespace(context, parameter, value)
    named: str = context.meta.get(_NAMED_WITH_SERVICE, "")
    if not named:
        return namespace
    if context.get_parameter_source(str(parameter.name)) != ParameterSource.DEFAULT and namespace != named:
        raise click.BadParameter(f"{namespace!r} is another namespace than that of SERVICE, {named!r}")
    return named


def service_argument(*, required: bool = True) -> Callable[[Command], Command]:
    """Return what adds SERVICE: `catalog`, or with its namespace `shop/catalog` or `catalog.shop`.

    It is read before `--namespace`, wherever it stands, so that the command gets the right namespace.
    """
    if required:
        return click.argument("service", callback=_parse_service, is_eager=True)
    return click.argument("service", default="", callback=_parse_service, is_eager=True)


class Unreadable(click.ClickException):
    """What a command needs cannot be read: a cluster, an agent, a path. The command line was right."""

    exit_code = 2


@contextmanager
def reading(which: WhichAgents | None = None) -> Iterator[None]:
    """End the command with status 2 and the reason if the cluster, or the agents, cannot be asked."""
    try:
        yield
    except SourceError as error:
        hint = ""
        forbidden = isinstance(error.__cause__, ApiError) and error.__cause__.failure.kind == "forbidden"
        if forbidden and which is not None and not which.namespace:
            hint = "; if you may see the agents' namespace only, name it: --agents-namespace NAME"
        raise Unreadable(f"{error}{hint}") from None
    except ApiError as error:
        raise Unreadable(error.failure.reason) from None


service_namespace_option = click.option(
    "--namespace",
    "-n",
    default="default",
    show_default=True,
    metavar="NAME",
    callback=parse_service_namespace,
    help="The namespace of SERVICE, if it is not written there.",
)


def cluster_options(command: Command) -> Command:
    """Add `--kubeconfig` and `--context`; the command gets `kubeconfig` and `context`."""
    options = (
        click.option(
            "--kubeconfig", default="", metavar="FILE", help="As kubectl has it; $KUBECONFIG counts."
        ),
        click.option("--context", default="", metavar="NAME", help="A context of the kubeconfig."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def where_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add PATH... and `--cluster` with its options; the command gets them as `where`."""

    @wraps(command)
    def run(
        *,
        paths: tuple[str, ...],
        from_cluster: bool,
        kubeconfig: str,
        context: str,
        namespace: str,
        **others: Any,
    ) -> Any:
        if bool(paths) == from_cluster:
            raise click.UsageError("give either PATH... or --cluster")
        if not from_cluster and (kubeconfig or context or namespace):
            raise click.UsageError("--kubeconfig, --context and --namespace need --cluster")
        return command(where=Where(paths, Cluster(kubeconfig, context), namespace), **others)

    options = (
        click.argument("paths", metavar="[PATH...]", nargs=-1),
        click.option("--cluster", "from_cluster", is_flag=True, help="Read the cluster of the kubeconfig."),
        cluster_options,
        click.option(
            "--namespace", "-n", default="", metavar="NAME", callback=parse_namespace, help=NAMESPACE_HELP
        ),
    )
    for option in reversed(options):
        run = option(run)
    return run


compat_option = click.option(
    "--compat",
    type=click.Choice(["traefik-mesh"]),
    help="Read the annotations of this mesh too, as an agent with the same flag does.",
)


overrides_option = click.option(
    "--endpoints",
    "overrides",
    type=Parsed(
        "endpoints",
        "a Service, perhaps with a port, and addresses with ports",
        parse_override,
    ),
    metavar="NAME[.NAMESPACE][:PORT]=ADDR:PORT,...",
    multiple=True,
    help="Endpoints in place of those in the files, as an agent with the same flag has them.",
)


def read_events(
    where: Where, compat: Compat | None, overrides: tuple[Override, ...] = ()
) -> tuple[Event, ...]:
    """Return the events of one complete reading.

    Raises:
        Unreadable: it cannot be read; the message says why.
    """
    try:
        check_overrides(overrides)
        if where.paths:
            paths = [path for path in where.paths if path != STDIN]
            texts = {STDIN_NAME: sys.stdin.buffer.read(MAX_BYTES + 1)} if STDIN in where.paths else {}
            return read_once(*paths, compat=compat, overrides=overrides, texts=texts)
        return asyncio.run(read_cluster(where.cluster, namespace=where.namespace, compat=compat))
    except (SourceError, ValueError) as error:
        raise Unreadable(str(error)) from None
