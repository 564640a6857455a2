"""How an agent is, as `meshctl status` shows it: from its pages to values, and from those to words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from discovery.kube.commands.agents import AgentPages, Page, why_unanswered
from discovery.kube.commands.daemonsets import DaemonSetState
from nodeagent.meshctl.table import Table

State = Literal["ready", "leaving", "stale", "not ready", "not running", "unreachable"]
GOOD: tuple[State, ...] = ("ready", "leaving")


class AgentStatus(msgspec.Struct, frozen=True):
    """One agent. The numbers are None where it did not tell them."""

    node: str
    pod: str
    state: State
    reason: str = ""
    """Why it is not simply ready."""
    version: str = ""
    plan_version: int | None = None
    """Counts the changes since this agent started: agents that do the same may have different ones."""
    plan_age: float | None = None
    """Seconds since the plan changed."""
    stale: float | None = None
    """Seconds for which the source has been out of touch; 0 while it is in touch."""
    services: int | None = None
    problems: int | None = None
    workers: int | None = None
    namespace: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing has to be done about it."""
        return self.state in GOOD


def read_status(agent: AgentPages) -> AgentStatus:
    """Return how an agent is; never raises, whatever its pages say."""
    return msgspec.structs.replace(_read_status(agent), namespace=agent.pod.namespace)


def _read_status(agent: AgentPages) -> AgentStatus:
    pod = agent.pod
    if pod.leaving:
        return AgentStatus(pod.node, pod.name, "leaving", "it has been told to end")
    if not_running := why_unanswered(pod):
        return AgentStatus(pod.node, pod.name, "not running", not_running)
    error = agent.readyz.error or agent.metrics.error
    if error:
        return AgentStatus(pod.node, pod.name, "unreachable", error)
    numbers = read_numbers(agent.metrics)
    version = numbers.pop("version", None)
    if version is None or agent.readyz.status not in (200, 503):
        answers = f"/readyz answers {agent.readyz.status}, /metrics {agent.metrics.status}"
        return AgentStatus(pod.node, pod.name, "unreachable", f"no svc.mesh agent answers there: {answers}")
    state, reason = _judge(agent.readyz, bool(numbers.get("stale")))
    return AgentStatus(pod.node, pod.name, state, reason, version, **numbers)


def _judge(readyz: Page, stale: bool) -> tuple[State, str]:
    lines = readyz.text.splitlines()
    if readyz.status != 200:
        missing = [line.removeprefix("[-] ") for line in lines if line.startswith("[-] ")]
        return "not ready", f"waits for {', '.join(missing)}" if missing else "it does not say why"
    if stale:
        said = (line.removeprefix("source: ") for line in lines if line.startswith("source: stale"))
        return "stale", next(said, "the source is out of touch")
    return "ready", ""


_NUMBERS: Mapping[str, tuple[str, type[int] | type[float]]] = {
    "svcmesh_plan_version": ("plan_version", int),
    "svcmesh_plan_age_seconds": ("plan_age", float),
    "svcmesh_source_stale_seconds": ("stale", float),
    "svcmesh_services": ("services", int),
    "svcmesh_problems": ("problems", int),
    "svcmesh_workers": ("workers", int),
}


def read_numbers(page: Page) -> dict[str, Any]:
    """Return what a metrics page says of its agent, by the fields of `AgentStatus`; empty if it is none."""
    if page.status != 200:
        return {}
    # Only the start of a long page is here; a line cut short must not pass for a whole one.
    text = page.text if page.whole else page.text[: page.text.rfind("\n") + 1]
    found: dict[str, Any] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "svcmesh_build_info":
                    found["version"] = sample.labels.get("version", "")
                elif sample.name in _NUMBERS:
                    field, kind = _NUMBERS[sample.name]
                    found[field] = kind(sample.value)
    except (ValueError, KeyError, IndexError, OverflowError):
        return {}
    return found


COLUMNS = (
    "NODE",
    "NAMESPACE",
    "AGENT",
    "STATE",
    "VERSION",
    "PLAN",
    "CHANGED",
    "SERVICES",
    "PROBLEMS",
    "WORKERS",
)


def text_lines(agents: Sequence[AgentStatus]) -> Iterator[str | Table]:
    """Yield a table, the reasons of those that are not ready, and a summary."""
    yield Table(COLUMNS, [_row(agent) for agent in agents])
    for agent in agents:
        if agent.reason:
            reason = " ".join(agent.reason.split())
            yield f"{agent.node or '(no node)'} ({agent.pod}): {agent.state}: {reason}"
    good = sum(agent.good for agent in agents)
    yield f"{good} of {len(agents)} agents in order"


def _row(agent: AgentStatus) -> tuple[str, ...]:
    counts = (agent.services, agent.problems, agent.workers)
    return (
        agent.node or "-",
        agent.namespace,
        agent.pod,
        agent.state,
        agent.version or "-",
        "-" if agent.plan_version is None else str(agent.plan_version),
        "-" if agent.plan_age is None else f"{show_age(agent.plan_age)} ago",
        *("-" if count is None else str(count) for count in counts),
    )


def show_age(seconds: float) -> str:
    """Return a time in its largest fitting unit: `42s`, `7m`, `3h`, `12d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.0f}s"


def missing_lines(daemonsets: Sequence[DaemonSetState]) -> Iterator[str]:
    """Yield what is to be said of pods that should exist and do not."""
    yield from filter(None, (daemonset.complaint for daemonset in daemonsets))


def status_document(
    agents: Sequence[AgentStatus], daemonsets: Sequence[DaemonSetState] = ()
) -> dict[str, Any]:
    """Return the agents, and the DaemonSets whose pods are missing, as values that JSON can hold."""
    return {
        "missing": [
            {
                "namespace": one.namespace,
                "daemonset": one.name,
                "wanted": one.wanted,
                "missing": one.missing,
                "reason": one.refusal,
            }
            for one in daemonsets
            if one.missing
        ],
        "agents": [msgspec.to_builtins(agent) for agent in agents],
        "total": len(agents),
        "good": sum(agent.good for agent in agents),
    }
