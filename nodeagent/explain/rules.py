"""Which rule takes a request, and why the others do not. Decided by the data path's own `RuleTable`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nodeagent.explain.model import RuleView
from nodeagent.plan.model import Match, Rule
from nodeagent.proxy.message import RequestHead
from nodeagent.proxy.rules import RuleTable


def look_at_rules(rules: Sequence[Rule], head: RequestHead) -> tuple[Rule | None, tuple[RuleView, ...]]:
    """Return the rule that takes the request, and every rule with the reason."""
    number = RuleTable(rules).find(head)
    views = tuple(
        RuleView(rule.name, index == number, _why(rule.match, head, index, number))
        for index, rule in enumerate(rules)
    )
    return (rules[number] if number >= 0 else None), views


def _why(match: Match, head: RequestHead, index: int, number: int) -> str:
    if index == number:
        return "it takes every request" if not match.restricts else f"it matches: {_shown(match)}"
    if 0 <= number < index:
        return "a rule before it takes the request"
    missing = [part for part in _parts(match) if RuleTable([Rule("part", (), part)]).find(head) < 0]
    return "; ".join(f"not {_shown(part)}" for part in missing)


def _parts(match: Match) -> Iterator[Match]:
    if match.method:
        yield Match(method=match.method)
    if match.path:
        yield Match(path=match.path, exact=match.exact)
    yield from (Match(query=(one,)) for one in match.query)
    yield from (Match(headers=(one,)) for one in match.headers)


def _shown(match: Match) -> str:
    said = [f"method {match.method}"] if match.method else []
    said += [f"path {'=' if match.exact else 'below '}{match.path}"] if match.path else []
    said += [f"query {name}={value}" for name, value in match.query]
    said += [f"header {name}: {value}" for name, value in match.headers]
    return ", ".join(said)
