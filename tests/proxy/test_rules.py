"""Rules: the first that matches takes a request, on whole segments, whole values, whole words."""

from __future__ import annotations

import pytest

from nodeagent.plan.model import Match, Rule
from nodeagent.proxy.http1.head import parse_request
from nodeagent.proxy.message import RequestHead
from nodeagent.proxy.rules import RuleTable


def head(target: str = "/", method: str = "GET", fields: str = "") -> RequestHead:
    parsed = parse_request(f"{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode())
    assert parsed is not None
    return parsed


def taken(match: Match, request: RequestHead) -> bool:
    return RuleTable([Rule("only", (), match)]).find(request) == 0


@pytest.mark.parametrize(
    ("path", "exact", "target", "expected"),
    [
        ("/", False, "/a/b", True),
        ("/a", False, "/a", True),
        ("/a", False, "/a/", True),
        ("/a", False, "/a/b?c", True),
        ("/a", False, "/a?c", True),
        ("/a", False, "/ab", False),
        ("/a", False, "/", False),
        ("/a/", False, "/a", True),
        ("/a", True, "/a", True),
        ("/a", True, "/a?b=c", True),
        ("/a", True, "/a/", False),
    ],
)
def test_paths(path: str, exact: bool, target: str, expected: bool) -> None:
    assert taken(Match(path=path, exact=exact), head(target)) is expected


def test_methods() -> None:
    assert taken(Match(method="PUT"), head(method="PUT"))
    assert not taken(Match(method="PUT"), head())


def test_headers() -> None:
    match = Match(headers=(("X-Version", "v2"), ("x-env", "prod")))
    assert taken(match, head(fields="x-VERSION: v2\r\nX-Env:prod \r\n"))
    assert not taken(match, head(fields="x-version: v2\r\n"))
    assert not taken(match, head(fields="x-version: v22\r\nx-env: prod\r\n"))
    assert not taken(match, head(fields="x-version-x: v2\r\nx-env: prod\r\n"))


def test_queries() -> None:
    match = Match(query=(("version", "2"), ("q", "a b")))
    assert taken(match, head("/?q=a+b&version=2"))
    assert taken(match, head("/x?version=2&q=a%20b&version=3"))
    assert not taken(match, head("/?version=3&version=2&q=a+b"))
    assert not taken(match, head("/?version=2"))
    assert not taken(match, head("/version=2&q=a+b"))


def test_the_first_that_matches() -> None:
    rules = [
        Rule("writes", (), Match(path="/a", method="PUT")),
        Rule("all of a", (), Match(path="/a")),
        Rule("deep", (), Match(path="/a/b")),
    ]
    table = RuleTable(rules)
    assert [
        table.find(head(target, method)) for target, method in (("/a", "PUT"), ("/a/b", "GET"), ("/", "GET"))
    ] == [
        0,
        1,
        -1,
    ]
    assert RuleTable([*rules, Rule("rest", ())]).find(head("/")) == 3


def test_what_restricts() -> None:
    assert not Match().restricts
    assert all(
        match.restricts
        for match in (
            Match(path="/"),
            Match(method="GET"),
            Match(headers=(("a", "b"),)),
            Match(query=(("a", "b"),)),
        )
    )
