"""What agents say of the last seconds, put together: what `stat`, `top`, `graph` and `dashboard` show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from nodeagent.meshctl.asking import Agents, Answer, Untold, ask_any
from nodeagent.meshctl.said import read_answers
from nodeagent.stats.columns import DURATION_BOUNDS
from nodeagent.stats.overview import Backing, Edge, Live, ServiceName, ServiceRow, merge_nodes
from nodeagent.stats.signals import NodeStats

_BUCKETS: Final = len(DURATION_BOUNDS) + 1
_decoder = msgspec.json.Decoder(NodeStats)


class _Endpoint(msgspec.Struct):
    pod: str = ""


class _Backend(msgspec.Struct):
    endpoints: list[_Endpoint] = []


class _Service(msgspec.Struct):
    backends: list[_Backend] = []


class _Plan(msgspec.Struct):
    """What is needed of the page `/plan`."""

    services: dict[str, _Service] = {}


def read_stats(text: str) -> NodeStats:
    """Read the page `/stats`.

    Raises:
        ValueError: it is no such page, or that of an agent with other histograms.
    """
    try:
        stats = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"no page of this version of svc.mesh: {error}") from None
    for port in stats.ports:
        for one in (port.signals, *(source.signals for source in port.sources)):
            if len(one.durations) != _BUCKETS:
                raise ValueError("its histograms have other bounds: it is an agent of another version")
    return stats


def merge_answers(answers: Iterable[Answer], backing: Backing | None = None) -> Live:
    """Return what all agents say together."""
    stats, said = read_answers(answers, read_stats)
    return Live(merge_nodes(stats, backing), said)


async def ask_live(agents: Agents, window: str, one: str = "", backing: Backing | None = None) -> Live:
    """Ask agents for the last seconds; `one` is as in `Agents.ask`.

    Raises:
        SourceError: it is not known which agents there are.
    """
    return merge_answers(await agents.ask("/stats", {"window": window}, one), backing)


def only(live: Live, namespace: str, service: str) -> Live:
    """Return what concerns the Services of a namespace, or one of them; empty stands for any."""
    overview = live.overview

    def meant(one: ServiceRow | Edge) -> bool:
        return one.namespace == (namespace or one.namespace) and one.service == (service or one.service)

    def asks(edge: Edge) -> bool:
        if not (namespace or service) or edge.source_namespace != (namespace or edge.source_namespace):
            return False
        return edge.source_service == (service or edge.source_service)

    kept = msgspec.structs.replace(
        overview,
        services=[one for one in overview.services if meant(one)],
        edges=[one for one in overview.edges if meant(one) or asks(one)],
    )
    return msgspec.structs.replace(live, overview=kept)


_plan_decoder = msgspec.json.Decoder(_Plan)


async def ask_plan(agents: Agents, one: str = "") -> Answer | None:
    """Return the plan of the first agent that tells it; None: none does.

    Agents of a cluster have the same plan, but for what endpoints of it each finds healthy.

    Raises:
        SourceError: it is not known which agents there are.
    """
    if one:
        return next((each for each in await agents.ask("/plan", {}, one) if not each.reason), None)
    try:
        return await ask_any(agents, "/plan", {})
    except Untold:
        return None


async def ask_explanation(agents: Agents, query: Mapping[str, str], one: str = "") -> Answer:
    """Return an explanation of the first agent that has one, or why there is none.

    A pod is known to the agent of its node alone, so all are asked if `from` is there. `one` is as in
    `Agents.ask`.

    Raises:
        SourceError: it is not known which agents there are.
    """
    if one or query.get("from"):
        answers = await agents.ask("/explain", query, one)
    else:
        names = await agents.names()
        answers = await agents.ask("/explain", query, names[0]) if names else []
    refused = [msgspec.structs.replace(each, reason=_words(each.reason)) for each in answers if each.reason]
    found = next((each for each in answers if not each.reason), None)
    return found or next(iter(refused), Answer("", "", reason="there is no agent that could be asked"))


def _words(reason: str) -> str:
    """Return what an agent has said of a question, without its status."""
    return reason.removeprefix("it answers 400: ")


async def ask_backing(agents: Agents) -> Backing:
    """Return which Service a source belongs to, as an agent's plan says; nothing is known if there is none.

    Raises:
        SourceError: it is not known which agents there are.
    """
    plan = await ask_plan(agents)
    return Backing({}) if plan is None else read_backing(plan.text)


def read_backing(text: str) -> Backing:
    """Read which pods are endpoints of which Services from the page `/plan`; of no plan nothing is known."""
    try:
        plan = _plan_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return Backing({})
    return Backing(
        {
            ServiceName(*key.split("/", 1)): sorted(
                {one.pod for backend in service.backends for one in backend.endpoints if one.pod}
            )
            for key, service in plan.services.items()
            if "/" in key
        }
    )
