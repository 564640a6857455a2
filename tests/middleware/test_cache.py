from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any

import pytest

from middleware import registry
from middleware.cache import MIDDLEWARE, build
from middleware.cache_layer import MOST_ERRANDS, MOST_WAITING
from middleware.cache_options import CACHE, Options, parse
from middleware.cache_store import MOST_REMEMBERED, MOST_VARIANTS, REMEMBERED, Store
from middleware.contract import (
    ConnectFailed,
    ExchangeError,
    Handler,
    Reply,
    Request,
    Response,
    UpstreamReset,
)
from middleware.testing import (
    FakeContext,
    FakeRequest,
    FakeResponse,
    FakeTable,
    FakeWindows,
    run,
    sent_over,
    status_of,
)
from tests.middleware.pages import options_of_example, page, rows
from tests.middleware.problems import assert_problem

WALL = 1_700_000_000.0
HOST = {"Host": "web"}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("on", Options()),
        (" on ", Options(64 << 20, 1 << 20, 5.0, 0.0, 0.0, False)),
        ("on size=128Mi object=2Mi collapse=0", Options(size=128 << 20, object=2 << 20, collapse=0.0)),
        ("on size=512Ki", Options(size=512 << 10, object=512 << 10)),
        ("on size=1Gi heuristic=on", Options(size=1 << 30, heuristic=True)),
        (
            "on stale-if-error=1h stale-while-revalidate=30s",
            Options(stale_if_error=3600.0, stale_while_revalidate=30.0),
        ),
        ("on object=4096", Options(object=4096)),
        ("off", None),
    ],
)
def test_values(text: str, options: Options | None) -> None:
    found = parse({CACHE: text})
    assert found == options
    if options is not None:
        assert sent_over(options) == options


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", '"" is not known'),
        ("yes", '"yes" is not known'),
        ("off size=1Mi", "off has no settings"),
        ("on 64Mi", '"64Mi" is not name=value'),
        ("on size=1Mi size=2Mi", "size is given twice"),
        ("on size=64MB", '"64MB" is not a size'),
        ("on size=-1", '"-1" is not a size'),
        ("on size=1Ki", "1Ki is out of range"),
        ("on size=5Gi", "5Gi is out of range"),
        ("on size=1Mi object=2Mi", "2Mi is out of range"),
        ("on collapse=2m", "2m is out of range"),
        ("on collapse=5", '"5" is not a duration (the unit is missing)'),
        ("on stale-if-error=9000h", "9000h is out of range"),
        ("on heuristic=maybe", '"maybe" is not known'),
        ("on objects=1", '"objects" is not known'),
    ],
)
def test_a_bad_value_is_a_problem(text: str, reason: str) -> None:
    assert_problem(parse({CACHE: text}), CACHE, text, reason)


def test_unused() -> None:
    assert parse({"svc.mesh/enabled": "true"}) is None


def test_its_place() -> None:
    """Answers of the cache are changed as others are; faults are not kept; breakers and tries are below."""
    names = [middleware.name for middleware in registry.MIDDLEWARES]
    at = names.index("cache")
    assert set(names[:at]) >= {"rate-limit", "timeout", "split", "headers", "fault"}
    assert set(names[at:]) >= {"circuit-breaker", "retry", "per-try-timeout"}
    assert MIDDLEWARE.scope == "rule"


Answer = Callable[[Request], Any]


class Endpoint:
    """Answers with `response`, a function of the request, and notes what it is asked."""

    def __init__(self, response: Answer) -> None:
        self.response = response
        self.asked: list[FakeRequest] = []
        self.responses: list[FakeResponse] = []

    async def __call__(self, request: Request) -> Response:
        assert isinstance(request, FakeRequest)
        copy = FakeRequest(request.method, target=request.target, fields=dict(request.headers))
        self.asked.append(copy)
        answer = self.response(request)
        if isinstance(answer, ExchangeError):
            raise answer
        self.responses.append(answer)
        assert isinstance(answer, FakeResponse)
        return answer


class Site:
    """A cache in front of an endpoint. `keep` is the response's Cache-Control."""

    def __init__(
        self,
        keep: str = "max-age=60",
        settings: str = "",
        *,
        context: FakeContext | None = None,
        **fields: str,
    ) -> None:
        self.context = context or FakeContext()
        self.fields = {"Cache-Control": keep, **{n.replace("_", "-"): v for n, v in fields.items()}}
        self.status = 200
        self.body = b"body"
        self.length: int | None = -1
        self.endpoint = Endpoint(lambda _request: self.answer())
        options = parse({CACHE: f"on {settings}"})
        assert isinstance(options, Options)
        layer = build(options, self.context, wall=lambda: WALL + self.context.time - 1000)
        self.handler: Handler = layer(self.endpoint)

    def answer(self) -> FakeResponse:
        """Return what the endpoint answers to everything."""
        return FakeResponse(self.status, self.fields, self.body, length=self.length)

    def get(self, target: str = "/a", method: str = "GET", **fields: str) -> Any:
        """Ask, and return the response."""
        return run(self.handler(self.request(target, method, **fields)))

    def request(self, target: str = "/a", method: str = "GET", **fields: str) -> FakeRequest:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        return FakeRequest(method, target=target, fields={**HOST, **named})

    @property
    def asked(self) -> int:
        """How often the endpoint was asked."""
        return len(self.endpoint.asked)

    def count(self, name: str) -> int:
        return self.context.metrics[f"svcmesh_cache_{name}"]

    def passes(self, seconds: float) -> None:
        self.context.time += seconds


def how(response: Any) -> str:
    """Return what the cache says that it has done."""
    (said,) = response.headers.get_all("Cache-Status")
    name, _, what = said.partition("; ")
    assert name == "svc.mesh"
    return str(what)


class TestAnswers:
    def test_what_is_kept_is_the_answer_until_it_is_stale(self) -> None:
        site = Site(X_A="1")
        first = site.get()
        assert isinstance(first, FakeResponse)
        assert how(first) == "fwd=uri-miss; fwd-status=200; stored"
        site.passes(59)
        again = site.get()
        assert isinstance(again, Reply)
        assert (again.status, again.body, again.reason) == (200, b"body", "cached")
        assert dict(again.headers) == {
            "Cache-Control": "max-age=60",
            "X-A": "1",
            "Age": "59",
            "Cache-Status": "svc.mesh; hit; ttl=1",
        }
        site.passes(1)
        assert how(site.get()) == "fwd=stale; fwd-status=200; stored"
        assert site.asked == 2
        assert (site.count("hits"), site.count("misses"), site.count("stored")) == (1, 2, 2)

    @pytest.mark.parametrize(
        ("target", "fields", "backend"),
        [("/b", {}, ""), ("/a?b", {}, ""), ("/a", {"Host": "other"}, ""), ("/a", {}, "web-v2")],
    )
    def test_what_tells_responses_apart(self, target: str, fields: Mapping[str, str], backend: str) -> None:
        site = Site()
        site.get()
        other = site.request(target, **fields)
        other.backend = backend
        run(site.handler(other))
        assert site.asked == 2

    def test_host_names_have_no_case(self) -> None:
        site = Site()
        site.get(Host="Web")
        assert how(site.get(Host="wEB")).startswith("hit")

    def test_each_variant_is_kept(self) -> None:
        site = Site(Vary="Accept-Encoding")
        assert how(site.get(Accept_Encoding="gzip")).startswith("fwd=uri-miss")
        assert how(site.get(Accept_Encoding="br")).startswith("fwd=vary-miss")
        assert how(site.get()).startswith("fwd=vary-miss")
        for fields in ({"Accept_Encoding": "gzip"}, {"Accept_Encoding": "br"}, {}):
            assert how(site.get(**fields)).startswith("hit")

    def test_a_head_is_answered_from_what_a_get_has_brought_and_brings_nothing(self) -> None:
        site = Site()
        assert how(site.get(method="HEAD")).startswith("fwd=uri-miss")
        assert how(site.get()).startswith("fwd=uri-miss")
        assert how(site.get(method="HEAD")).startswith("hit")

    def test_a_head_that_tells_of_another_response(self) -> None:
        """RFC 9111 section 4.3.5."""
        site = Site("max-age=0", ETag='"1"')
        site.get()
        site.fields["ETag"] = '"2"'
        site.get(method="HEAD")
        assert how(site.get()).startswith("fwd=uri-miss")

    def test_304_to_a_client_that_has_it(self) -> None:
        site = Site(ETag='"1"', X_A="1")
        site.get()
        reply = site.get(If_None_Match='"1"')
        assert (reply.status, reply.body) == (304, b"")
        assert reply.headers.get("ETag") == '"1"'
        assert reply.headers.get("X-A") is None
        assert site.get(If_None_Match='"2"').status == 200
        assert site.asked == 1

    @pytest.mark.parametrize(
        "fields",
        [
            {"Authorization": "Basic x"},
            {"Range": "bytes=0-1"},
            {"If_Range": '"1"'},
            {"If_Match": '"1"'},
            {"If_Unmodified_Since": formatdate(WALL, usegmt=True)},
        ],
    )
    def test_what_it_has_no_part_in(self, fields: dict[str, str]) -> None:
        site = Site("public, max-age=60")
        assert how(site.get(**fields)) == "fwd=bypass"
        assert how(site.get()).startswith("fwd=uri-miss")
        assert how(site.get(**fields)) == "fwd=bypass"
        assert site.asked == 3

    def test_only_if_cached(self) -> None:
        site = Site()
        request = site.request(Cache_Control="only-if-cached")
        assert status_of(site.handler(request)) == "not_cached"
        site.get()
        assert how(site.get(Cache_Control="only-if-cached")).startswith("hit")
        assert site.asked == 1

    def test_a_client_that_wants_nothing_kept(self) -> None:
        site = Site()
        site.get(Cache_Control="no-store")
        assert site.count("stored") == 0

    def test_a_client_that_wants_it_new(self) -> None:
        site = Site(ETag='"1"')
        site.get()
        site.body = b"new"
        assert how(site.get(Cache_Control="no-cache")) == "fwd=request; fwd-status=200; stored"
        assert site.endpoint.asked[1].headers.get("If-None-Match") == '"1"'
        assert site.get().body == b"new"


class TestValidation:
    def test_a_response_that_is_still_valid(self) -> None:
        modified = formatdate(WALL - 100, usegmt=True)
        site = Site(ETag='"1"', Last_Modified=modified, X_A="old")
        site.get()
        site.passes(100)
        site.status, site.body, site.fields["X-A"] = 304, b"", "new"
        reply = site.get()
        assert (reply.status, reply.body) == (200, b"body")
        assert how(reply) == "fwd=stale; fwd-status=304; ttl=60"
        assert reply.headers.get_all("X-A") == ["new"]
        assert site.endpoint.asked[1].headers.get("If-None-Match") == '"1"'
        assert site.endpoint.asked[1].headers.get("If-Modified-Since") == modified
        assert site.endpoint.responses[1].discarded
        assert how(site.get()).startswith("hit")
        assert site.count("validated") == 1

    def test_a_clients_own_condition_is_answered_after_that(self) -> None:
        site = Site(ETag='"1"')
        site.get()
        site.passes(100)
        site.status = 304
        assert site.get(If_None_Match='"1"').status == 304
        site.passes(100)
        assert site.get(If_None_Match='"0"').status == 200
        assert [asked.headers.get("If-None-Match") for asked in site.endpoint.asked] == [None, '"1"', '"1"']

    def test_a_304_about_another_response_is_no_answer(self) -> None:
        """RFC 9111 section 4.3.4."""
        site = Site(ETag='"1"')
        site.get()
        site.passes(100)
        answers = [FakeResponse(304, {"ETag": '"2"'}), FakeResponse(200, site.fields, b"new")]
        site.endpoint.response = lambda _request: answers.pop(0)
        assert site.get().body == b"new"
        assert site.endpoint.asked[-1].headers.get("If-None-Match") is None

    def test_a_304_to_a_clients_own_condition_passes_and_is_not_kept(self) -> None:
        site = Site(ETag='"1"')
        site.status = 304
        assert site.get(If_None_Match='"1"').status == 304
        site.status = 200
        assert how(site.get()).startswith("fwd=uri-miss")

    def test_what_cannot_be_stored_any_more_is_forgotten(self) -> None:
        site = Site("max-age=0", ETag='"1"')
        site.get()
        site.status, site.fields["Cache-Control"] = 304, "private"
        assert site.get().body == b"body"
        site.status = 200
        assert how(site.get()).startswith("fwd=uri-miss")


class TestErrors:
    @pytest.mark.parametrize("failure", [500, 502, 503, 504, ConnectFailed("")])
    def test_a_stale_response_in_place_of_an_error(self, failure: Any) -> None:
        site = Site("max-age=10, stale-if-error=60")
        site.get()
        site.passes(30)
        site.endpoint.response = lambda _: (
            failure if isinstance(failure, Exception) else FakeResponse(failure)
        )
        reply = site.get()
        assert (reply.status, reply.body, reply.reason) == (200, b"body", "stale_if_error")
        site.passes(41)
        expected = failure if isinstance(failure, int) else "connect_failed"
        assert status_of(site.handler(site.request())) == expected
        assert site.count("stale") == 1

    def test_an_error_leaves_what_is_kept(self) -> None:
        site = Site("max-age=10", ETag='"1"')
        site.get()
        site.passes(30)
        site.endpoint.response = lambda _: FakeResponse(500)
        assert site.get().status == 500
        site.endpoint.response = lambda _: FakeResponse(304)
        assert site.get().body == b"body"

    @pytest.mark.parametrize("status", [403, 404, 410])
    def test_an_answer_that_is_no_error_is_passed_on(self, status: int) -> None:
        site = Site("max-age=10, stale-if-error=60")
        site.get()
        site.passes(30)
        site.endpoint.response = lambda _: FakeResponse(status)
        assert site.get().status == status
        assert how(site.get()).startswith("fwd=uri-miss")

    def test_a_body_that_breaks_off_is_the_clients_error(self) -> None:
        site = Site()

        async def broken(_limit: int) -> bytes | None:
            raise UpstreamReset("")

        response = site.answer()
        response.read = broken  # type: ignore[method-assign, assignment]
        site.endpoint.response = lambda _: response
        assert status_of(site.handler(site.request())) == "upstream_reset"
        site.endpoint.response = lambda _: site.answer()
        assert how(site.get()).startswith("fwd=uri-miss")


class TestBeside:
    def stale(self, site: Site) -> FakeRequest:
        request = site.request()
        assert how(run(site.handler(request))) == "hit; ttl=-20"
        return request

    def test_a_stale_response_is_validated_beside(self) -> None:
        site = Site("max-age=10", "stale-while-revalidate=60s", ETag='"1"')
        site.get(If_Modified_Since="x")
        site.passes(30)
        request = self.stale(site)
        ((copy, serve),) = request.errands
        assert not self.stale(site).errands, "one is enough"
        site.status = 304
        run(serve(copy))
        assert [limit.error().reason for limit in copy.deadlines] == ["response_timeout"]
        assert site.endpoint.asked[-1].headers.get("If-None-Match") == '"1"'
        assert how(site.get()) == "hit; ttl=10"

    def test_a_new_response_takes_its_place_whatever_its_framing(self) -> None:
        site = Site("max-age=10", "stale-while-revalidate=60s")
        site.get()
        site.passes(30)
        ((copy, serve),) = self.stale(site).errands
        site.body, site.length = b"new", None
        run(serve(copy))
        assert site.get().body == b"new"

    def test_if_that_fails_the_next_request_tries_again(self) -> None:
        site = Site("max-age=10, stale-if-error=60", "stale-while-revalidate=60s")
        site.get()
        site.passes(30)
        site.endpoint.response = lambda _: ConnectFailed("")
        for _ in range(3):
            ((copy, serve),) = self.stale(site).errands
            assert status_of(serve(copy)) == "connect_failed"

    def test_their_number_is_bounded(self) -> None:
        site = Site("max-age=10", "stale-while-revalidate=60s")
        requests = [site.request(f"/{number}") for number in range(MOST_ERRANDS + 5)]
        for request in requests:
            site.get(request.target)
        site.passes(30)
        for request in requests:
            run(site.handler(request))
        assert sum(len(request.errands) for request in requests) == MOST_ERRANDS


class TestInvalidation:
    """RFC 9111 section 4.4."""

    @pytest.mark.parametrize(
        ("method", "status", "gone"),
        [
            ("POST", 200, True),
            ("PUT", 204, True),
            ("DELETE", 302, True),
            ("PATCH", 200, True),
            ("M-SEARCH", 200, True),
            ("POST", 400, False),
            ("POST", 500, False),
            ("OPTIONS", 200, False),
            ("TRACE", 200, False),
        ],
    )
    def test_unsafe_methods(self, method: str, status: int, gone: bool) -> None:
        site = Site()
        site.get()
        site.get("/b")
        site.passes(1)
        site.endpoint.response = lambda _: FakeResponse(status)
        assert how(site.get(method=method)) == "fwd=method"
        site.endpoint.response = lambda _: site.answer()
        assert how(site.get()).startswith("fwd=uri-miss" if gone else "hit")
        assert how(site.get("/b")).startswith("hit")

    @pytest.mark.parametrize("name", ["Location", "Content-Location"])
    @pytest.mark.parametrize(
        ("reference", "gone"),
        [
            ("/b?c", True),
            ("b?c", True),
            ("http://web/b?c", True),
            ("http://WEB/b?c#d", True),
            ("//web/b?c", True),
            ("http://other/b?c", False),
            ("/b", False),
            ("http://[", False),
        ],
    )
    def test_what_the_response_points_to(self, name: str, reference: str, gone: bool) -> None:
        site = Site()
        site.get("/b?c")
        site.passes(1)
        site.endpoint.response = lambda _: FakeResponse(201, {name: reference})
        site.get("/a", "POST")
        site.endpoint.response = lambda _: site.answer()
        assert how(site.get("/b?c")).startswith("fwd=uri-miss" if gone else "hit")

    def test_all_workers_of_the_node_hear_of_it(self) -> None:
        table, windows = FakeTable(), FakeWindows()
        here, there = (Site(context=FakeContext(shared=table, windows=windows)) for _ in range(2))
        for site in (here, there):
            site.get()
            site.get("/b")
            site.passes(1)
        here.get(method="POST")
        assert how(there.get()).startswith("fwd=uri-miss")
        assert how(there.get("/b")).startswith("hit")
        there.passes(1)
        here.passes(1)
        here.get(method="POST")
        here.get(method="POST")  # at the same moment
        assert how(there.get()).startswith("fwd=uri-miss")

    def test_a_response_that_was_on_its_way_is_old_too(self) -> None:
        site = Site()

        def meanwhile(request: Request) -> FakeResponse:
            if request.method == "GET" and site.asked == 1:
                site.passes(1)
                site.get(method="POST")
            return site.answer()

        site.endpoint.response = meanwhile
        site.get()
        assert how(site.get()).startswith("fwd=uri-miss")


class TestBounds:
    def test_the_one_used_longest_ago_makes_room(self) -> None:
        site = Site(settings="size=64Ki")
        site.body = b"x" * 20_000
        for target in ("/a", "/b", "/c"):
            site.get(target)
        site.get("/a")
        site.get("/d")
        assert [how(site.get(target))[:3] for target in ("/a", "/d", "/c", "/b")] == ["hit"] * 3 + ["fwd"]
        assert site.count("evicted") >= 1
        assert site.count("bytes") <= 65536

    def test_a_large_body_is_not_read(self) -> None:
        site = Site(settings="object=10Ki")
        site.body = b"x" * 20_000
        assert how(site.get()) == "fwd=uri-miss; fwd-status=200"
        assert site.endpoint.responses[0].collecting is None
        assert how(site.get()) == "fwd=uri-miss; fwd-status=200"

    def test_a_body_of_unknown_size_is_kept_when_it_has_passed(self) -> None:
        site = Site(settings="object=10Ki")
        site.length = None
        request = site.request()
        response = run(site.handler(request))
        response.headers.add("X-Later", "for this client alone")
        assert site.count("stored") == 0, "it has not passed yet"
        response.passed()
        request.end()
        reply = site.get()
        assert reply.body == b"body"
        assert reply.headers.get("X-Later") is None

    def test_bodies_on_their_way_are_bounded_together(self) -> None:
        site = Site(settings="size=64Ki object=32Ki")
        site.length = None
        requests = [site.request(f"/{number}") for number in range(3)]
        responses = [run(site.handler(request)) for request in requests]
        assert [response.collecting is not None for response in responses] == [True, True, False]
        requests[0].end()
        assert run(site.handler(site.request("/4"))).collecting is not None

    def test_variants_of_one_resource_are_bounded(self) -> None:
        site = Site(Vary="X-A")
        site.get("/other", X_A="1")
        for number in range(MOST_VARIANTS + 1):
            site.get(X_A=str(number))
        assert how(site.get(X_A="0")).startswith("fwd=vary-miss")
        assert how(site.get(X_A=str(MOST_VARIANTS))).startswith("hit")
        assert how(site.get("/other", X_A="1")).startswith("hit")

    def test_responses_that_vary_otherwise_replace_the_others(self) -> None:
        site = Site(Vary="X-A")
        site.get(X_A="1")
        site.fields["Vary"] = "X-B"
        site.get(X_A="2")
        assert how(site.get(X_A="1")).startswith("hit")
        assert site.get(X_B="1").status == 200
        assert site.asked == 3


class Slow:
    """An endpoint that answers when it is told to."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.waiting: list[asyncio.Future[Any]] = []
        self.handler = build_around(site, self)

    async def __call__(self, _request: Request) -> Response:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        response: Response = await future
        return response

    def answers(self, answer: Any = None) -> None:
        future = self.waiting.pop(0)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer or self.site.answer())


def build_around(site: Site, endpoint: Handler, settings: str = "") -> Handler:
    options = parse({CACHE: f"on {settings}"})
    assert isinstance(options, Options)
    return build(options, site.context, wall=lambda: WALL + site.context.time - 1000)(endpoint)


async def turns() -> None:
    """Let everything go on that can."""
    for _ in range(10):
        await asyncio.sleep(0)


class TestCollapsing:
    def ask(self, slow: Slow, number: int = 1, **fields: str) -> list[asyncio.Task[Any]]:
        async def one() -> Any:
            return await slow.handler(slow.site.request(**fields))

        return [asyncio.create_task(one()) for _ in range(number)]

    async def test_equal_requests_are_one(self) -> None:
        slow = Slow(Site())
        tasks = self.ask(slow, 5)
        await turns()
        assert len(slow.waiting) == 1
        slow.answers()
        said = [how(response) for response in await asyncio.gather(*tasks)]
        assert said == ["fwd=uri-miss; fwd-status=200; stored"] + ["hit; collapsed; ttl=60"] * 4

    async def test_if_the_response_cannot_be_kept_all_are_sent_and_the_next_ones_do_not_wait(self) -> None:
        slow = Slow(Site("no-store"))
        tasks = self.ask(slow, 5)
        await turns()
        slow.answers()
        await turns()
        assert len(slow.waiting) == 4
        tasks += self.ask(slow, 2)
        await turns()
        assert len(slow.waiting) == 6
        for _ in range(6):
            slow.answers()
        await asyncio.gather(*tasks)
        slow.site.passes(REMEMBERED)
        tasks = self.ask(slow, 2)
        await turns()
        assert len(slow.waiting) == 1
        for _ in range(2):
            slow.answers()
            await turns()
        await asyncio.gather(*tasks)

    @pytest.mark.parametrize("failure", [ConnectFailed(""), FakeResponse(503)])
    async def test_if_it_fails_the_others_are_sent(self, failure: Any) -> None:
        slow = Slow(Site())
        tasks = self.ask(slow, 4)
        await turns()
        slow.answers(failure)
        await turns()
        assert len(slow.waiting) == 3
        for _ in range(3):
            slow.answers()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert how(await self.ask(slow)[0]).startswith("hit")

    async def test_if_its_client_leaves_one_other_is_sent(self) -> None:
        slow = Slow(Site())
        first, *others = self.ask(slow, 4)
        await turns()
        first.cancel()
        await turns()
        slow.waiting.pop(0)
        assert len(slow.waiting) == 1
        slow.answers()
        assert len(await asyncio.gather(*others)) == 4 - 1
        assert not slow.waiting

    async def test_requests_that_are_not_equal_do_not_wait(self) -> None:
        slow = Slow(Site())
        tasks = self.ask(slow) + self.ask(slow, Host="other") + self.ask(slow, Cache_Control="no-cache")
        await turns()
        assert len(slow.waiting) == 3
        for _ in range(3):
            slow.answers()
        await asyncio.gather(*tasks)

    async def test_a_variant_that_was_not_waited_for_is_sent(self) -> None:
        slow = Slow(Site(Vary="X-A"))
        tasks = self.ask(slow, X_A="1") + self.ask(slow, 2, X_A="2")
        await turns()
        slow.answers()
        await turns()
        assert len(slow.waiting) == 2, "neither waits a second time"
        for _ in range(2):
            slow.answers()
        assert all(response.status == 200 for response in await asyncio.gather(*tasks))

    async def test_one_with_a_condition_waits_and_is_not_waited_for(self) -> None:
        slow = Slow(Site(ETag='"1"'))
        tasks = self.ask(slow, If_None_Match='"1"') + self.ask(slow)
        await turns()
        assert len(slow.waiting) == 2
        tasks += self.ask(slow, If_None_Match='"1"')
        await turns()
        assert len(slow.waiting) == 2
        slow.answers(FakeResponse(304))
        slow.answers()
        assert [response.status for response in await asyncio.gather(*tasks)] == [304, 200, 304]

    async def test_the_number_of_those_that_wait_is_bounded(self) -> None:
        slow = Slow(Site())
        tasks = self.ask(slow, MOST_WAITING + 3)
        await turns()
        assert len(slow.waiting) == 3
        for _ in range(3):
            slow.answers()
        await asyncio.gather(*tasks)

    async def test_nobody_waits_if_that_is_off(self) -> None:
        slow = Slow(Site())
        slow.handler = build_around(slow.site, slow, "collapse=0")
        tasks = self.ask(slow, 3)
        await turns()
        assert len(slow.waiting) == 3
        for _ in range(3):
            slow.answers()
        await asyncio.gather(*tasks)

    async def test_those_that_wait_for_a_body_of_unknown_size(self) -> None:
        site = Site()
        site.length = None
        slow = Slow(site)
        request = site.request()
        first = asyncio.create_task(wait_for(slow.handler(request)))
        others = self.ask(slow, 2)
        await turns()
        slow.answers()
        response = await first
        await turns()
        assert not slow.waiting
        response.passed()
        request.end()
        for other in await asyncio.gather(*others):
            assert other.body == b"body"


async def wait_for(awaitable: Any) -> Any:
    return await awaitable


def test_what_cannot_be_kept_is_remembered_of_so_many() -> None:
    store = Store(1 << 20)
    for number in range(MOST_REMEMBERED + 1):
        store.remember(("web", f"/{number}", ""), 1000.0)
    assert not store.passes(("web", "/0", ""), 1001.0)
    assert store.passes(("web", "/1", ""), 1001.0)
    assert not store.passes(("web", "/1", ""), 1000.0 + REMEMBERED)


def test_calls_of_grpc_and_what_has_a_body_pass() -> None:
    site = Site()
    site.get()
    for request in (
        FakeRequest("GET", target="/a", fields=HOST, grpc=True),
        FakeRequest("GET", target="/a", fields=HOST, head_only=False),
    ):
        assert how(run(site.handler(request))) in ("fwd=method", "fwd=bypass")
    run(site.handler(FakeRequest("POST", target="/a", fields=HOST, grpc=True)))
    assert how(site.get()).startswith("hit"), "calls change nothing that is kept"
    assert site.asked == 4


TABLE = "| response | second request | answer |"


@pytest.mark.parametrize("row", rows(page("cache"), TABLE), ids=lambda row: " ".join(row[:2]))
def test_what_the_page_says(row: list[str]) -> None:
    said, asked, expected = (cell.strip("`") for cell in row)
    options = options_of_example(MIDDLEWARE)
    context = FakeContext()
    (field,) = [said.split(": ", 1)]
    endpoint = Endpoint(lambda _: FakeResponse(200, dict([field]), b"body"))
    handler = build(options, context, wall=lambda: WALL + context.time - 1000)(endpoint)
    run(handler(FakeRequest(fields=HOST)))
    context.time += 10
    again = FakeRequest(fields=HOST | dict([asked.split(": ", 1)] if asked else []))
    response = run(handler(again))
    found = ["kept" if len(endpoint.asked) == 1 else "asked"]
    found += ["304"] if response.status == 304 else []
    found += ["stale"] if again.errands else []
    assert ", ".join(found) == expected


def test_the_page_says_how_each_answer_came_about() -> None:
    said = {row[0].strip("`") for row in rows(page("cache"), "| `Cache-Status` | meaning |")}
    shapes = {re.sub(r"-?\d+", "N", one).removeprefix("svc.mesh; ") for one in said}
    site = Site("max-age=60, stale-if-error=60", Vary="X-A", ETag='"1"')
    found = [site.get(), site.get(), site.get(Range="bytes=0-1"), site.get(method="PUT")]
    site.passes(1)
    found += [site.get(), site.get(Cache_Control="no-cache, no-store")]
    site.length = None
    found += [site.get(X_A="1")]
    site.length = -1
    site.passes(69)
    site.status = 503
    found += [site.get()]
    site.status = 304
    found += [site.get()]
    assert {re.sub(r"-?\d+", "N", how(one)) for one in found} | {"hit; collapsed; ttl=N"} == shapes
