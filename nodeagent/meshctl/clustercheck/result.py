"""A check, what comes of it, and facts that could not be had."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

import msgspec

T = TypeVar("T")
Outcome = Literal["ok", "warning", "failed", "not-checked"]
MOST_NAMED = 5
"""Things of one kind that a sentence names; the others are counted."""


class Result(msgspec.Struct, frozen=True):
    """What came of a check."""

    check: Check
    outcome: Outcome
    message: str = ""
    """What was found; of a warning or failure, what is wrong and what to do."""


class Check(msgspec.Struct, frozen=True):
    """One question about a cluster."""

    id: str
    """Stable: programs may rely on it."""
    title: str
    """What is so when all is well."""
    see: str
    """The page, with its section, that says more."""

    def ok(self, message: str = "") -> Result:
        """It is so."""
        return Result(self, "ok", message)

    def warning(self, message: str) -> Result:
        """It is not, and the mesh works all the same, or in part."""
        return Result(self, "warning", message)

    def failed(self, message: str) -> Result:
        """It is not."""
        return Result(self, "failed", message)

    def not_checked(self, reason: str) -> Result:
        """Nobody knows."""
        return Result(self, "not-checked", reason)

    def judge(self, fact: T | Unknown, decide: Callable[[T], Result]) -> Result:
        """Return what `decide` makes of a fact, if it is known."""
        return self.not_checked(fact.reason) if isinstance(fact, Unknown) else decide(fact)

    def of_problems(
        self, problems: Iterable[str], ok: str, advice: str, outcome: Outcome = "failed"
    ) -> Result:
        """Return a good result without problems, else `outcome` with the first of them and advice."""
        found = tuple(problems)
        if not found:
            return self.ok(ok)
        return Result(self, outcome, f"{named(found)}: {advice}")


class Unknown(msgspec.Struct, frozen=True):
    """In place of a fact that could not be had."""

    reason: str


def named(things: Iterable[str]) -> str:
    """Return things in one line, so many of them that it can be read."""
    found = list(things)
    more = len(found) - MOST_NAMED
    return "; ".join(found[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
