"""What agents say of the latest failures and refusals, put together: what `failures` and `dashboard` show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from nodeagent.meshctl.asking import Agents, Answer
from nodeagent.meshctl.said import answered_line, count_answered, read_answers, why_line
from nodeagent.meshctl.tapline import text_line
from nodeagent.stats.failures import USUAL, Failures, merge_failures
from nodeagent.stats.overview import AgentSaid

SHARED: Final = 500
"""Failures that all agents together are asked for at most, but for `LEAST_EACH`."""
LEAST_EACH: Final = 5
NOT_KEPT: Final = "it does not keep failures: it is of an older version"

_decoder = msgspec.json.Decoder(Failures)


class FailuresSaid(msgspec.Struct, frozen=True):
    """The failures of all agents that have answered, and who has."""

    together: Failures
    agents: tuple[AgentSaid, ...]

    @property
    def complete(self) -> bool:
        """Whether there are agents, and all have answered."""
        return bool(self.agents) and count_answered(self.agents) == len(self.agents)

    def document(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        said: dict[str, Any] = msgspec.to_builtins(self.together)
        agents: Any = msgspec.to_builtins(self.agents)
        answered, total = count_answered(self.agents), len(self.agents)
        return {**said, "agents": agents, "answered": answered, "total": total}


def read_failures(text: str) -> Failures:
    """Read the page `/failures`.

    Raises:
        ValueError: it is no such page.
    """
    try:
        page = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"no page of this version of svc.mesh: {error}") from None
    if not all(isinstance(one, dict) for one in page.failures):
        raise ValueError("no page of this version of svc.mesh: a failure is no object")
    return page


def merge_said(answers: Iterable[Answer], limit: int) -> FailuresSaid:
    """Return what all agents say together."""
    pages, said = read_answers(map(_with_reason, answers), read_failures)
    return FailuresSaid(merge_failures(pages, limit), said)


def _with_reason(answer: Answer) -> Answer:
    return msgspec.structs.replace(answer, reason=NOT_KEPT) if answer.status == 404 else answer


def share_of(limit: int, agents: int) -> int:
    """Return how many failures each of so many agents is asked for if `limit` are shown, and often."""
    return min(limit, max(LEAST_EACH, SHARED // max(1, agents)))


async def ask_failures(
    agents: Agents, service: str, limit: int = USUAL, one: str = "", each: int = 0
) -> FailuresSaid:
    """Ask agents for the latest failures of a Service, or (empty) of all; `one` is as in `Agents.ask`.

    `each` is how many an agent is asked for; 0: `limit`.

    Raises:
        SourceError: it is not known which agents there are.
    """
    query = {"limit": str(each or limit), **({"service": service} if service else {})}
    return merge_said(await agents.ask("/failures", query, one), limit)


def failure_lines(said: FailuresSaid) -> Iterator[str]:
    """Yield the failures for people, the newest last."""
    yield from map(failure_line, reversed(said.together.failures))


def summary_lines(said: FailuresSaid) -> Iterator[str]:
    """Yield what is missing, and why; nothing if there are no agents."""
    if not said.agents:
        return
    for agent in said.agents:
        if agent.reason:
            yield why_line(agent.node, agent.agent, agent.reason)
    page = said.together
    if page.left_out:
        yield f"nothing is known of {page.left_out} further ones: there were too many in one second"
    yield (
        f"{len(page.failures)} shown of {page.seen + page.left_out} that failed or were refused; "
        f"{answered_line(said.agents)}"
    )


def failure_line(one: Mapping[str, Any]) -> str:
    """Return a failure in one line: as `meshctl tap`, and with the Service and who refused it."""
    source = one.get("source_workload") or one.get("source", "")
    asked = one.get("service") or one.get("destination") or "no Service"
    reason = one.get("reason", "")
    if one.get("by") == "mesh":
        reason = f"refused by {one.get('layer') or 'the mesh'}: {reason}"
    return text_line({**one, "source_workload": f"{source} → {asked}", "reason": reason})
