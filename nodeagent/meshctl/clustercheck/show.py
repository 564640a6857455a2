"""Results for people and for programs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from nodeagent.meshctl.clustercheck.result import Outcome, Result
from nodeagent.meshctl.clustercheck.run import Group

SIGNS: Mapping[Outcome, str] = {"ok": "√", "warning": "‼", "failed": "×", "not-checked": "-"}
PLAIN_SIGNS: Mapping[Outcome, str] = {"ok": "ok", "warning": "!!", "failed": "xx", "not-checked": "--"}
COLOURS: Mapping[Outcome, str] = {"ok": "green", "warning": "yellow", "failed": "red", "not-checked": "cyan"}
WORDS: Mapping[Outcome, tuple[str, str]] = {
    "ok": ("good", "good"),
    "warning": ("warning", "warnings"),
    "failed": ("failed", "failed"),
    "not-checked": ("not checked", "not checked"),
}


def signs_for(encoding: str | None) -> Mapping[Outcome, str]:
    """Return the signs that a stream of this encoding can show."""
    try:
        "".join(SIGNS.values()).encode(encoding or "ascii")
    except (UnicodeError, LookupError):
        return PLAIN_SIGNS
    return SIGNS


def heading_lines(title: str, *, first: bool) -> Iterator[str]:
    """Yield the heading of a group."""
    if not first:
        yield ""
    yield click.style(title, bold=True)
    yield "-" * len(title)


def result_lines(result: Result, signs: Mapping[Outcome, str], before: str = "") -> Iterator[str]:
    """Yield one result: a line if it is good, else what is wrong and where more is said, too.

    `before` is the message of the result before it: a reason is not repeated.
    """
    check, outcome = result.check, result.outcome
    sign = click.style(signs[outcome], fg=COLOURS[outcome])
    said = f" ({result.message})" if outcome == "ok" and result.message else ""
    yield f"{sign} {check.title}{said}"
    indent = " " * (len(signs[outcome]) + 1)
    if outcome == "not-checked":
        if result.message != before:
            yield f"{indent}  not checked: {result.message}"
    elif outcome != "ok":
        yield f"{indent}  {result.message}"
        yield f"{indent}  see {check.see}"


def summary_line(results: Sequence[Result]) -> str:
    """Return how many checks ended how."""
    counts = Counter(result.outcome for result in results)
    total = f"{len(results)} check{'' if len(results) == 1 else 's'}"
    told = ", ".join(f"{counts[one]} {WORDS[one][counts[one] != 1]}" for one in SIGNS if counts[one])
    worst: Outcome = "failed" if counts["failed"] else "warning" if counts["warning"] else "ok"
    return click.style(f"{total}: {told}", fg=COLOURS[worst], bold=True)


def report_document(
    results: Sequence[Result], groups: Sequence[Group], mode: str, *, complete: bool
) -> dict[str, Any]:
    """Return the results as values that JSON can hold."""
    titles = {check.id: group.title for group in groups for check in group.checks}
    counts = Counter(result.outcome for result in results)
    return {
        "mode": mode,
        "complete": complete,
        "counts": {one: counts[one] for one in SIGNS},
        "checks": [
            {
                "id": result.check.id,
                "group": titles[result.check.id],
                "title": result.check.title,
                "result": result.outcome,
                "message": result.message,
                "see": result.check.see,
            }
            for result in results
        ],
    }
