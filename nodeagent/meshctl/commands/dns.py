"""`meshctl dns`: makes the cluster's DNS forward the mesh zone, shows whether it does, undoes it."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, NoReturn, TypeVar

import click
import msgspec

from discovery.kube.commands.objects import Conflict, ObjectClient, open_objects
from discovery.kube.failure import ApiError
from discovery.source import SourceError
from nodeagent.cli.flagvalues import parse_zone
from nodeagent.meshctl.clusterdns import cluster
from nodeagent.meshctl.clusterdns.change import (
    Change,
    Installation,
    backup_data,
    diff_lines,
    plan_install,
    plan_remove,
    stub_zones,
)
from nodeagent.meshctl.clusterdns.cluster import NotDone
from nodeagent.meshctl.clusterdns.corefile import CorefileNotUnderstood
from nodeagent.meshctl.clusterdns.layout import LayoutNotUnderstood, find_places
from nodeagent.meshctl.clusterdns.question import find_respondents, look
from nodeagent.meshctl.clusterdns.report import (
    install_document,
    remove_document,
    report_on,
    status_document,
    status_lines,
)
from nodeagent.meshctl.clusterdns.stub import Stub
from nodeagent.meshctl.clusterdns.verdict import Sight
from nodeagent.meshctl.commands.cluster import cluster_options
from nodeagent.meshctl.commands.output import Output, output_option, print_answer

T = TypeVar("T")
Command = Callable[..., Any]
COLOURS = {"+": "green", "-": "red", "@": "cyan"}


class Target(msgspec.Struct, frozen=True):
    """Which cluster, as whom, and what is wanted of its DNS."""

    kubeconfig: str
    context: str
    stub: Stub


@click.group(short_help="Make the cluster's DNS forward the mesh zone, or undo it.")
def dns() -> None:
    """Make the cluster's DNS forward the mesh zone to the mesh's DNS.

    Exits with 0 if all is as wanted, 1 if not (then nothing is changed), 2 if the cluster cannot be reached.
    """


def target_options(command: Command) -> Command:
    """Add the options that all commands of the group have; they come as one `target`."""

    @wraps(command)
    def run(kubeconfig: str, context: str, zones: tuple[str, ...], address: str, **rest: Any) -> None:
        stub = Stub(tuple(dict.fromkeys(zones)), address)
        command(target=Target(kubeconfig, context, stub), **rest)

    for option in reversed(
        (
            cluster_options,
            click.option(
                "--zone",
                "zones",
                multiple=True,
                default=("svc.mesh",),
                show_default=True,
                callback=lambda *given: tuple(_checked(parse_zone, zone) for zone in given[2]),
                help="A zone that the mesh's DNS answers; may be given several times.",
            ),
            click.option(
                "--address",
                default="240.0.0.53",
                show_default=True,
                metavar="IP[:PORT]",
                callback=lambda *given: _checked(parse_address, given[2]),
                help="The mesh's DNS: the 53rd address of the mesh range.",
            ),
        )
    ):
        run = option(run)
    return run


def writing_options(command: Command) -> Command:
    """Add the options of commands that change something."""
    for option in (
        click.option(
            "--timeout",
            type=click.FloatRange(1, 3600),
            default=240.0,
            show_default=True,
            help="Seconds until the change has to be in force; kubelets take one or two minutes.",
        ),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Show the difference, change nothing."),
    ):
        command = option(command)
    return command


def parse_address(text: str) -> str:
    """Read an IP address, or an IPv4 address with a port; returns it.

    Raises:
        ValueError: anything else.
    """
    address, colon, port = text.partition(":")
    try:
        if "]" not in text and text.count(":") <= 1:
            ipaddress.IPv4Address(address)
            if not colon or (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
                return text
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not an IPv4 address, such as 240.0.0.53 or 240.0.0.53:53")


@dns.command(short_help="Add the stub.")
@target_options
@writing_options
@output_option()
def install(target: Target, dry_run: bool, yes: bool, timeout: float, output: Output) -> None:
    """Add a stub for the mesh zone to CoreDNS, and to NodeLocal DNSCache where there is one.

    Shows the difference and asks, keeps a backup, waits until the pods of the cluster's DNS answer for the
    mesh zone, and puts everything back if they do not, or if names of the cluster are not answered any more.
    """
    plan = _run(target, lambda client: _plan_install(client, target.stub))
    if output != "text":
        _unasked(dry_run, yes)
        if plan.changes and not dry_run:
            _run(target, lambda client: _install(client, target, plan, timeout))
        print_answer(output, install_document(plan, changed=bool(plan.changes) and not dry_run))
        return
    for place in plan.by_hand:
        click.echo(f"{place} forwards {', '.join(target.stub.zones)} already: made by hand, left alone.")
    for notice in (notice for place in plan.places for notice in place.notices):
        click.echo(f"Note: {notice}")
    if not plan.changes:
        click.echo("Nothing to do: the cluster's DNS has the stub.")
        return
    if _agreed(plan.changes, dry_run, yes):
        click.echo(f"Changing, then waiting until the pods answer (at most {timeout:.0f} s) ...")
        _run(target, lambda client: _install(client, target, plan, timeout))
        click.echo(click.style("Done: ", fg="green") + f"pods resolve {', '.join(target.stub.zones)}.")


@dns.command(short_help="Take the stub away.")
@target_options
@writing_options
@output_option()
def remove(target: Target, dry_run: bool, yes: bool, timeout: float, output: Output) -> None:
    """Put back what was there before `install`.

    Where somebody else has changed the Corefile since, only our own marked block goes.
    """
    changes = _run(target, _plan_remove)
    if output != "text":
        _unasked(dry_run, yes)
        if not dry_run:
            _run(target, lambda client: _remove_all(client, changes, timeout))
        print_answer(output, remove_document(changes, changed=bool(changes) and not dry_run))
        return
    if not changes:
        if not dry_run:
            _run(target, cluster.delete_backup)
        click.echo("Nothing to do: the cluster's DNS has no stub of the mesh.")
        return
    if _agreed(changes, dry_run, yes):
        click.echo(f"Changing, then waiting until the pods have taken it up (at most {timeout:.0f} s) ...")
        _run(target, lambda client: _remove(client, changes, timeout))
        click.echo(click.style("Done: ", fg="green") + "the stub is gone.")


@dns.command(short_help="Show whether the cluster's DNS has the stub and answers.")
@target_options
@output_option()
def status(target: Target, output: Output) -> None:
    """Show where the stub is, and what each pod of the cluster's DNS answers."""
    plan, sights = _run(target, lambda client: _status(client, target.stub))
    found = report_on(plan, sights)
    print_answer(output, status_document(found), status_lines(found))
    if not found.good:
        sys.exit(1)


async def _plan_install(client: ObjectClient, stub: Stub) -> Installation:
    return plan_install(await cluster.read_dns(client), stub)


async def _install(client: ObjectClient, target: Target, plan: Installation, seconds: float) -> None:
    respondents = await find_respondents(client, await cluster.read_dns(client), plan.places)
    await cluster.check_agents(client)
    await cluster.check_beforehand(client, respondents)
    earlier = await cluster.read_backup(client)
    await cluster.write_backup(client, backup_data(plan.changes, earlier))
    try:
        await cluster.change_and_watch(client, plan.changes, respondents, target.stub.zones, seconds)
    except NotDone as error:
        if error.restored and not earlier:
            await cluster.delete_backup(client)
        raise


async def _remove_all(client: ObjectClient, changes: Sequence[Change], seconds: float) -> None:
    if changes:
        await _remove(client, changes, seconds)
    else:
        await cluster.delete_backup(client)


async def _plan_remove(client: ObjectClient) -> tuple[Change, ...]:
    return plan_remove(await cluster.read_dns(client), await cluster.read_backup(client))


async def _remove(client: ObjectClient, changes: Sequence[Change], seconds: float) -> None:
    found = await cluster.read_dns(client)
    try:
        places = find_places(found)
    except LayoutNotUnderstood:
        # What somebody else made of it is no reason to leave our block there; it only cannot be watched.
        places = ()
    respondents = await find_respondents(client, found, places)
    zones = tuple(dict.fromkeys(zone for change in changes for zone in stub_zones(change.before or "")))
    await cluster.change_and_watch(client, changes, respondents, zones, seconds, gone=True)
    await cluster.delete_backup(client)


async def _status(client: ObjectClient, stub: Stub) -> tuple[Installation, tuple[Sight, ...]]:
    found = await cluster.read_dns(client)
    plan = plan_install(found, stub)
    return plan, await look(client, await find_respondents(client, found, plan.places), stub.zones)


def _run(target: Target, action: Callable[[ObjectClient], Awaitable[T]]) -> T:
    """Do something with the cluster; what fails becomes a message and an exit code."""

    async def act() -> T:
        async with open_objects(target.kubeconfig, target.context) as client:
            return await action(client)

    try:
        return asyncio.run(act())
    except SourceError as error:
        _fail(str(error), 2)
    except ApiError as error:
        _fail(
            error.failure.reason, 2 if error.failure.kind in ("connect", "credentials", "unauthorized") else 1
        )
    except Conflict as error:
        _fail(f"somebody else changed it meanwhile ({error}); run it again", 1)
    except NotDone as error:
        _fail(str(error), 1)
    except (LayoutNotUnderstood, CorefileNotUnderstood) as error:
        _fail(f"{error}. Nothing was changed.\n\n{_by_hand(target.stub)}", 1)


def _unasked(dry_run: bool, yes: bool) -> None:
    """See that nobody need be asked: what is printed is for a program.

    Raises:
        click.UsageError: somebody would have to be.
    """
    if not (dry_run or yes):
        raise click.UsageError("-o json needs --dry-run or --yes: a program cannot be asked")


def _fail(message: str, code: int) -> NoReturn:
    click.echo(click.style("Error: ", fg="red") + message, err=True)
    sys.exit(code)


def _by_hand(stub: Stub) -> str:
    zones, named = " ".join(f"{zone}:53" for zone in stub.zones), ", ".join(stub.zones)
    return (
        f"By hand: have the DNS server of your pods forward {named} to {stub.target}. For CoreDNS this is\n\n"
        f"    {zones} {{\n        errors\n        forward . {stub.target}\n    }}\n\n"
        f"and for kube-dns, in the ConfigMap kube-system/kube-dns: "
        f"stubDomains: '{msgspec.json.encode({zone: [stub.target] for zone in stub.zones}).decode()}'.\n"
        f"Single pods can do without: see docs/cluster-dns.md."
    )


def _agreed(changes: Sequence[Change], dry_run: bool, yes: bool) -> bool:
    # None leaves it to click: colours on a terminal only.
    colour = False if os.environ.get("NO_COLOR") else None
    for change in changes:
        for line in diff_lines(change):
            click.echo(click.style(line, fg=COLOURS.get(line[:1])), color=colour)
    if dry_run:
        click.echo("Nothing was changed (--dry-run).")
        return False
    if not yes:
        click.confirm("Change this?", abort=True)
    return True


def _checked(parse: Callable[[str], str], text: str) -> str:
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
