"""Asks one agent, through the API server: that of a node, or any that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import click
import msgspec

from discovery.kube.commands.agents import WHOLE_PAGE, AgentPod, Page, read_pod, wanted, why_unanswered
from discovery.kube.commands.objects import ObjectClient
from discovery.source import SourceError
from nodeagent.meshctl.admin_port import admin_port
from nodeagent.meshctl.commands.cluster import (
    SELECTOR,
    agents_namespace_option,
    cluster_options,
    selector_option,
)


class Agents(msgspec.Struct, frozen=True):
    """Which agent to ask."""

    kubeconfig: str = ""
    context: str = ""
    node: str = ""
    """Empty: any."""
    namespace: str = ""
    selector: str = SELECTOR


def agent_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which agent is asked; the command gets them as `agents`."""

    @wraps(command)
    def run(
        *, kubeconfig: str, context: str, node: str, agents_namespace: str, selector: str, **others: Any
    ) -> Any:
        return command(agents=Agents(kubeconfig, context, node, agents_namespace, selector), **others)

    options = (
        cluster_options,
        click.option("--node", default="", metavar="NAME", help="Ask this node's agent.  [default: any]"),
        agents_namespace_option,
        selector_option,
    )
    for option in reversed(options):
        run = option(run)
    return run


async def find_agent(client: ObjectClient, agents: Agents) -> AgentPod:
    """Return an agent that can be asked.

    Raises:
        ApiError: the pods cannot be listed.
        SourceError: there is none; the message says why.
    """
    folder = f"/api/v1/namespaces/{agents.namespace}/pods" if agents.namespace else "/api/v1/pods"
    found = await client.items(folder, labelSelector=agents.selector) or []
    pods = [pod for pod in map(read_pod, found) if pod.node == (agents.node or pod.node)]
    where = f" on node {agents.node}" if agents.node else ""
    if not pods:
        raise SourceError(f"there is no agent{where}: no pod matches {agents.selector}")
    able = [pod for pod in pods if not why_unanswered(pod)]
    if not able:
        raise SourceError(f"no agent{where} can be asked: {pods[0].name}: {why_unanswered(pods[0])}")
    return min(able, key=lambda pod: (pod.node, pod.name))


async def ask_agent(client: ObjectClient, agents: Agents, page: str, query: Mapping[str, str]) -> Page:
    """Return what an agent answers; raises as `find_agent`."""
    pod = await find_agent(client, agents)
    (answer,) = await client.agent_pages(pod, admin_port(pod), wanted(f"/{page}", query, WHOLE_PAGE))
    return answer


async def read_plan(client: ObjectClient, agents: Agents) -> dict[str, Any]:
    """Return the plan of an agent as `/plan` has it; raises as `find_agent`, also if it is not to be had."""
    page = await ask_agent(client, agents, "plan", {})
    if page.error or page.status != 200:
        reason = page.error or f"it answers {page.status}: {page.text[:200].strip()}"
        raise SourceError(f"the agent's plan cannot be read: {reason}")
    plan: dict[str, Any] = msgspec.json.decode(page.text)
    return plan
