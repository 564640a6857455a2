from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from middleware.contract import Problem
from middleware.redirect import REDIRECT, Options, Redirect, build, parse
from middleware.testing import FakeContext, FakeRequest, handler_of, run
from tests.middleware.pages import options_of_example, page, rows


def of(text: str) -> Options:
    options = parse({REDIRECT: text})
    assert isinstance(options, Options), options
    return options


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("301 scheme=https", Options(301, "https")),
        ("308 scheme=https host=shop.example port=8443", Options(308, "https", "shop.example", 8443)),
        ("307 prefix=/old/ path=/new", Options(307, prefix="/old", path="/new")),
        ("302 host=[fd00::1]", Options(302, host="[fd00::1]")),
    ],
)
def test_values(text: str, options: Options) -> None:
    assert of(text) == options


@pytest.mark.parametrize(
    "text",
    [
        "", "301", "200 host=a", "301 scheme=ftp", "301 host=a/b", "301 host=a:80", "301 port=0",
        "301 path=new",
        "301 path=/a?b", "301 prefix=/a", "301 prefix=/a host=b", "301 prefix=// path=/a",
        "301 host=a host=b",
        "301 user=x", "301 host=a\r\nx", "301 path=/\\evil", f"301 path=/{'a' * 5000}",
    ],
)  # fmt: skip
def test_bad_values_are_problems(text: str) -> None:
    found = parse({REDIRECT: text})
    assert isinstance(found, Problem)
    assert found.annotation == REDIRECT


@pytest.mark.parametrize(
    ("text", "host", "target", "location"),
    [
        ("301 scheme=https", "shop", "/a?b", "https://shop/a?b"),
        ("301 scheme=https", "shop:8080", "/", "https://shop/"),
        ("301 scheme=https port=443", "shop", "/", "https://shop/"),
        ("301 scheme=https port=8443", "[fd00::1]:80", "/", "https://[fd00::1]:8443/"),
        ("301 host=new", "old:8080", "/a", "http://new/a"),
        ("301 host=new", "NEW", "/a", None),
        ("301 port=80", "new", "/a", None),
        ("301 path=/new", "shop:8080", "/old?a", "http://shop:8080/new?a"),
        ("301 path=/new", "shop", "/new?a", None),
        ("301 prefix=/a path=/", "shop", "/a", "http://shop/"),
        ("301 prefix=/a path=/", "shop", "/a/b", "http://shop/b"),
        ("301 scheme=https", "shop", "*", None),
    ],
)
def test_locations(text: str, host: str, target: str, location: str | None) -> None:
    assert Redirect(of(text)).location(host, target) == location


@pytest.mark.parametrize("row", rows(page("redirect"), "| request | Location |"), ids=lambda row: row[0])
def test_what_the_page_says(row: list[str]) -> None:
    from middleware.redirect import MIDDLEWARE

    target, expected = row
    handler, _ = handler_of(build(options_of_example(MIDDLEWARE), FakeContext()), 200)
    response = run(handler(FakeRequest(target=target.strip("`"), fields={"Host": "shop.example"})))
    if expected.startswith("none"):
        assert response.status == 200
    else:
        assert (response.status, response.headers.get("Location")) == (308, expected.strip("`"))


PATHS = st.from_regex(r"/[a-z/]{0,8}", fullmatch=True)
HOSTS = st.sampled_from(["a", "b", "A", "a:80", "a:8080", "[fd00::1]"])


@given(
    st.builds(
        Options,
        st.just(307),
        st.just(""),
        st.sampled_from(["", "a", "b"]),
        st.sampled_from([0, 80, 8080]),
        st.just(""),
        st.sampled_from(["", "/a", "/b"]),
    ),
    HOSTS,
    PATHS,
)
def test_whoever_follows_arrives(options: Options, host: str, target: str) -> None:
    """What does not depend on the place in the path redirects once: its target passes."""
    policy = Redirect(options)
    location = policy.location(host, target)
    assume(location is not None)
    assert location is not None
    url = urlsplit(location)
    assert policy.location(url.netloc, url.path) is None


def test_calls_of_grpc_pass() -> None:
    context = FakeContext()
    handler, scripted = handler_of(build(of("301 path=/new"), context), 200)
    run(handler(FakeRequest("POST", grpc=True, fields={"Host": "a"})))
    assert len(scripted.requests) == 1
    assert run(handler(FakeRequest(fields={"Host": "a"}))).reason == "redirected"
    assert context.metrics == {"svcmesh_redirects": 1}
