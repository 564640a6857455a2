"""What `meshctl check --cluster` does beside looking at Services: can the mesh be installed, and is it well?

The options of that are one value, `Scope`, so that the command itself has no more to know.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import ipaddress
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, Literal

import click
import msgspec

from discovery.kube.commands.objects import open_objects
from discovery.source import SourceError
from nodeagent.cli.flags import ADMIN_PORT
from nodeagent.cli.flagvalues import parse_range, parse_zone
from nodeagent.meshctl.clustercheck.nodes import API_REACHABLE
from nodeagent.meshctl.clustercheck.reading import Unreachable
from nodeagent.meshctl.clustercheck.result import Result
from nodeagent.meshctl.clustercheck.run import AFTER, BEFORE, check_after, check_before, not_reached
from nodeagent.meshctl.clustercheck.show import (
    heading_lines,
    report_document,
    result_lines,
    signs_for,
    summary_line,
)
from nodeagent.meshctl.clustercheck.target import NAMESPACE, Target
from nodeagent.meshctl.clusterdns.stub import Stub
from nodeagent.meshctl.commands.cluster import Unreadable, Where
from nodeagent.settings import NFTABLES_RANGE, dns_address

Mode = Literal["before", "installed", "services", "all"]
MODES: Final = {"before": "--pre", "installed": "--installed", "services": "--services"}


class Scope(msgspec.Struct, frozen=True):
    """What of a cluster is to be checked, and how."""

    mode: Mode
    target: Target
    seconds: float
    strict: bool

    @property
    def services(self) -> bool:
        """Whether the annotations of Services are looked at."""
        return self.mode in ("services", "all")

    @property
    def installation(self) -> bool:
        """Whether the cluster, or the mesh in it, is looked at."""
        return self.mode != "services"


class Outcome(msgspec.Struct, frozen=True):
    """What was found, for programs, and the exit code that it deserves."""

    document: dict[str, Any]
    code: int


def scope_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets them as `scope`, and has `where` among its arguments."""

    @wraps(command)
    def run(*, where: Where, pre: bool, installed: bool, services: bool, **others: Any) -> Any:
        chosen: list[Mode] = []
        chosen += ["before"] if pre else []
        chosen += ["installed"] if installed else []
        chosen += ["services"] if services else []
        names = ("mesh_range", "zone", "image", "probe_nodes", "timeout", "strict")
        given = {name: others.pop(name) for name in names}
        return command(where=where, scope=_scope(where, chosen, **given), **others)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run


def _scope(
    where: Where,
    chosen: list[Mode],
    mesh_range: str,
    zone: str,
    image: str,
    probe_nodes: bool,
    timeout: float,
    strict: bool,
) -> Scope:
    """Return the scope that was asked for.

    Raises:
        click.UsageError: options that do not go together.
    """
    if len(chosen) > 1:
        raise click.UsageError(f"give one of {', '.join(MODES[mode] for mode in chosen)}")
    if where.paths and (chosen or probe_nodes or image or strict):
        raise click.UsageError(
            "--pre, --installed, --services, --probe-nodes, --image and --strict need --cluster"
        )
    # A namespace means the Services in it, unless the installation is asked for.
    mode = chosen[0] if chosen else "services" if where.paths or where.namespace else "all"
    if (probe_nodes or image) and mode != "before":
        raise click.UsageError("--probe-nodes and --image need --pre")
    if probe_nodes != bool(image):
        raise click.UsageError("--probe-nodes and --image need each other: the pods run the agent's image")
    namespace = where.namespace or (NAMESPACE if mode == "before" else "")
    target = Target(
        namespace=namespace,
        stub=Stub((zone,), dns_address(ipaddress.IPv4Network(mesh_range))),
        mesh_range=mesh_range,
        image=image,
        probe_nodes=probe_nodes,
        admin_port=ADMIN_PORT,
        version=importlib.metadata.version("svcmesh"),
    )
    return Scope(mode, target, timeout, strict)


def check_installation(where: Where, scope: Scope, *, text: bool) -> Outcome:
    """Run the checks; with `text` they are shown as they come. What cannot be asked gives exit code 2."""
    display = _Display(text)
    try:
        outcome = asyncio.run(_run(where, scope, display))
    except SourceError as error:
        raise Unreadable(str(error)) from None
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    finally:
        display.clear()
    return outcome


async def _run(where: Where, scope: Scope, display: _Display) -> Outcome:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    # As for Ctrl-C: pods that were made are removed before the end. Not everywhere can a loop do that.
    with contextlib.suppress(NotImplementedError, RuntimeError):
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    before = scope.mode == "before"
    groups, check = (BEFORE, check_before) if before else (AFTER, check_after)
    results: list[Result] = []
    complete = True
    titles = {one.id: group.title for group in groups for one in group.checks}

    def take(result: Result) -> None:
        results.append(result)
        display.show(titles[result.check.id], result)

    cluster = where.cluster
    try:
        async with (
            asyncio.timeout(scope.seconds),
            open_objects(cluster.kubeconfig, cluster.context) as client,
            contextlib.aclosing(check(client, scope.target, display.tell)) as found,
        ):
            async for result in found:
                take(result)
    except TimeoutError:
        complete = False
        for result in not_reached(groups, results, f"{scope.seconds:g} s are over (--timeout)"):
            take(result)
    except Unreachable as error:
        complete = False
        take(API_REACHABLE.failed(str(error)))
    display.end(results, services=scope.services and complete)
    document = report_document(results, groups, "before" if before else "installed", complete=complete)
    return Outcome(document, _exit_code(results, scope.strict, complete=complete))


def _exit_code(results: list[Result], strict: bool, *, complete: bool) -> int:
    if not complete:
        return 2
    bad = ("failed", "warning") if strict else ("failed",)
    return 1 if any(result.outcome in bad for result in results) else 0


class _Display:
    """Shows results as they come, and on a terminal what is being looked at meanwhile."""

    def __init__(self, text: bool) -> None:
        self._text = text
        self._group = ""
        self._before = ""
        self._signs = signs_for(sys.stdout.encoding)
        self._progress = sys.stderr.isatty()
        self._shown = False

    def tell(self, what: str) -> None:
        """Show in the last line of a terminal what is being looked at; a sentence is kept."""
        if " could not be removed " in what:
            self.clear()
            click.echo(what, err=True)
        elif self._progress:
            click.echo(f"\r\x1b[K... {what}", nl=False, err=True)
            self._shown = True

    def clear(self) -> None:
        """Take away what `tell` has shown."""
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._shown = False

    def show(self, group: str, result: Result) -> None:
        """Show a result, below the heading of its group."""
        self.clear()
        if not self._text:
            return
        if group != self._group:
            self._echo(*heading_lines(group, first=not self._group))
            self._group, self._before = group, ""
        self._echo(*result_lines(result, self._signs, self._before))
        self._before = result.message

    def end(self, results: list[Result], *, services: bool) -> None:
        """Show the summary, and the heading of what comes next."""
        if self._text:
            self._echo("", summary_line(results))
            if services:
                self._echo(*heading_lines("services", first=False))

    def _echo(self, *lines: str) -> None:
        for line in lines:
            click.echo(line)


def _checked(parse: Callable[[str], str], text: str) -> str:
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_OPTIONS: Final = (
    click.option("--pre", is_flag=True, help="Before an install: whether the mesh can be installed."),
    click.option("--installed", is_flag=True, help="The installation alone, without its Services."),
    click.option("--services", is_flag=True, help="The annotations of Services alone."),
    click.option(
        "--probe-nodes", is_flag=True, help="With --pre: look at every node, by a short-lived pod of --image."
    ),
    click.option("--image", default="", metavar="IMAGE", help="The agent's image, for --probe-nodes."),
    click.option(
        "--mesh-range",
        default=NFTABLES_RANGE,
        show_default=True,
        metavar="CIDR",
        callback=lambda *given: _checked(parse_range, given[2]),
        help="The IPv4 range of mesh addresses.",
    ),
    click.option(
        "--zone",
        default="svc.mesh",
        show_default=True,
        metavar="NAME",
        callback=lambda *given: _checked(parse_zone, given[2]),
        help="The mesh zone.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0.1, 3600),
        default=120.0,
        show_default=True,
        help="Seconds for the checks of cluster and installation; what is not done by then is not checked.",
    ),
    click.option("--strict", is_flag=True, help="Let warnings make the exit code 1."),
)
