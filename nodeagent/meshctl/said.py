"""Which agents have answered, and what their answers hold: what commands that ask all agents share. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from nodeagent.log.console import printable
from nodeagent.meshctl.asking import Answer
from nodeagent.stats.overview import AgentSaid


class Page(Protocol):
    """What an agent's page holds."""

    @property
    def node(self) -> str:
        """The node of the agent."""


class Said(Protocol):
    """Whether an agent has answered."""

    @property
    def reason(self) -> str:
        """Why it has not; empty: it has."""


P = TypeVar("P", bound=Page)


def read_answers(
    answers: Iterable[Answer], read: Callable[[str], P]
) -> tuple[list[P], tuple[AgentSaid, ...]]:
    """Return the pages of the agents that have answered, and which have; `read` raises `ValueError` for what
    is no page.
    """
    pages: list[P] = []
    said: list[AgentSaid] = []
    for answer in answers:
        node, reason = answer.node, answer.reason
        if not reason:
            try:
                page = read(answer.text)
            except ValueError as error:
                reason = str(error)
            else:
                pages.append(page)
                node = node or page.node
        said.append(AgentSaid(node, answer.agent, reason))
    return pages, tuple(said)


def why_line(node: str, agent: str, reason: str) -> str:
    """Return in one line why an agent has not answered; no answer can write to a terminal as it likes."""
    return printable(f"{node or '(no node)'} ({agent}): {' '.join(reason.split())}")


def count_answered(agents: Iterable[Said]) -> int:
    """Return how many agents have answered."""
    return sum(not one.reason for one in agents)


def answered_line(agents: Sequence[Said]) -> str:
    """Return how many of all agents have answered, for people."""
    return f"{count_answered(agents)} of {len(agents)} agents have answered"
