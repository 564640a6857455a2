from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware import registry
from middleware.contract import OWN_FIELDS, ConnectFailed, Problem, Reply
from middleware.headers import MIDDLEWARE, Operation, Options, build, parse, parse_operations
from middleware.testing import FakeContext, FakeRequest, FakeResponse, handler_of, run, sent_over, status_of
from middleware.values import InvalidValue
from tests.middleware.pages import page, rows
from tests.middleware.problems import assert_problem

REQUEST = "svc.mesh/request-headers"
RESPONSE = "svc.mesh/response-headers"
FORWARDED = "svc.mesh/forwarded-headers"


@pytest.mark.parametrize(
    ("text", "operations"),
    [
        ("set x-env=prod", [("set", "x-env", "prod")]),
        (" set  x-env = prod ;; ", [("set", "x-env", "prod")]),
        (
            "set x-env=prod; add Via-Mesh=yes;remove x-internal",
            [("set", "x-env", "prod"), ("add", "Via-Mesh", "yes"), ("remove", "x-internal", "")],
        ),
        ("set a=1\n\nremove b\r\nadd c=2\r\n", [("set", "a", "1"), ("remove", "b", ""), ("add", "c", "2")]),
        ('set a="max-age=1; preload" ; remove b', [("set", "a", "max-age=1; preload"), ("remove", "b", "")]),
        (r'set a="say \"hi\" \\ bye"', [("set", "a", r'say "hi" \ bye')]),
        ('set a=""', [("set", "a", "")]),
        ('set etag=W/"abc"', [("set", "etag", 'W/"abc"')]),
        ("set a=b=c", [("set", "a", "b=c")]),
        ("set a=1; set a=2", [("set", "a", "1"), ("set", "a", "2")]),
        ("set host=shop.example.com:8080", [("set", "host", "shop.example.com:8080")]),
        ("set host=[2001:db8::1]:80", [("set", "host", "[2001:db8::1]:80")]),
    ],
)
def test_operations(text: str, operations: Iterable[tuple[str, str, str]]) -> None:
    options = parse({REQUEST: text})
    assert isinstance(options, Options)
    assert [(o.verb, o.name, o.value) for o in options.request] == operations
    assert sent_over(options) == options


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it contains no operation"),
        (" ;\n", "it contains no operation"),
        ("put a=b", '"put" is not known'),
        ("=b", '"" is not known'),
        ("set", '"set" is not a complete operation'),
        ("set x-env", '"set x-env" is not a complete operation'),
        ("set x-env: prod", '"set x-env: prod" is not a complete operation'),
        ("set x env=prod", '"set x env=prod" is not a complete operation'),
        ("remove a=b", '"remove a=b" is not a complete operation'),
        ("set a=", '"set a=" has no value'),
        ('set a="b', 'the quotes of ""b" are not closed, or something follows them'),
        ('set a="b" c', 'the quotes of ""b" c" are not closed, or something follows them'),
        ('set a="b\\n"', 'the quotes of ""b\\n"" are not closed, or something follows them'),
        ("set a:b=c", "'a:b' is not the name of a header field (RFC 9110 section 5.1)"),
        ("set a=b\x00c", "'b\\x00c' cannot be the value of a header field (RFC 9110 section 5.5)"),
        ("set a=b\rc", "'b\\rc' cannot be the value of a header field (RFC 9110 section 5.5)"),
        ('set a=" b"', "' b' cannot be the value of a header field (RFC 9110 section 5.5)"),
        ("set a=€", "'€' cannot be the value of a header field (RFC 9110 section 5.5)"),
        ("set a=max-age=1; preload", '"preload" is not known'),
        ("add host=a", "add host is not possible: a request has exactly one host"),
        ("remove Host", "remove host is not possible: a request has exactly one host"),
        ("set host=a/b", '"a/b" is not a host'),
        ("set host=a:123456", '"a:123456" is not a host'),
        (
            "set X-Forwarded-For=10.0.0.1",
            "X-Forwarded-For is set by the mesh alone: it names the client",
        ),
        ("set a=b;" * 33, "there are 33 operations"),
        ("set a=" + "b" * 4096, "it has 4102 characters"),
    ],
)
def test_a_bad_value_is_a_problem(text: str, reason: str) -> None:
    assert_problem(parse({REQUEST: text}), REQUEST, text, reason)


@pytest.mark.parametrize("name", sorted(OWN_FIELDS))
def test_what_frames_the_message_or_ends_here_is_the_meshs_own(name: str) -> None:
    for annotation in (REQUEST, RESPONSE):
        for operation in (f"set {name.title()}=x", f"add {name}=x", f"remove {name}"):
            problem = parse({annotation: operation})
            assert isinstance(problem, Problem)
            assert "is set by the mesh alone" in problem.reason


@given(st.text(st.sampled_from('seta rmov=;\n"\\x\r\x00é:'), max_size=60))
def test_whatever_is_accepted_can_stand_in_a_head(text: str) -> None:
    try:
        operations = parse_operations(text, of_request=False)
    except InvalidValue:
        return
    handler, _ = handler_of(build(Options(response=operations), FakeContext()), 200)
    for name, value in run(handler(FakeRequest())).headers:
        assert not set("\r\n\x00") & set(name + value)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40))
def test_any_value_can_be_written_in_quotes(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    assert parse_operations(f'remove a; set b="{escaped}"\nremove c', of_request=True) == (
        Operation("remove", "a"),
        Operation("set", "b", value),
        Operation("remove", "c"),
    )


def test_unused() -> None:
    assert parse({"svc.mesh/enabled": "true"}) is None


def test_responses_are_changed_too() -> None:
    layer = build(
        Options(response=parse_operations("set server=mesh; remove x-debug", of_request=False)), FakeContext()
    )
    handler, scripted = handler_of(
        layer, FakeResponse(404, {"Server": "Werkzeug", "X-Debug": "1", "ETag": '"a"'})
    )
    response = run(handler(FakeRequest()))
    assert response is scripted.responses[0]
    assert list(response.headers) == [("ETag", '"a"'), ("server", "mesh")]


def test_errors_pass() -> None:
    handler, _ = handler_of(
        build(Options(response=(Operation("remove", "a"),)), FakeContext()), ConnectFailed("")
    )
    assert status_of(handler(FakeRequest())) == "connect_failed"


CLIENT_SAYS = {"Host": "shop.default.svc.mesh:81", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil"}


@pytest.mark.parametrize(
    ("value", "fields", "told"),
    [
        ("x-forwarded", {"Host": "shop"}, ("http", "shop", "81")),
        ("x-forwarded", CLIENT_SAYS, ("http", "shop.default.svc.mesh:81", "81")),
        ("x-forwarded  keep", CLIENT_SAYS, ("https", "evil", "81")),
        ("x-forwarded keep", {"Host": "shop"}, ("http", "shop", "81")),
        ("x-forwarded", {"Host": "", "X-Forwarded-Host": "evil"}, ("http", None, "81")),
    ],
)
def test_endpoints_are_told_what_was_asked_for(
    value: str, fields: dict[str, str], told: tuple[str | None, ...]
) -> None:
    options = parse({FORWARDED: value})
    assert isinstance(options, Options)
    assert sent_over(options) == options
    handler, _ = handler_of(build(options, FakeContext(port=81)))
    request = FakeRequest(fields=fields)
    run(handler(request))
    names = ("X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port")
    assert tuple(request.headers.get(name) for name in names) == told
    assert all(len(request.headers.get_all(name)) <= 1 for name in names)


def test_the_host_that_is_told_is_the_clients() -> None:
    options = parse({FORWARDED: "x-forwarded", REQUEST: "set host=inner.example"})
    handler, _ = handler_of(build(options, FakeContext()))  # type: ignore[arg-type]
    request = FakeRequest(fields={"Host": "shop"})
    run(handler(request))
    assert request.headers.get_all("host") == ["inner.example"]
    assert request.headers.get("X-Forwarded-Host") == "shop"


def test_other_words_for_forwarded_headers_are_a_problem() -> None:
    problem = parse({FORWARDED: "x-forward", REQUEST: "set a=b"})
    assert isinstance(problem, Problem)
    assert (problem.annotation, problem.reason) == (FORWARDED, '"x-forward" is not known')
    assert problem.expected.endswith("did you mean x-forwarded?")


def test_each_request_is_changed_once_and_replies_of_the_mesh_too() -> None:
    names = [middleware.name for middleware in registry.MIDDLEWARES]
    assert names.index("headers") < names.index("circuit-breaker") < names.index("retry")

    async def reply(_request: object) -> Reply:
        return Reply(503)

    handler = MIDDLEWARE.build(Options(response=(Operation("set", "a", "b"),)), FakeContext())(reply)
    assert list(run(handler(FakeRequest())).headers) == [("a", "b")]


@pytest.mark.parametrize("row", rows(page("headers"), "| operation | before | after |"), ids=" ".join)
def test_what_the_page_says(row: list[str]) -> None:
    operation, before, after = (cell.strip("`") for cell in row)
    request = FakeRequest()
    for line in filter(None, before.split("`, `")):
        request.headers.add(*line.split(": "))
    handler, _ = handler_of(
        build(Options(request=parse_operations(operation, of_request=True)), FakeContext())
    )
    run(handler(request))
    assert "`, `".join(f"{name}: {value}" for name, value in request.headers) == after
