"""What `meshctl migrate` prints: `kubectl annotate` lines that say what another mesh's annotations say.

Decided from the plan that an agent with `--compat` makes, so the lines say what is in force with that flag: a
value that cannot be used is left out and listed with its reason. Pure.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from discovery.annotations import ENABLED
from discovery.kube.commands.smi import UNSEEN
from discovery.manifest import SMI_KINDS, TRAFFIC_TARGET
from discovery.model import ServiceKey, ServiceObject
from discovery.source import Event
from nodeagent.meshctl.check import Finding, report_on, services_of
from nodeagent.plan.model import NodePlan

_OTHER_KINDS = frozenset(kind.kind for kind in SMI_KINDS)


class ServiceMigration(msgspec.Struct, frozen=True):
    """One Service that carries annotations of another mesh."""

    key: ServiceKey
    annotations: Mapping[str, str]
    """Ours, to set; empty if it stays out of the mesh."""
    foreign: tuple[str, ...]
    """The names of the other mesh's, to remove in the end."""
    findings: tuple[Finding, ...]
    """What has no equivalent, and what to know."""

    @property
    def lossless(self) -> bool:
        """Whether nothing is lost."""
        return all(finding.problem.severity != "error" for finding in self.findings)


class Migration(msgspec.Struct, frozen=True):
    """All that carries annotations of another mesh, and that mesh's own objects."""

    services: tuple[ServiceMigration, ...]
    findings: tuple[Finding, ...]
    """About objects of the other mesh that this one does not heed."""

    def lost(self, accept_open: bool) -> tuple[Finding, ...]:
        """Return those of `findings` that lose something; open access may have been accepted.

        What could not be looked at is never accepted: nobody knows what it is.
        """
        return tuple(
            finding
            for finding in self.findings
            if finding.problem.severity == "error" and not (accept_open and _opens(finding))
        )


def _opens(finding: Finding) -> bool:
    return finding.problem.kind == TRAFFIC_TARGET and finding.problem.name != UNSEEN


def plan_migration(events: Sequence[Event], plan: NodePlan) -> Migration:
    """Return what is to be done, by namespace and name; events and plan must be made with `--compat`."""
    services = sorted((s for s in services_of(events) if s.foreign), key=lambda service: service.key)
    findings: dict[ServiceKey, list[Finding]] = {service.key: [] for service in services}
    others = []
    for finding in report_on(events, plan).findings:
        key = ServiceKey(finding.problem.namespace, finding.problem.name)
        if finding.problem.severity == "warning":  # endpoints are no matter of annotations
            continue
        if finding.problem.kind == "Service" and key in findings:
            findings[key].append(finding)
        elif finding.problem.kind in _OTHER_KINDS:
            others.append(finding)
    return Migration(
        tuple(
            ServiceMigration(
                service.key,
                _annotations(service, plan),
                tuple(sorted(service.foreign)),
                tuple(findings[service.key]),
            )
            for service in services
        ),
        tuple(others),
    )


def _annotations(service: ServiceObject, plan: NodePlan) -> dict[str, str]:
    """Return what takes the place of the foreign annotations, as it is in force."""
    compiled = plan.services.get(service.key)
    in_force = compiled.effective if compiled is not None else {}
    names = [ENABLED, *sorted(service.translated)]
    return {name: in_force[name] for name in names if name in in_force}


REMINDER: Final = (
    "# If Traefik Mesh ran in ACL mode, which no object shows, it let no client in without a TrafficTarget;"
    " here every client that can reach the node is let in."
)


def annotate_lines(migration: Migration, kubectl: Sequence[str]) -> Iterator[str]:
    """Yield a shell script that sets our annotations beside the old ones; what is lost is in its comments."""
    for service in migration.services:
        for finding in service.findings:
            yield from _comments(finding)
        if service.annotations:
            pairs = [f"{name}={value}" for name, value in service.annotations.items()]
            yield _line(kubectl, "--overwrite", service, pairs)
    for finding in migration.findings:
        yield from _comments(finding)


def remove_lines(migration: Migration, kubectl: Sequence[str]) -> Iterator[str]:
    """Yield a shell script that removes the old annotations, for when the other mesh has gone."""
    for service in migration.services:
        yield _line(kubectl, "", service, [f"{name}-" for name in service.foreign])
    for finding in migration.findings:
        yield from _comments(finding)


def migration_document(migration: Migration, accept_open: bool) -> dict[str, Any]:
    """Return the migration as values that JSON can hold, with all that the lines for kubectl say."""
    return {
        "services": [
            {
                "namespace": service.key.namespace,
                "name": service.key.name,
                "annotate": dict(service.annotations),
                "remove": list(service.foreign),
                "lossless": service.lossless,
                "findings": [_finding(finding) for finding in service.findings],
            }
            for service in migration.services
        ],
        "objects": [
            {**_finding(finding), "lost": finding in migration.lost(accept_open)}
            for finding in migration.findings
        ],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    problem = finding.problem
    return {
        "file": finding.file,
        "line": finding.line,
        "severity": problem.severity,
        "kind": problem.kind,
        "namespace": problem.namespace,
        "name": problem.name,
        "field": problem.field,
        "value": problem.value,
        "reason": problem.reason,
        "expected": problem.expected,
        "effect": problem.effect,
    }


def _line(kubectl: Sequence[str], flag: str, service: ServiceMigration, pairs: Sequence[str]) -> str:
    namespace, name = service.key
    words = [*kubectl, "annotate", "service", *([flag] if flag else []), "-n", namespace, name, *pairs]
    return shlex.join(words)


def _comments(finding: Finding) -> Iterator[str]:
    problem = finding.problem
    place = f" ({finding.file}:{finding.line})" if finding.line else ""
    name = "/".join(filter(None, (problem.namespace, problem.name)))
    whose = name if problem.kind == "Service" else f"{problem.kind} {name}"
    said = ": ".join(filter(None, (f"{whose}{place}", problem.field, problem.value, problem.reason)))
    yield _comment(said)
    for label, text in (("instead", problem.expected), ("effect", problem.effect)):
        if text:
            yield _comment(f"    {label}: {text}")


def _comment(text: str) -> str:
    """Return one line whatever the text: the script may be piped into a shell, and values are anybody's."""
    indent = text[: len(text) - len(text.lstrip())]
    return f"# {indent}{' '.join(text.split())}"
