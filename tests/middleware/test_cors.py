from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.contract import NoEndpoint, Problem
from middleware.cors import CORS, MIDDLEWARE, Cors, Options, build, parse
from middleware.testing import FakeContext, FakeRequest, FakeResponse, handler_of, run
from tests.middleware.pages import options_of_example, page, rows

ORIGIN = "https://shop.example"


def of(text: str) -> Options:
    options = parse({CORS: text})
    assert isinstance(options, Options), options
    return options


def answer(text: str, request: FakeRequest, response: FakeResponse | None = None) -> Any:
    handler, _ = handler_of(build(of(text), FakeContext()), response or FakeResponse(200))
    return run(handler(request))


def preflight(origin: str) -> FakeRequest:
    return FakeRequest("OPTIONS", fields={"Origin": origin, "Access-Control-Request-Method": "PUT"})


def test_values() -> None:
    assert of("*") == Options(("*",))
    assert of("HTTPS://Shop.Example,http://localhost:3000 methods=get,put headers=X-A max-age=1h") == Options(
        (ORIGIN, "http://localhost:3000"), ("GET", "PUT"), ("x-a",), max_age=3600.0
    )
    assert of(f"{ORIGIN} credentials=true expose=x-b") == Options(
        (ORIGIN,), expose=("x-b",), credentials=True
    )


@pytest.mark.parametrize(
    "text",
    [
        "", "shop.example", f"{ORIGIN}/", f"{ORIGIN}/path", "https://a*.b", "https://*", f"*,{ORIGIN}",
        f"{ORIGIN},",
        "* credentials=true", "* credentials=yes", "* methods=", "* methods=GET,,PUT", "* headers=*",
        "* max-age=2d", "* max-age=48h", "* age=1h", ",".join(f"http://h{n}" for n in range(65)), "x" * 5000,
        "null",
    ],
)  # fmt: skip
def test_bad_values_are_problems(text: str) -> None:
    found = parse({CORS: text})
    assert isinstance(found, Problem)
    assert found.annotation == CORS


@pytest.mark.parametrize(
    "row", rows(page("cors"), "| request | origin | status | Access-Control-Allow-Origin |"), ids=" ".join
)
def test_what_the_page_says(row: list[str]) -> None:
    what, origin, status, allowed = (cell.strip("`") for cell in row)
    fields = {"Origin": origin} if origin != "none" else {}
    request = preflight(origin) if what == "preflight" else FakeRequest(what, fields=fields)
    handler, scripted = handler_of(build(options_of_example(MIDDLEWARE), FakeContext()), 200)
    response = run(handler(request))
    assert response.status == int(status)
    assert response.headers.get("Access-Control-Allow-Origin") == (None if allowed == "none" else allowed)
    assert response.headers.get("Vary") == "Origin"
    assert len(scripted.requests) == (what != "preflight")


def test_a_preflight_in_full() -> None:
    response = answer(
        f"{ORIGIN} methods=GET,PUT headers=x-a,x-b credentials=true max-age=10m", preflight(ORIGIN)
    )
    assert (response.status, response.reason) == (204, "cors_preflight")
    assert dict(response.headers) == {
        "Access-Control-Allow-Origin": ORIGIN,
        "Access-Control-Allow-Methods": "GET, PUT",
        "Access-Control-Allow-Headers": "x-a, x-b",
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Max-Age": "600",
        "Vary": "Origin",
    }


def test_any_origin() -> None:
    response = answer("*", FakeRequest(fields={"Origin": "https://anybody.example"}))
    assert response.headers.get("Access-Control-Allow-Origin") == "*"
    assert response.headers.get("Vary") is None


def test_options_without_a_method_to_ask_for_go_on() -> None:
    handler, scripted = handler_of(build(of("*"), FakeContext()), 200)
    run(handler(FakeRequest("OPTIONS", fields={"Origin": ORIGIN})))
    assert len(scripted.requests) == 1


@pytest.mark.parametrize(("vary", "after"), [("Accept", ["Accept", "Origin"]), ("a, ORIGIN", ["a, ORIGIN"])])
def test_what_the_endpoint_says_is_replaced(vary: str, after: list[str]) -> None:
    endpoint = FakeResponse(200, {"Access-Control-Allow-Origin": "*", "Vary": vary})
    response = answer(f"{ORIGIN} expose=x-id", FakeRequest(fields={"Origin": ORIGIN}), endpoint)
    assert response.headers.get_all("Access-Control-Allow-Origin") == [ORIGIN]
    assert response.headers.get("Access-Control-Expose-Headers") == "x-id"
    assert response.headers.get_all("Vary") == after


def test_errors_of_the_mesh_can_be_read_too() -> None:
    handler, _ = handler_of(build(of(ORIGIN), FakeContext()), NoEndpoint("none", (("Retry-After", "1"),)))
    with pytest.raises(NoEndpoint) as caught:
        run(handler(FakeRequest(fields={"Origin": ORIGIN})))
    assert dict(caught.value.headers) == {
        "Retry-After": "1",
        "Access-Control-Allow-Origin": ORIGIN,
        "Vary": "Origin",
    }


@given(st.text(st.sampled_from("abc.-/@:*\r\n\0"), max_size=20))
def test_below_a_name_there_are_names_alone(before: str) -> None:
    allowed = Cors(of("https://*.shop.example")).allows(f"https://{before}.shop.example")
    assert allowed == all(label.replace("-", "x").isalnum() for label in before.split("."))
