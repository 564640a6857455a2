"""What `meshctl check` finds: the problems an agent would report about the same files, or the same cluster.

It is the agent's own way to a plan (reader, registry, compiler), so that the two never disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from discovery.annotations import ENABLED
from discovery.compat import ZONES, Compat
from discovery.model import Problem, ServiceKey, ServiceObject, Severity
from discovery.position import split_place
from discovery.registry import Registry
from discovery.source import Event, Upserted
from nodeagent.meshctl.slices import slice_to_paste
from nodeagent.plan.compile import compile_plan
from nodeagent.plan.counts import ServiceCounts, count_services
from nodeagent.plan.listeners import UNBACKED
from nodeagent.plan.model import EMPTY_PLAN, NodePlan
from nodeagent.plan.problems import service_problem
from nodeagent.settings import NFTABLES_RANGE, Settings


class Finding(msgspec.Struct, frozen=True):
    """A problem and where to mend it. `line` counts from 1; 0 if it is not known.

    `file` is empty for what was read from a cluster.
    """

    file: str
    line: int
    problem: Problem
    paste: str = ""
    """YAML that would mend it."""


class Given(msgspec.Struct, frozen=True):
    """A value in force that a Service's owner has not written, or not so."""

    service: str
    """`namespace/name`."""
    annotation: str
    value: str
    where: str
    """Who says it."""


class Report(msgspec.Struct, frozen=True):
    """What was checked and what was found, in the order of files and lines."""

    services: int
    counts: ServiceCounts
    """As a node would count them."""
    findings: tuple[Finding, ...]
    asked: int = 0
    """Services whose owners ask for the mesh."""
    given: tuple[Given, ...] = ()
    """Values that come from Namespaces, by Service and annotation."""

    @property
    def errors(self) -> int:
        """How many findings are wrong, not only worth knowing."""
        return self.count("error")

    def count(self, severity: Severity) -> int:
        """Return how many findings are of this severity."""
        return sum(finding.problem.severity == severity for finding in self.findings)


def node_settings(compat: Compat | None = None) -> Settings:
    """Return the settings of an agent on a node, of which only those count that decide what its plan is.

    Nothing is asked of this machine, which need not be one on which an agent could run.
    """
    return Settings(
        source="",
        capture="nftables",
        mesh_range=NFTABLES_RANGE,
        zone="svc.mesh",
        alias_zones=ZONES if compat else (),
        dns_listen=("", 0),
        admin_listen=("", 0),
        workers=1,
        node_name="",
        drain_timeout=0.0,
        log_level="info",
        log_format="console",
        compat=compat,
    )


def plan_of(events: Sequence[Event], settings: Settings) -> NodePlan:
    """Return the plan that an agent makes of these events when it starts with them."""
    registry = Registry()
    registry.fold(events)
    return compile_plan(registry.snapshot(), EMPTY_PLAN, settings)


def report_on(events: Sequence[Event], plan: NodePlan) -> Report:
    """Return what is wrong in events of one complete reading; `plan` is theirs."""
    services = {service.key: service for service in services_of(events)}
    problems = [*plan.all_problems(), *(note for service in services.values() for note in _notes(service))]
    findings = sorted(
        (Finding(*split_place(one.origin), one, _paste(one, services)) for one in problems),
        key=lambda finding: (finding.file, finding.line, finding.problem),
    )
    asked = sum(service.meshed for service in services.values())
    given = tuple(
        Given(str(key), name, one.effective[name], one.origins[name])
        for key, one in sorted(plan.services.items())
        for name in sorted(one.origins)
    )
    return Report(len(services), count_services(plan), tuple(findings), asked, given)


def _paste(problem: Problem, services: Mapping[ServiceKey, ServiceObject]) -> str:
    """Return the EndpointSlice that a problem says is missing, if that is what it says."""
    service = services.get(ServiceKey(problem.namespace, problem.name))
    if problem.kind != "Service" or problem.field != UNBACKED or service is None:
        return ""
    return slice_to_paste(service)


def services_of(events: Iterable[Event]) -> Iterable[ServiceObject]:
    """Yield the Services that events of one reading tell of."""
    for event in events:
        if isinstance(event, Upserted) and isinstance(event.object, ServiceObject):
            yield event.object


def _notes(service: ServiceObject) -> list[Problem]:
    """Return what an agent has no reason to look at, but the owner may have meant otherwise."""
    if service.meshed or not service.annotations:
        return []
    name = min(service.annotations)
    return [
        service_problem(
            service,
            name,
            service.annotations[name],
            f"has no effect without {ENABLED}",
            f'{ENABLED}: "true" beside it',
            "the Service is not meshed",
            severity="info",
        )
    ]
