"""`meshctl check`: validates annotations in files before they reach a cluster, or those in a cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from discovery.annotations import ENABLED
from discovery.compat import Compat
from discovery.files.overrides import Override
from discovery.model import Problem
from nodeagent.meshctl.check import Finding, Report, node_settings, plan_of, report_on
from nodeagent.meshctl.commands.cluster import (
    Where,
    compat_option,
    overrides_option,
    read_events,
    where_options,
)
from nodeagent.meshctl.commands.clustercheck import Scope, check_installation, scope_options
from nodeagent.meshctl.commands.output import Output, output_option, print_answer
from nodeagent.meshctl.plain import plain
from nodeagent.plan.problems import name_of

MOST_GIVEN = 50
"""Values from Namespaces that are printed."""
MOST_PASTED = 3
"""EndpointSlices that are printed."""
COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


@click.command(short_help="Validate annotations in YAML files; check a cluster before and after an install.")
@where_options
@scope_options
@output_option()
@compat_option
@overrides_option
def check(
    where: Where,
    scope: Scope,
    output: Output,
    compat: Compat | None,
    overrides: tuple[Override, ...],
) -> None:
    """Validate the svc.mesh annotations in files and folders of Kubernetes YAML, or in a cluster.

    All paths count as one cluster, read and judged as the agent of a node does; - is standard input, as of
    kubectl get services,endpointslices -A -o yaml. Exits with 0 if nothing is wrong, 1 if anything is, 2 if
    a path or the cluster cannot be read, or a folder holds no such file. Warnings (a Service in files that
    has no endpoints) and notes (info) are not wrong.

    Of a cluster the installation is checked first: agents ready, their versions, capture and names on every
    node, the cluster's DNS. With --namespace it is left out. --pre says whether the mesh can be installed.
    """
    if overrides and not where.paths:
        raise click.UsageError("--endpoints has no meaning with --cluster")
    installation = check_installation(where, scope, text=output == "text") if scope.installation else None
    if installation is not None and (installation.code == 2 or not scope.services):
        print_answer(output, installation.document)
        sys.exit(installation.code)
    events = read_events(where, compat, overrides)
    report = report_on(events, plan_of(events, node_settings()))
    further = {} if installation is None else {"installation": installation.document}
    print_answer(output, report_document(report) | further, text_lines(report, files=bool(where.paths)))
    sys.exit(1 if report.errors or (installation is not None and installation.code) else 0)


def report_document(report: Report) -> dict[str, Any]:
    """Return the report as values that JSON can hold."""
    return {
        "services": report.services,
        "meshed": report.counts.meshed,
        "left_out": report.counts.left_out,
        "with_problems": report.counts.with_problems,
        "errors": report.errors,
        "warnings": report.count("warning"),
        "problems": [
            {
                "file": finding.file,
                "line": finding.line,
                "severity": finding.problem.severity,
                "object": _object(finding.problem),
                "field": finding.problem.field,
                "value": finding.problem.value,
                "reason": finding.problem.reason,
                "expected": finding.problem.expected,
                "effect": finding.problem.effect,
                "paste": finding.paste,
            }
            for finding in report.findings
        ],
        "given": [msgspec.to_builtins(one) for one in report.given],
    }


def text_lines(report: Report, *, files: bool) -> Iterator[str]:
    """Yield the report for a person, in colour, with a summary as the last line."""
    pasted = 0
    for finding in report.findings:
        yield from _finding_lines(finding)
        if finding.paste:
            pasted += 1
            yield from _paste_lines(finding.paste if pasted <= MOST_PASTED else "")
    if files and not report.asked and not report.errors:
        which = "There is no Service" if not report.services else "No Service asks for the mesh"
        yield f'{which}: one with the annotation {ENABLED}: "true" would be checked and served.'
    yield from _given_lines(report)
    warnings, notes = report.count("warning"), report.count("info")
    counts = [
        _count(report.services, "Service") + " checked",
        f"{report.counts.meshed} in the mesh",
        *([f"{report.counts.left_out} left out"] if report.counts.left_out else []),
        _count(report.errors, "problem"),
        *([_count(warnings, "warning")] if warnings else []),
        *([_count(notes, "note")] if notes else []),
    ]
    yield click.style(", ".join(counts), fg=_colour(report), bold=True)


def _given_lines(report: Report) -> Iterator[str]:
    """Yield the values that Namespaces give to Services, or hold down."""
    for one in report.given[:MOST_GIVEN]:
        yield plain(f"Service {one.service}: {one.annotation}={one.value}, from {one.where}")
    if len(report.given) > MOST_GIVEN:
        yield f"and {len(report.given) - MOST_GIVEN} more values from Namespaces: --format json has all"


def _colour(report: Report) -> str:
    if report.errors:
        return "red"
    return "yellow" if report.count("warning") else "green"


def _finding_lines(finding: Finding) -> Iterator[str]:
    problem = finding.problem
    place = f"{finding.file}:{finding.line}" if finding.line else finding.file
    severity = click.style(problem.severity, fg=COLOURS[problem.severity])
    what = plain(": ".join(filter(None, (_object(problem), problem.field, problem.value))))
    yield ": ".join(filter(None, (place and click.style(place, bold=True), severity, what)))
    for label, text in (("wrong", problem.reason), ("right", problem.expected), ("effect", problem.effect)):
        if text:
            label = "note" if label == "wrong" and problem.severity == "info" else label
            yield f"    {label + ':':<8}{plain(text)}"


def _object(problem: Problem) -> str:
    """Return what a problem is about; nothing where it is a file as a whole, for its place names that."""
    return "" if problem.kind == "File" else name_of(problem)


def _paste_lines(text: str) -> Iterator[str]:
    """Yield YAML at the beginning of lines, where it can be marked and pasted; or where to find it."""
    if text:
        yield "    paste:  this behind the Service, with the real addresses"
        yield from text.splitlines()
    else:
        yield "    paste:  --format json has the EndpointSlice"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
