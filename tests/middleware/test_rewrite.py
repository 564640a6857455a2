from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.contract import Problem
from middleware.rewrite import LONGEST_PATH, MIDDLEWARE, REWRITE, Operation, Options, Rewrite, build, parse
from middleware.testing import FakeContext, FakeRequest, handler_of, run
from nodeagent.proxy.message import check_target
from tests.middleware.pages import options_of_example, page, rows


def of(text: str) -> Options:
    options = parse({REWRITE: text})
    assert isinstance(options, Options), options
    return options


def test_values() -> None:
    assert of("strip /api/; host a:80\nprefix /a /b") == Options(
        (Operation("strip", "/api"), Operation("prefix", "/a", "/b")), "a:80"
    )
    assert of(r"regex /(a+)/[^/]*\.x? /\1") == Options((Operation("regex", r"/(a+)/[^/]*\.x?", r"/\1"),))


@pytest.mark.parametrize(
    "text",
    [
        "", ";", "turn /a /b", "strip", "strip a", "strip /", "strip //", "strip /a /b", "prefix /a",
        "prefix /a b", "prefix /a /b?c", "host a/b", "host", "host a; host b", "host a\r\nb c",
        "; ".join(["strip /a"] * 17), "x" * 5000,
    ],
)  # fmt: skip
def test_bad_values_are_problems(text: str) -> None:
    found = parse({REWRITE: text})
    assert isinstance(found, Problem)
    assert found.annotation == REWRITE


@pytest.mark.parametrize(
    "expression",
    [
        "/(a+)+", "/(a*)*b", "/(a|aa)b", "/a.*b.*c.*d", "/a?b?c?d?", "/(a?b?c?)?",
        "/(?:a)", "/(?=a)b", r"/(a)\1",
        "/a{1,9}",
        "/(a", "/[a", f"/{'a' * 300}", "*",
    ],
)  # fmt: skip
def test_expressions_whose_cost_has_no_bound_or_that_are_none(expression: str) -> None:
    assert isinstance(parse({REWRITE: f"regex {expression} /x"}), Problem)


@pytest.mark.parametrize("new", [r"/\2", r"\1/x", r"/\x", r"/\0"])
def test_references_to_nothing(new: str) -> None:
    assert isinstance(parse({REWRITE: f"regex /(a) {new}"}), Problem)


def test_what_looks_forbidden_and_is_not() -> None:
    rewrite = Rewrite(of(r"regex /[a|(?{]+\(? /x").paths)
    assert rewrite.path("/a|(") == ("/x", "")


@pytest.mark.parametrize(
    "row", rows(page("rewrite"), "| request | the endpoint sees |"), ids=lambda row: row[0]
)
def test_what_the_page_says(row: list[str]) -> None:
    target, expected = (cell.strip("`") for cell in row)
    context = FakeContext()
    handler, _ = handler_of(build(options_of_example(MIDDLEWARE), context), 200)
    request = FakeRequest(target=target, fields={"Host": "web", "X-Forwarded-Prefix": "/client"})
    run(handler(request))
    assert (request.target, request.headers.get("host")) == (expected, "catalog.internal")
    assert context.metrics == {"svcmesh_rewrites": int(target != expected)}
    if target.startswith("/api/"):
        assert request.headers.get_all("x-forwarded-prefix") == ["/api"]


def test_a_path_that_is_too_long_does_not_fit() -> None:
    rewrite = Rewrite(of("regex /a* /x").paths)
    assert rewrite.path("/" + "a" * (LONGEST_PATH - 1)) == ("/x", "")
    assert rewrite.path("/" + "a" * LONGEST_PATH) is None


PATHS = st.text(st.sampled_from("/ab.%1*"), max_size=12).map(lambda text: "/" + text)
TEXTS = [
    r"strip /a; strip /b", "prefix /a /b; prefix /b/a /", r"regex /(a*)(.*)/(b?) /\3\2\1; strip /a",
    r"regex /a(b*)/? /\1; prefix /a/b /",
]  # fmt: skip


@given(st.sampled_from(TEXTS), PATHS)
def test_what_comes_out_can_be_sent(text: str, path: str) -> None:
    found = Rewrite(of(text).paths).path(path)
    if found is not None:
        check_target(found[0])


@given(PATHS)
def test_stripping_undoes_a_prefix(path: str) -> None:
    assert Rewrite(of("strip /api").paths).path(f"/api{path}") == (path, "/api")
