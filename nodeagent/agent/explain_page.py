"""The page `/explain`: what this node would do with a request.

It is worked out by a thread: a backend may have many endpoints.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from nodeagent.admin.server import NoExplanation
from nodeagent.explain.choosing import Node
from nodeagent.explain.explain import explain
from nodeagent.explain.model import Question, Unexplained
from nodeagent.explain.question import Pods, read_question, workload_of
from nodeagent.plan.render import InForce
from nodeagent.proxy.locality import zone_of
from nodeagent.settings import Settings


class ExplainPage:
    """Explains requests by what is in force; both values are replaced, never changed."""

    def __init__(self, in_force: Callable[[], InForce], pods: Callable[[], Pods], settings: Settings) -> None:
        self._in_force = in_force
        self._pods = pods
        self._settings = settings
        self._turn = asyncio.Lock()

    async def body(self, query: Mapping[str, Sequence[str]]) -> bytes:
        """Return the explanation as JSON.

        Raises:
            NoExplanation: the question cannot be answered; the message says why.
        """
        pods = self._pods()
        try:
            question = read_question(query, pods)
            async with self._turn:
                return await asyncio.to_thread(_write, self._in_force(), self._settings, question, pods)
        except Unexplained as error:
            raise NoExplanation(str(error)) from error


def _write(in_force: InForce, settings: Settings, question: Question, pods: Pods) -> bytes:
    node = Node(in_force, settings.node_zone or _zone(in_force, settings.node_name))
    found = explain(node, settings, question, lambda address: workload_of(pods, address))
    return msgspec.json.encode(found) + b"\n"


def _zone(in_force: InForce, name: str) -> str:
    services = in_force.plan.services.values()
    specs = (spec for service in services for spec in service.backends)
    return zone_of(name, (one for spec in specs for one in spec.endpoints)) if name else ""
