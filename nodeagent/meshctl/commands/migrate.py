"""`meshctl migrate`: from the annotations of Traefik Mesh or Maesh to ours."""

from __future__ import annotations

import sys

import click

from nodeagent.meshctl.check import node_settings, plan_of
from nodeagent.meshctl.commands.cluster import Where, read_events, where_options
from nodeagent.meshctl.commands.output import Output, output_option, print_answer
from nodeagent.meshctl.migrate import (
    REMINDER,
    annotate_lines,
    migration_document,
    plan_migration,
    remove_lines,
)


@click.command(short_help="Print kubectl lines that replace annotations of Traefik Mesh or Maesh.")
@where_options
@click.option(
    "--remove",
    is_flag=True,
    help="Print the lines that remove the old annotations, for when that mesh has gone.",
)
@click.option(
    "--accept-open",
    is_flag=True,
    help="Let access that TrafficTargets limited be open: they are listed, and do not make the exit code 1."
    " TrafficSplits still do, and whatever could not be looked at.",
)
@output_option()
def migrate(where: Where, remove: bool, accept_open: bool, output: Output) -> None:
    """Print the kubectl lines that replace mesh.traefik.io/* and maesh.containo.us/* annotations.

    They are read from files and folders of Kubernetes YAML, or from a cluster, with the meaning that an agent
    with --compat traefik-mesh gives them. The output is a shell script; what has no equivalent is in its
    comments, SMI objects too (TrafficTarget, TrafficSplit). Nothing is changed. Exits with 0, with 1 if
    anything has no equivalent, with 2 if a path or the cluster cannot be read.
    """
    events = read_events(where, "traefik-mesh")
    plan = plan_of(events, node_settings("traefik-mesh"))
    migration = plan_migration(events, plan)
    lost = sum(not service.lossless for service in migration.services)
    others = migration.lost(accept_open)
    if output != "text":
        print_answer(output, migration_document(migration, accept_open))
        sys.exit(1 if lost or others else 0)
    cluster = where.cluster
    kubectl = [
        "kubectl",
        *(["--kubeconfig", cluster.kubeconfig] if cluster.kubeconfig else []),
        *(["--context", cluster.context] if cluster.context else []),
    ]
    if (migration.services or migration.findings) and not (remove or accept_open):
        click.echo(REMINDER)
    for line in (remove_lines if remove else annotate_lines)(migration, kubectl):
        click.echo(line)
    services = len(migration.services)
    count = f"{services} Service{'' if services == 1 else 's'} with such annotations"
    objects = f"; {len(others)} SMI object{'' if len(others) == 1 else 's'} without an equivalent"
    click.echo(
        f"# {count}, {lost} with something that has no equivalent{objects if others else ''}", err=True
    )
    sys.exit(1 if lost or others else 0)
