"""`meshctl check`: validates annotations in files before they reach a cluster, or those in a cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, Literal

import click
import msgspec

from discovery.compat import Compat
from nodeagent.meshctl.check import Finding, Report, node_settings, plan_of, report_on
from nodeagent.meshctl.commands.cluster import Where, compat_option, format_option, read_events, where_options

COLOURS = {"error": "red", "info": "cyan"}


@click.command(short_help="Validate the annotations in YAML files or in a cluster.")
@where_options
@format_option
@compat_option
def check(where: Where, output: Literal["text", "json"], compat: Compat | None) -> None:
    """Validate the svc.mesh annotations in files and folders of Kubernetes YAML, or in a cluster.

    All paths count as one cluster, read and judged as the agent of a node does. Exits with 0 if nothing is
    wrong, 1 if anything is, 2 if a path or the cluster cannot be read. Notes (info) are not wrong.
    """
    events = read_events(where, compat)
    report = report_on(events, plan_of(events, node_settings()))
    # None leaves it to click: colours on a terminal only.
    colour = False if os.environ.get("NO_COLOR") else None
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(report_document(report)), indent=2))
    else:
        for line in text_lines(report):
            click.echo(line, color=colour)
    sys.exit(1 if report.errors else 0)


def report_document(report: Report) -> dict[str, Any]:
    """Return the report as values that JSON can hold."""
    return {
        "services": report.services,
        "meshed": report.meshed,
        "errors": report.errors,
        "problems": [
            {
                "file": finding.file,
                "line": finding.line,
                "severity": finding.problem.severity,
                "object": _object(finding),
                "field": finding.problem.field,
                "value": finding.problem.value,
                "reason": finding.problem.reason,
                "expected": finding.problem.expected,
                "effect": finding.problem.effect,
            }
            for finding in report.findings
        ],
    }


def text_lines(report: Report) -> Iterator[str]:
    """Yield the report for a person, in colour, with a summary as the last line."""
    for finding in report.findings:
        yield from _finding_lines(finding)
    notes = len(report.findings) - report.errors
    counts = [
        _count(report.services, "Service") + " checked",
        f"{report.meshed} in the mesh",
        _count(report.errors, "problem"),
        *([_count(notes, "note")] if notes else []),
    ]
    yield click.style(", ".join(counts), fg="red" if report.errors else "green", bold=True)


def _finding_lines(finding: Finding) -> Iterator[str]:
    problem = finding.problem
    place = f"{finding.file}:{finding.line}" if finding.line else finding.file
    severity = click.style(problem.severity, fg=COLOURS[problem.severity])
    what = ": ".join(filter(None, (_object(finding), problem.field, problem.value)))
    yield ": ".join(filter(None, (place and click.style(place, bold=True), severity, what)))
    for label, text in (("wrong", problem.reason), ("right", problem.expected), ("effect", problem.effect)):
        if text:
            label = "note" if label == "wrong" and problem.severity == "info" else label
            yield f"    {label + ':':<8}{text}"


def _object(finding: Finding) -> str:
    """Return kind, namespace and name; empty where a file as a whole is meant."""
    problem = finding.problem
    if problem.kind == "File":
        return ""
    return f"{problem.kind} " + "/".join(filter(None, (problem.namespace, problem.name)))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
