"""What `meshctl status` makes of a real agent's pages."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from discovery.kube.commands.agents import AgentPages, AgentPod, Page
from hack.kit.waiting import until
from nodeagent.agent import app as agent_app
from nodeagent.capture.contract import CaptureError
from nodeagent.cli.flags import Given, resolve_settings
from nodeagent.meshctl.clustercheck.agents import read_capture, read_worker_plans
from nodeagent.meshctl.status import AgentStatus, read_status
from tests.agent.harness import Agent


def test_what_the_checks_of_a_cluster_ask_of_a_real_agent(agent: Agent) -> None:
    readyz, metrics = Page(*agent.admin("/readyz?verbose")), Page(*agent.admin("/metrics"))
    assert read_capture(readyz) == "loopback in place"
    assert set(read_worker_plans(metrics)) == {status_of(agent).plan_version}
    code, body = agent.admin("/resolve?name=web.shop.svc.mesh")
    assert (code, json.loads(body)["rcode"]) == (200, "NOERROR")
    assert agent.admin("/resolve?name=example.com")[0] == 400


async def test_what_the_kernel_refuses_is_shown_until_it_does_not(tmp_path: Path) -> None:
    async def attempt(error: str = "") -> None:
        if error:
            raise CaptureError(error)

    agent = agent_app.Agent(resolve_settings(Given(source=f"file:{tmp_path}", capture="loopback")))

    def said() -> str:
        return next(note for note in agent._notes() if note.startswith("capture: "))

    assert said() == "capture: loopback in place"
    await agent._attempt_capture("apply", attempt("the map was not changed"))
    assert said() == "capture: failed: the map was not changed"
    await agent._attempt_capture("verify", attempt())
    assert said() == "capture: failed: the map was not changed", "the map is still the old one"
    await agent._attempt_capture("apply", attempt())
    assert said() == "capture: loopback in place"


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
