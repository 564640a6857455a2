"""Checks of the agents once the mesh is installed, from their DaemonSets and their pages. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from discovery.kube.commands.agents import Page
from discovery.kube.commands.daemonsets import DaemonSetState
from nodeagent.admin.resolve import Resolution
from nodeagent.meshctl.clustercheck.nodes import parse_version
from nodeagent.meshctl.clustercheck.result import Check, Result, Unknown, named
from nodeagent.meshctl.status import AgentStatus

STATUS = "docs/meshctl.md#meshctl-status"
UPGRADING = "docs/operations.md#upgrading"
ON_A_NODE = "docs/security.md#on-a-node"
AGENTS_EVERYWHERE = Check("agents-everywhere", "every node that should have an agent has one", STATUS)
AGENTS_READY = Check("agents-ready", "the agents are ready", STATUS)
AGENTS_IN_TOUCH = Check("agents-in-touch", "the agents are in touch with the API server", STATUS)
AGENTS_VERSION = Check("agents-version", "the versions of agents and meshctl agree", UPGRADING)
AGENTS_PLAN = Check("agents-plan", "every worker serves its agent's plan, and the agents agree", STATUS)
AGENTS_CAPTURE = Check("agents-capture", "the capture is in place on every node", ON_A_NODE)
AGENTS_RESOLVE = Check("agents-resolve", "mesh names resolve on every node", "docs/cluster-dns.md")

CAPTURE_LINE = "capture: "
IN_PLACE = " in place"


class AgentFact(msgspec.Struct, frozen=True):
    """What is known of one agent."""

    status: AgentStatus
    worker_plans: tuple[int, ...] = ()
    """The versions of the plans that its workers serve."""
    capture: str = ""
    """What it says of its capture; empty if it says nothing."""
    resolved: Resolution | Unknown = Unknown("it was not asked")

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.status.node or self.status.pod


def read_capture(readyz: Page) -> str:
    """Return what `/readyz?verbose` says of the capture; empty if it says nothing."""
    lines = readyz.text.splitlines()
    said = (line.removeprefix(CAPTURE_LINE) for line in lines if line.startswith(CAPTURE_LINE))
    return next(said, "")


def read_worker_plans(metrics: Page) -> tuple[int, ...]:
    """Return the plan versions of the workers, from a metrics page; empty if it does not tell."""
    text = metrics.text if metrics.whole else metrics.text[: metrics.text.rfind("\n") + 1]
    try:
        return tuple(
            int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "svcmesh_worker_plan_version"
        )
    except (ValueError, KeyError, IndexError, OverflowError):
        return ()


def check_agents(
    agents: Sequence[AgentFact] | Unknown,
    daemonsets: Sequence[DaemonSetState] | Unknown,
    meshctl: str,
    name: str,
) -> tuple[Result, ...]:
    """Judge the agents; `meshctl` is the version of this program, `name` a mesh name that was asked for."""
    everywhere = AGENTS_EVERYWHERE.judge(daemonsets, _everywhere)
    if isinstance(agents, Unknown) or not agents:
        return (everywhere, *_without(agents))
    rules: tuple[tuple[Check, Callable[[Sequence[AgentFact]], Result]], ...] = (
        (AGENTS_READY, _ready),
        (AGENTS_IN_TOUCH, _in_touch),
        (AGENTS_VERSION, lambda found: _version(found, meshctl)),
        (AGENTS_PLAN, _plan),
        (AGENTS_CAPTURE, _capture),
        (AGENTS_RESOLVE, lambda found: _resolve(found, name)),
    )
    staying = [agent for agent in agents if agent.status.state != "leaving"]
    return (everywhere, *(decide(staying) for _, decide in rules))


def _without(agents: Sequence[AgentFact] | Unknown) -> tuple[Result, ...]:
    """Return the results where there is no agent, or nobody knows of any."""
    others = (AGENTS_IN_TOUCH, AGENTS_VERSION, AGENTS_PLAN, AGENTS_CAPTURE, AGENTS_RESOLVE)
    if isinstance(agents, Unknown):
        return tuple(check.not_checked(agents.reason) for check in (AGENTS_READY, *others))
    none = AGENTS_READY.failed(
        "there is no agent: install the mesh; `meshctl check --cluster --pre` says whether that can be done"
    )
    return (none, *(check.not_checked("there is no agent") for check in others))


def _everywhere(daemonsets: Sequence[DaemonSetState]) -> Result:
    if not daemonsets:
        return AGENTS_EVERYWHERE.failed("there is no DaemonSet of svc.mesh: install the mesh")
    several = [f"{one.namespace}/{one.name}" for one in daemonsets]
    if len(several) > 1:
        return AGENTS_EVERYWHERE.failed(
            f"{named(several)}: two installations take the capture from each other; remove all but one"
        )
    (only,) = daemonsets
    return AGENTS_EVERYWHERE.of_problems(
        filter(None, [only.complaint]),
        f"{only.present} of {only.wanted} nodes",
        f"pods of those nodes have no mesh; see `kubectl describe daemonset -n {only.namespace} {only.name}`",
    )


def _ready(agents: Sequence[AgentFact]) -> Result:
    bad = (agent for agent in agents if not (agent.status.good or agent.status.state == "stale"))
    return AGENTS_READY.of_problems(
        (f"{one.place}: {one.status.state}: {' '.join(one.status.reason.split())}" for one in bad),
        f"{len(agents)} of {len(agents)}",
        "see `meshctl status` and the agent's log",
    )


def _in_touch(agents: Sequence[AgentFact]) -> Result:
    told = [agent for agent in agents if agent.status.stale is not None]
    if not told:
        return AGENTS_IN_TOUCH.not_checked("no agent could be asked")
    return AGENTS_IN_TOUCH.of_problems(
        (f"{one.place}: {one.status.reason or 'stale'}" for one in told if one.status.stale),
        f"{len(told)} of {len(agents)}",
        "they serve what they knew last; look at the way from these nodes to the API server",
    )


def _version(agents: Sequence[AgentFact], meshctl: str) -> Result:
    told: dict[str, list[str]] = {}
    for agent in agents:
        if agent.status.version:
            told.setdefault(agent.status.version, []).append(agent.place)
    if not told:
        return AGENTS_VERSION.not_checked("no agent could be asked")
    if len(told) > 1:
        shown = (f"{version} on {named(places)}" for version, places in sorted(told.items()))
        return AGENTS_VERSION.warning(
            f"{'; '.join(shown)}: an upgrade is under way or has stopped; see `kubectl rollout status`"
        )
    (version,) = told
    if parse_version(version) != parse_version(meshctl):
        return AGENTS_VERSION.warning(
            f"the agents are {version} and meshctl is {meshctl}: what it says may be wrong; use one of "
            "the same minor version"
        )
    return AGENTS_VERSION.ok(version)


def _plan(agents: Sequence[AgentFact]) -> Result:
    told = [agent for agent in agents if agent.status.plan_version is not None]
    if not told:
        return AGENTS_PLAN.not_checked("no agent could be asked")
    problems = []
    for agent in told:
        behind = sum(plan != agent.status.plan_version for plan in agent.worker_plans)
        if behind:
            problems.append(f"{agent.place}: {behind} of {len(agent.worker_plans)} workers have another")
        if agent.status.plan_version == 0:
            problems.append(f"{agent.place}: it has no plan yet")
    counts: dict[int, list[str]] = {}
    for agent in told:
        if agent.status.services is not None and not agent.status.stale:
            counts.setdefault(agent.status.services, []).append(agent.place)
    if len(counts) > 1:
        usual = max(counts, key=lambda number: len(counts[number]))
        for number, places in counts.items():
            if number != usual:
                problems.append(f"{named(places)}: {number} Services, where others have {usual}")
    services = next(iter(counts), 0)
    return AGENTS_PLAN.of_problems(
        problems,
        f"Services in the mesh: {services}",
        "a change takes a moment; if it stays so, see the agent's log",
        "warning",
    )


def _capture(agents: Sequence[AgentFact]) -> Result:
    told = [agent for agent in agents if agent.capture]
    if not told:
        return AGENTS_CAPTURE.not_checked(
            "no agent tells: none can be asked, or all are older than this check"
        )
    return AGENTS_CAPTURE.of_problems(
        (f"{one.place}: {one.capture}" for one in told if not one.capture.endswith(IN_PLACE)),
        f"{len(told)} of {len(agents)}",
        "mesh addresses may lead nowhere on these nodes; see the agent's log",
    )


def _resolve(agents: Sequence[AgentFact], name: str) -> Result:
    told = {agent.place: agent.resolved for agent in agents if isinstance(agent.resolved, Resolution)}
    if not told:
        reasons = [agent.resolved.reason for agent in agents if isinstance(agent.resolved, Unknown)]
        return AGENTS_RESOLVE.not_checked(reasons[0] if reasons else "there is no agent to ask")
    failed = [f"{place}: {one.error}" for place, one in told.items() if one.error]
    if not failed and all(one.rcode != "NOERROR" for one in told.values()):
        return AGENTS_RESOLVE.warning(
            f"no agent knows {name}: does agent.serviceSelector leave its Service out, "
            "or is the zone another one?"
        )
    failed += [
        f"{place}: {one.name} {one.rcode}"
        for place, one in told.items()
        if not one.error and one.rcode != "NOERROR"
    ]
    return AGENTS_RESOLVE.of_problems(
        failed,
        f"{name} on {len(told)} of {len(agents)} nodes",
        "pods of these nodes do not find mesh names; see the agent's log",
    )
