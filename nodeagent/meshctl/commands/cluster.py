"""What commands share: the options that say where to read from, and the reading itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click
import msgspec

from discovery.compat import Compat
from discovery.files.reading import read_once
from discovery.kube.commands.reading import Cluster, read_cluster
from discovery.source import Event, SourceError

Command = TypeVar("Command", bound=Callable[..., Any])

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Where(msgspec.Struct, frozen=True):
    """Where Services are read from: files, or else a cluster."""

    paths: tuple[str, ...]
    cluster: Cluster
    namespace: str
    """Of the cluster; empty: all."""


def parse_namespace(_: click.Context, __: click.Parameter, value: str) -> str:
    """Read the name of a namespace; empty stays empty."""
    if value and not _NAMESPACE.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not the name of a namespace, such as shop")
    return value


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
            "--namespace", "-n", default="", metavar="NAME", callback=parse_namespace, help="This one only."
        ),
    )
    for option in reversed(options):
        run = option(run)
    return run


format_option = click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or for programs.",
)

compat_option = click.option(
    "--compat",
    type=click.Choice(["traefik-mesh"]),
    help="Read the annotations of this mesh too, as an agent with the same flag does.",
)


def read_events(where: Where, compat: Compat | None) -> tuple[Event, ...]:
    """Return the events of one complete reading.

    Raises:
        click.UsageError: it cannot be read (exit code 2); the message says why.
    """
    try:
        if where.paths:
            return read_once(*where.paths, compat=compat)
        return asyncio.run(read_cluster(where.cluster, namespace=where.namespace, compat=compat))
    except SourceError as error:
        raise click.UsageError(str(error)) from None
