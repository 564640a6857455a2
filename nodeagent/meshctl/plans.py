"""The plan as one agent tells it, and which pods it says are endpoints of which Services."""

from __future__ import annotations

import msgspec

from nodeagent.meshctl.asking import Agents, Answer, Untold, ask_any
from nodeagent.stats.overview import Backing, ServiceName


class _Endpoint(msgspec.Struct):
    pod: str = ""


class _Backend(msgspec.Struct):
    endpoints: list[_Endpoint] = []


class _Service(msgspec.Struct):
    backends: list[_Backend] = []


class _Plan(msgspec.Struct):
    """What is needed of the page `/plan`."""

    services: dict[str, _Service] = {}


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
