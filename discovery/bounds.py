"""Limits on what is reported about one object: the number of problems and the length of each. Pure.

Somebody who may write one object must not fill the log, the plan and the memory with its problems. Problems
beyond the limit are counted, and one more problem says how many they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from discovery.model import Problem

MOST_PROBLEMS: Final = 16
"""Of one object; one more says how many others there are."""
LONGEST: Final = 256
"""Characters of a name or value where it is quoted."""
LONGEST_SENTENCE: Final = 2 * LONGEST
"""Characters of the text about it."""

MORE: Final = "problems"
"""The field of the problem that says how many others there are."""
_URGENCY: Final = {"error": 0, "warning": 1, "info": 2}
_THERE_ARE = re.compile(r"there are ([0-9,]+) more")


def shorten(text: str, longest: int = LONGEST) -> str:
    """Return a text of at most this many characters; if it was cut, it ends with an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def bounded(problems: Sequence[Problem], most: int = MOST_PROBLEMS) -> tuple[Problem, ...]:
    """Return the problems of one object within bounds: errors first, notes last where there are too many.

    What says that there are more, from an earlier call, is counted for what it stands for.
    """
    if len(problems) <= most + 1:
        return tuple(map(_shortened, problems))
    told = [problem for problem in problems if not _stands_for(problem)]
    told.sort(key=lambda problem: _URGENCY[problem.severity])
    count = len(told) - most + sum(map(_stands_for, problems))
    more = more_problems(told[min(most, len(told) - 1)], count, most)
    return (*map(_shortened, told[:most]), more)


def more_problems(of: Problem, count: int, listed: int) -> Problem:
    """Return the problem that says how many more problems the object of `of` has than are listed."""
    return msgspec.structs.replace(
        _shortened(of),
        field=MORE,
        value="",
        reason=f"there are {count:,} more",
        expected="",
        effect=f"{listed} are listed",
    )


def _stands_for(problem: Problem) -> int:
    """Return for how many others a problem stands; 0 if it is one itself."""
    found = _THERE_ARE.fullmatch(problem.reason) if problem.field == MORE else None
    return int(found[1].replace(",", "")) if found else 0


def _shortened(problem: Problem) -> Problem:
    """Return the problem with its texts cut; the same object if none is too long."""
    if len(problem.reason) + len(problem.expected) + len(problem.effect) <= LONGEST and _is_short(
        (problem.namespace, problem.name, problem.field, problem.value, problem.origin)
    ):
        return problem
    return msgspec.structs.replace(
        problem,
        namespace=shorten(problem.namespace),
        name=shorten(problem.name),
        field=shorten(problem.field),
        value=shorten(problem.value),
        reason=shorten(problem.reason, LONGEST_SENTENCE),
        expected=shorten(problem.expected, LONGEST_SENTENCE),
        effect=shorten(problem.effect, LONGEST_SENTENCE),
        origin=problem.origin if len(problem.origin) <= LONGEST else "…" + problem.origin[1 - LONGEST :],
    )


def _is_short(texts: Iterable[str]) -> bool:
    return all(len(text) <= LONGEST for text in texts)
