"""What `meshctl status` makes of a real agent's pages."""

from __future__ import annotations

from importlib.metadata import version

from discovery.kube.commands.agents import AgentPages, AgentPod, Page
from hack.kit.waiting import until
from nodeagent.meshctl.status import AgentStatus, read_status
from tests.agent.harness import Agent


def status_of(agent: Agent) -> AgentStatus:
    pages = (Page(*agent.admin(path)) for path in ("/readyz?verbose", "/metrics"))
    return read_status(AgentPages(AgentPod("agent", "node", "Running", leaving=False), *pages))


def test_a_real_agent(agent: Agent) -> None:
    found = status_of(agent)
    assert (found.state, found.reason, found.version) == ("ready", "", version("svcmesh"))
    assert (found.services, found.problems, found.stale) == (1, 0, 0.0)
    assert found.plan_version
    assert found.plan_age is not None
    assert found.workers == len(agent.workers())
    away = agent.cluster.rename(agent.cluster.with_name("away"))
    until(lambda: status_of(agent).state == "stale")
    assert status_of(agent).reason.startswith("stale since ")
    away.rename(agent.cluster)
    until(lambda: status_of(agent).state == "ready")
