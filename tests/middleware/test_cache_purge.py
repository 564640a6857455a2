"""Purging a cache: the annotation, what a purge drops, and what is under way at that time."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from middleware.cache import MIDDLEWARE, CacheLayer
from middleware.cache_options import CACHE, Options, parse
from middleware.cache_purge import (
    MOST_PURGES,
    PURGE,
    Purge,
    PurgeTimes,
    add_purge,
    new_purges,
    parse_purges,
    write_purges,
)
from middleware.contract import ConnectFailed, Handler, Problem, Request, Response
from middleware.testing import FakeContext, FakeRequest, FakeResponse, run, sent_over
from middleware.values import InvalidValue

MARKS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}", fullmatch=True)
PATHS = st.sampled_from(("", "/", "/a", "/a/", "/ab", "/b?c=path=/", "/%20,;"))
PURGES = st.builds(Purge, MARKS, PATHS)


@given(st.lists(PURGES, min_size=1, max_size=MOST_PURGES).map(tuple))
def test_what_is_written_is_read(purges: tuple[Purge, ...]) -> None:
    assert parse_purges(write_purges(purges)) == purges


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no mark"),
        ("path=/a", '"path=/a" has no mark before it'),
        ("1 path=/a path=/b", '"path=/b" has no mark before it'),
        ("1 path=a", 'path="a" is not how a target begins'),
        ("1 path=", 'path="" is not how a target begins'),
        ("1 tag=a", '"tag=a" is not a mark'),
        ("-1", '"-1" is not a mark'),
        ("x" * 65, "is not a mark"),
        (" ".join(map(str, range(17))), "there are 17 marks"),
    ],
)
def test_values_that_cannot_be_used(text: str, reason: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(reason)):
        parse_purges(text)
    found = parse({CACHE: "on", PURGE: text})
    assert isinstance(found, Problem)
    assert found.annotation == PURGE


def test_the_options() -> None:
    options = parse({CACHE: "on", PURGE: "release-7 now path=/a"})
    assert options == Options(purges=(Purge("release-7"), Purge("now", "/a")))
    assert sent_over(options) == options
    assert parse({CACHE: "off", PURGE: "1"}) is None
    assert parse({PURGE: "1"}) is None


@given(st.lists(PURGES, max_size=MOST_PURGES).map(tuple), PURGES)
def test_one_more_fits_and_is_new(before: tuple[Purge, ...], purge: Purge) -> None:
    after = add_purge(before, purge)
    assert after[-1] == purge
    assert parse_purges(write_purges(after)) == after
    assert new_purges(before, after) == (() if purge in before else (purge,))
    assert new_purges(after, before[1:]) == () or len(before) == MOST_PURGES


TARGETS = st.sampled_from(("/", "/a", "/a/b", "/ab", "/b?c", "*"))


@given(st.lists(st.tuples(st.text("/ab0123456789", max_size=3), st.integers(0, 9)), max_size=60), TARGETS)
def test_what_is_purged_stays_purged(purges: list[tuple[str, int]], target: str) -> None:
    """Against a model that remembers every purge: nothing that was purged counts as not purged, and nothing
    that was asked for after the last purge counts as purged, however many there were."""
    times, now = PurgeTimes(), 0
    for path, wait in purges:
        now += wait
        times.add(path, now)
    at, latest = 0, -1
    for path, wait in purges:
        at += wait
        if target.startswith(path):
            latest = at
    assert all(times.covers(target, moment) for moment in range(latest + 1))
    assert not times.covers(target, now + 1)
    if len({path for path, _ in purges}) <= MOST_PURGES:
        assert not times.covers(target, latest + 1)


class Site:
    """A cache whose options can change, in front of an endpoint."""

    def __init__(self, settings: str = "stale-if-error=1h") -> None:
        self.context = FakeContext()
        self.settings = settings
        self.asked: list[str] = []
        self.before_answer: Callable[[], object] = lambda: None
        self.fails = False
        self.keep = "max-age=60"
        self.length: int | None = -1
        options = self.options("on")
        self.layer: CacheLayer = MIDDLEWARE.build(options, self.context)
        self.handler: Handler = self.layer(self.answer)

    def options(self, word: str, purges: str = "") -> Options:
        annotations = {CACHE: f"{word} {self.settings}", **({PURGE: purges} if purges else {})}
        options = parse(annotations)
        assert isinstance(options, Options)
        return options

    async def answer(self, request: Request) -> Response:
        self.asked.append(request.target)
        self.before_answer()
        if self.fails:
            raise ConnectFailed("refused")
        return FakeResponse(200, {"Cache-Control": self.keep}, b"body", length=self.length)

    def get(self, target: str = "/a") -> Response:
        request = FakeRequest("GET", target=target, fields={"Host": "web"})
        response: Response = run(self.handler(request))
        if isinstance(response, FakeResponse):
            response.passed()
        request.end()
        return response

    def purge(self, purges: str) -> bool:
        self.context.time += 1
        assert MIDDLEWARE.renew is not None
        return MIDDLEWARE.renew(self.layer, self.options("on", purges))

    def count(self, name: str) -> int:
        return self.context.metrics[f"svcmesh_cache_{name}"]


def test_a_new_mark_drops_everything_once() -> None:
    site = Site()
    site.get("/a")
    site.get("/b")
    with capture_logs() as lines:
        assert site.purge("1")
    assert [(line["event"], line["mark"], line["path"], line["responses"]) for line in lines] == [
        ("cache_purged", "1", "all", 2)
    ]
    assert (site.count("purged"), site.count("bytes")) == (2, 0)
    site.context.time += 1
    site.get("/a")
    assert site.asked == ["/a", "/b", "/a"]
    assert site.purge("1")  # it is known
    assert site.purge("1 ")
    site.get("/a")
    assert site.asked == ["/a", "/b", "/a"]


def test_a_path_drops_what_begins_with_it() -> None:
    site = Site()
    for target in ("/a", "/a/b", "/a?x", "/b"):
        site.get(target)
    assert site.purge("1 path=/a/ 2 path=/a?")
    site.context.time += 1
    for target in ("/a", "/a/b", "/a?x", "/b"):
        site.get(target)
    assert site.asked[4:] == ["/a/b", "/a?x"]
    assert site.count("purged") == 2


def test_other_options_take_another_cache() -> None:
    site = Site()
    site.settings = "size=1Mi"
    assert not site.purge("1")
    assert site.count("purged") == 0


@pytest.mark.parametrize("length", [-1, None], ids=["of known size", "of unknown size"])
def test_an_answer_that_is_under_way_is_not_kept(length: int | None) -> None:
    site = Site()
    site.length = length
    site.before_answer = lambda: len(site.asked) > 1 or site.purge("1")
    assert site.get().status == 200
    site.context.time += 1
    site.get()
    site.get()
    assert len(site.asked) == 2, "the second answer was asked for after the purge, and kept"


def test_what_is_purged_does_not_stand_for_an_error() -> None:
    site = Site()
    site.keep = "max-age=1"
    site.get()
    site.context.time += 5
    site.fails = True
    assert site.get().status == 200, "stale, in place of the error"
    site.before_answer = lambda: site.purge("1")
    with pytest.raises(ConnectFailed):
        site.get()


def test_purges_of_other_paths_take_nothing_away_however_many() -> None:
    site = Site()
    site.keep = "max-age=1"
    site.get()
    for number in range(2 * MOST_PURGES):
        assert site.purge(f"mark-{number} path=/other/{number}")
    site.fails = True
    assert site.get().status == 200, "stale, in place of the error"
