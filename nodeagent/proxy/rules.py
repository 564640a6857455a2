"""Which rule of a listener takes a request. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl

from nodeagent.plan.model import Match, Rule
from nodeagent.proxy.message import Fields, RequestHead

Predicate = Callable[[RequestHead], bool]


class RuleTable:
    """The matches of a listener's rules, compiled. The first rule that matches takes the request."""

    __slots__ = ("_predicates",)

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._predicates = tuple(_compile(rule.match) for rule in rules)

    def find(self, head: RequestHead) -> int:
        """Return the number of the rule that takes this request; -1: none does."""
        for number, predicates in enumerate(self._predicates):
            if all(predicate(head) for predicate in predicates):
                return number
        return -1


def _compile(match: Match) -> tuple[Predicate, ...]:
    """Return what must hold, the cheapest first."""
    predicates: list[Predicate] = []
    if match.method:
        method = match.method.encode("ascii")
        predicates.append(lambda head: head.method == method)
    if match.path:
        path = match.path.encode("ascii")
        predicates.append(_exact_path(path) if match.exact else _path_prefix(path))
    if match.query:
        wanted = match.query
        predicates.append(lambda head: _has_query(head, wanted))
    if match.headers:
        fields = match.headers
        predicates.append(lambda head: all(Fields(head).get(name) == value for name, value in fields))
    return tuple(predicates)


def _exact_path(path: bytes) -> Predicate:
    return lambda head: head.target.partition(b"?")[0] == path


def _path_prefix(prefix: bytes) -> Predicate:
    """Match whole segments, as the Gateway API does: `/a` takes `/a` and `/a/b`, not `/ab`."""
    prefix = prefix.rstrip(b"/")
    size = len(prefix)
    return lambda head: head.target.startswith(prefix) and head.target[size : size + 1] in (b"", b"/", b"?")


def _has_query(head: RequestHead, wanted: tuple[tuple[str, str], ...]) -> bool:
    query = head.target.partition(b"?")[2].decode("ascii")
    given: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=None):
        given.setdefault(name, value)  # the first of a name, as in the Gateway API
    return all(given.get(name) == value for name, value in wanted)
