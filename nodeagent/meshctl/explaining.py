"""The explanation of a request as one of the agents tells it: what the form of `dashboard` shows."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nodeagent.meshctl.asking import Agents, Answer


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
