"""The rules of caching, by section of RFC 9111; the cases follow those of the public HTTP cache tests."""

from __future__ import annotations

from email.utils import formatdate
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from middleware.cache_directives import (
    LONGEST,
    opaque,
    parse_date,
    parse_directives,
    parse_tags,
    seconds,
)
from middleware.cache_rules import (
    ANYTHING,
    Policy,
    Stored,
    freshen,
    keep,
    not_modified,
    selecting,
    storable,
    usable_on_error,
    use,
    vary_of,
    wish_of,
)
from middleware.contract import ReplyHeaders

WALL = 1_700_000_000.0
"""A moment since 1970; the monotonic clock shows `NOW` then."""
NOW = 5000.0


def date(offset: float) -> str:
    return formatdate(WALL + offset, usegmt=True)


def fields(text: str) -> ReplyHeaders:
    """Read `Name: value | Name: value`; `{-10}` stands for the date ten seconds ago."""
    found = []
    for line in filter(None, text.split(" | ")):
        name, _, value = line.partition(": ")
        if value.startswith("{"):
            value = date(float(value.strip("{}")))
        found.append((name, value))
    return ReplyHeaders(found)


def kept(text: str, status: int = 200, policy: Policy | None = None, delay: float = 0.0) -> Stored:
    stored = keep(
        status, fields(text), b"body", policy or Policy(), requested=NOW - delay, now=NOW, wall=WALL
    )
    assert stored is not None, "it is of no use"
    return stored


class TestSection3Storing:
    @pytest.mark.parametrize(
        ("text", "status", "stored"),
        [
            ("", 200, False),
            ('ETag: "a"', 200, False),
            ("Last-Modified: {-1000}", 200, False),
            ("Cache-Control: max-age=60", 200, True),
            ("Cache-Control: max-age=60", 404, True),
            ("Cache-Control: max-age=60", 302, True),
            ("Cache-Control: max-age=60", 500, True),
            ("Cache-Control: max-age=60", 599, True),
            ("Cache-Control: max-age=60", 206, False),
            ("Cache-Control: max-age=60", 304, False),
            ("Cache-Control: s-maxage=60", 200, True),
            ("Cache-Control: public", 200, True),
            ("Cache-Control: no-cache", 200, True),
            ("Expires: {60}", 200, True),
            ("Cache-Control: no-store", 200, False),
            ("Cache-Control: no-store, max-age=60", 200, False),
            ("Cache-Control: max-age=60 | Cache-Control: no-store", 200, False),
            ("Cache-Control: max-age=60, NO-STORE", 200, False),
            ("Cache-Control: private, max-age=60", 200, False),
            ('Cache-Control: private="x-a", max-age=60', 200, False),
            ("Cache-Control: max-age=60 | Set-Cookie: a=b", 200, False),
            ("Cache-Control: max-age=60 | Vary: *", 200, False),
            ("Cache-Control: max-age=60 | Vary: Accept, *", 200, False),
            ("Cache-Control: max-age=60 | Vary: Accept", 200, True),
            ("Cache-Control: must-understand, no-store, max-age=60", 200, True),
            ("Cache-Control: must-understand, no-store, max-age=60", 299, False),
            ('Cache-Control: max-age=60, ext="a, no-store"', 200, True),
            ('Cache-Control: max-age=60, ext="a', 200, False),
            ("Cache-Control: max-age = 60", 200, False),
        ],
    )
    def test_what_may_be_stored(self, text: str, status: int, stored: bool) -> None:
        assert storable(status, fields(text), Policy()) is stored

    def test_heuristics_are_asked_for(self) -> None:
        text = fields("Last-Modified: {-1000}")
        assert not storable(200, text, Policy())
        assert storable(200, text, Policy(heuristic=True))
        assert not storable(201, text, Policy(heuristic=True))

    def test_what_is_of_use_to_nobody(self) -> None:
        assert keep(200, fields("Expires: 0"), b"", Policy(), requested=NOW, now=NOW, wall=WALL) is None
        assert kept('Expires: 0 | ETag: "a"').fresh_until <= NOW

    def test_fields_of_one_connection_and_of_proxies_are_not_stored(self) -> None:
        text = "Cache-Control: max-age=60 | Content-Length: 4 | Transfer-Encoding: chunked | Age: 3 | X-A: 1"
        text += " | Proxy-Authenticate: Basic | Cache-Status: other; hit"
        assert kept(text).fields == (("Cache-Control", "max-age=60"), ("X-A", "1"))


class TestSection4Dash1Vary:
    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("", ()),
            ("Vary: Accept-Encoding", ("accept-encoding",)),
            ("Vary: b, A,, b", ("a", "b")),
            ("Vary: b | Vary: a", ("a", "b")),
            ("Vary: a, *", None),
        ],
    )
    def test_names(self, text: str, names: tuple[str, ...] | None) -> None:
        assert vary_of(fields(text)) == names

    def test_values_of_one_name_are_joined(self) -> None:
        assert selecting(fields("A: 1 | B: x | a: 2"), ("a", "c")) == ("1, 2", "")


class TestSection4Dash2Freshness:
    @pytest.mark.parametrize(
        ("text", "left"),
        [
            ("Cache-Control: max-age=60", 60),
            ("Cache-Control: max-age=60, s-maxage=10", 10),
            ("Cache-Control: s-maxage=10, max-age=60", 10),
            ("Cache-Control: max-age=60 | Expires: {-60}", 60),
            ("Cache-Control: max-age=60, max-age=10", 60),
            ('Cache-Control: max-age="60"', 60),
            ("Cache-Control: MAX-AGE=60", 60),
            ("Cache-Control: max-age=60x", 0),
            ("Cache-Control: max-age=-1", 0),
            ("Cache-Control: max-age=6.0", 0),
            ("Cache-Control: max-age", 0),
            ("Cache-Control: max-age=99999999999999999999", LONGEST),
            ("Cache-Control: max-age=60 | Date: {-20}", 40),
            ("Cache-Control: max-age=60 | Date: {20}", 60),
            ("Cache-Control: max-age=60 | Date: yesterday", 60),
            ("Cache-Control: max-age=60 | Age: 50", 10),
            ("Cache-Control: max-age=60 | Age: 50, 1", 10),
            ("Cache-Control: max-age=60 | Age: x", 60),
            ("Cache-Control: max-age=60 | Age: 30 | Date: {-50}", 10),
            ("Expires: {60} | Date: {0}", 60),
            ("Expires: {60} | Date: {-10}", 60),
            ("Expires: {60}", 60),
            ("Expires: {-60} | Date: {0}", 0),
            ("Expires: 0", 0),
            ("Expires: {60} | Expires: {60}", 0),
            ("Cache-Control: public", 0),
            ("Cache-Control: no-cache", -inf),
            ('Cache-Control: no-cache="x-a", max-age=60', -inf),
            ("Last-Modified: {-1000}", 0),
        ],
    )
    def test_for_how_long(self, text: str, left: float) -> None:
        stored = kept(f'{text} | ETag: "a"')
        assert stored.fresh_until - NOW == left

    def test_the_time_on_the_way_counts(self) -> None:
        """Section 4.2.3: the age when the response comes is at least the time that it took."""
        assert kept("Cache-Control: max-age=60", delay=5.0).fresh_until == NOW + 55
        assert kept("Cache-Control: max-age=60 | Age: 10", delay=5.0).fresh_until == NOW + 45

    @pytest.mark.parametrize(("modified", "left"), [(-1000, 100), (-10_000_000, 86_400), (5, 0)])
    def test_a_tenth_of_the_time_since_the_last_change(self, modified: int, left: float) -> None:
        text = f'Last-Modified: {{{modified}}} | ETag: "a"'
        assert kept(text, policy=Policy(heuristic=True)).fresh_until - NOW == pytest.approx(left)


class TestSection4Dash2Dash4AndRfc5861Stale:
    @pytest.mark.parametrize(
        ("control", "policy", "beside", "error"),
        [
            ("max-age=10", Policy(), None, None),
            ("max-age=10, stale-while-revalidate=5", Policy(), 15, None),
            ("max-age=10, stale-if-error=5", Policy(), None, 15),
            ("max-age=10", Policy(3, 4), 13, 14),
            ("max-age=10, stale-while-revalidate=0, stale-if-error=0", Policy(3, 4), None, None),
            ("max-age=10, stale-if-error=x", Policy(3, 4), 13, None),
            ("max-age=10, must-revalidate, stale-if-error=9", Policy(3, 4), None, None),
            ("max-age=10, proxy-revalidate", Policy(3, 4), None, None),
            ("no-cache, max-age=10", Policy(3, 4), None, None),
            ("s-maxage=10", Policy(3, 4), None, None),
            ("s-maxage=10, stale-while-revalidate=5, stale-if-error=6", Policy(), 15, 16),
        ],
    )
    def test_until_when(
        self, control: str, policy: Policy, beside: float | None, error: float | None
    ) -> None:
        stored = kept(f'Cache-Control: {control} | ETag: "a"', policy=policy)
        assert stored.revalidate_until == (-inf if beside is None else NOW + beside)
        assert stored.error_until == (-inf if error is None else NOW + error)
        for at in (NOW + 9, NOW + 12, NOW + 14.5, NOW + 20):
            assert usable_on_error(stored, ANYTHING, at) == (error is not None and at < NOW + error)


class TestSection5Dash2Dash1Requests:
    @pytest.mark.parametrize(
        ("request_fields", "control", "age", "usage"),
        [
            ("", "max-age=60", 59, "fresh"),
            ("", "max-age=60", 60, "validate"),
            ("", "max-age=60, stale-while-revalidate=10", 69, "revalidate"),
            ("", "max-age=60, stale-while-revalidate=10", 70, "validate"),
            ("", "no-cache", 0, "validate"),
            ("Cache-Control: no-cache", "max-age=60", 1, "refused"),
            ("Pragma: no-cache", "max-age=60", 1, "refused"),
            ("Pragma: no-cache | Cache-Control: max-age=9", "max-age=60", 1, "fresh"),
            ("Cache-Control: max-age=10", "max-age=60", 10, "fresh"),
            ("Cache-Control: max-age=10", "max-age=60", 11, "refused"),
            ("Cache-Control: max-age=0", "max-age=60", 1, "refused"),
            ("Cache-Control: max-age=x", "max-age=60", 1, "refused"),
            ("Cache-Control: min-fresh=10", "max-age=60", 50, "fresh"),
            ("Cache-Control: min-fresh=10", "max-age=60", 51, "refused"),
            ("Cache-Control: max-stale", "max-age=60", 1000, "stale"),
            ("Cache-Control: max-stale=10", "max-age=60", 70, "stale"),
            ("Cache-Control: max-stale=10", "max-age=60", 71, "validate"),
            ("Cache-Control: max-stale", "max-age=60, must-revalidate", 61, "validate"),
            ("Cache-Control: max-stale", "max-age=60, proxy-revalidate", 61, "validate"),
            ("Cache-Control: max-stale", "s-maxage=60", 61, "validate"),
            ("Cache-Control: max-stale", "no-cache", 1, "validate"),
            ("Cache-Control: max-stale=99, max-age=60", "max-age=60", 61, "refused"),
            ("Cache-Control: no-transform, unknown=1", "max-age=60", 59, "fresh"),
        ],
    )
    def test_what_may_be_done(self, request_fields: str, control: str, age: float, usage: str) -> None:
        stored = kept(f'Cache-Control: {control} | ETag: "a"')
        assert use(stored, wish_of(fields(request_fields)), NOW + age) == usage

    def test_only_if_cached_and_no_store(self) -> None:
        wish = wish_of(fields("Cache-Control: only-if-cached | Cache-Control: no-store"))
        assert wish.only_if_cached
        assert wish.no_store
        assert wish_of(fields("Accept: */*")) is ANYTHING


class TestSection4Dash3Validation:
    @pytest.mark.parametrize(
        ("stored_fields", "request_fields", "not_changed"),
        [
            ('ETag: "a"', "", False),
            ('ETag: "a"', 'If-None-Match: "a"', True),
            ('ETag: W/"a"', 'If-None-Match: "a"', True),
            ('ETag: "a"', 'If-None-Match: W/"a"', True),
            ('ETag: "a"', 'If-None-Match: "b", "a"', True),
            ('ETag: "a"', 'If-None-Match: "b" | If-None-Match: "a"', True),
            ('ETag: "a"', 'If-None-Match: "b"', False),
            ('ETag: "a"', "If-None-Match: a", False),
            ('ETag: "a,b"', 'If-None-Match: "a,b"', True),
            ('ETag: "a"', "If-None-Match: *", True),
            ("X: 1", 'If-None-Match: "a"', False),
            ("Last-Modified: {-10}", "If-Modified-Since: {-10}", True),
            ("Last-Modified: {-10}", "If-Modified-Since: {0}", True),
            ("Last-Modified: {-10}", "If-Modified-Since: {-11}", False),
            ("Last-Modified: {-10}", "If-Modified-Since: now", False),
            ("Date: {-10}", "If-Modified-Since: {-10}", True),
            ('ETag: "a" | Last-Modified: {-10}', 'If-None-Match: "b" | If-Modified-Since: {0}', False),
        ],
    )
    def test_304_from_what_is_kept(self, stored_fields: str, request_fields: str, not_changed: bool) -> None:
        stored = kept(f"Cache-Control: max-age=60 | {stored_fields}")
        assert not_modified(stored, fields(request_fields), WALL) is not_changed

    def test_only_of_a_success(self) -> None:
        stored = kept('Cache-Control: max-age=60 | ETag: "a"', status=404)
        assert not not_modified(stored, fields('If-None-Match: "a"'), WALL)

    @pytest.mark.parametrize(
        ("before", "said", "same"),
        [
            ('ETag: "a"', 'ETag: "a"', True),
            ('ETag: "a"', 'ETag: W/"a"', True),
            ('ETag: "a"', 'ETag: "b"', False),
            ('ETag: "a"', "X: 1", True),
            ("Last-Modified: {-10}", "Last-Modified: {-10}", True),
            ("Last-Modified: {-10}", "Last-Modified: {-9}", False),
            ("Last-Modified: {-10}", 'ETag: "b"', False),
        ],
    )
    def test_whether_a_304_is_about_what_is_kept(self, before: str, said: str, same: bool) -> None:
        stored = kept(f"Cache-Control: max-age=0 | {before}")
        found = freshen(stored, fields(said), Policy(), requested=NOW + 9, now=NOW + 10, wall=WALL + 10)
        assert (found is not None) is same

    def test_freshening(self) -> None:
        """Section 3.2: what the 304 says replaces what was stored, and the body stays."""
        stored = kept('Cache-Control: max-age=5 | ETag: "a" | X-A: 1 | X-A: 2 | Content-Type: text/plain')
        said = fields('Cache-Control: max-age=60 | ETag: "a" | X-A: 3 | Content-Type: x | Content-Length: 0')
        found = freshen(stored, said, Policy(), requested=NOW + 10, now=NOW + 10, wall=WALL + 10)
        assert found is not None
        assert dict(found.fields) == {
            "Content-Type": "text/plain",
            "Cache-Control": "max-age=60",
            "ETag": '"a"',
            "X-A": "3",
        }
        assert (found.body, found.status) == (b"body", 200)
        assert (found.born, found.fresh_until) == (NOW + 10, NOW + 70)

    def test_freshening_by_another_caches_304_counts_its_age(self) -> None:
        stored = kept('Cache-Control: max-age=60 | ETag: "a"')
        said = fields("Age: 20")
        found = freshen(stored, said, Policy(), requested=NOW + 99, now=NOW + 99, wall=WALL + 99)
        assert found is not None
        assert found.fresh_until == NOW + 99 + 40


class TestReading:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("", {}),
            (" , ,", {}),
            ('a,b=1 ,\tC="x, y"', {"a": None, "b": "1", "c": "x, y"}),
            ("a=", {"a": ""}),
            ('a="x\\"y"', {"a": 'x\\"y'}),
            ("a b", {"no-store": None}),
            ("a, b=1;c", {"a": None, "b": "1;c"}),
            ("a, =1", {"a": None, "no-store": None}),
        ],
    )
    def test_directives(self, text: str, found: dict[str, str | None]) -> None:
        assert dict(parse_directives(text)) == found

    @given(st.text(st.sampled_from('ab=",\\ \t-1')))
    def test_any_text_can_be_read(self, text: str) -> None:
        found = parse_directives(text)
        for name in found:
            assert seconds(found, name) is not None

    @pytest.mark.parametrize(
        "text",
        ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
    )
    def test_the_three_forms_of_dates(self, text: str) -> None:
        assert parse_date(text, WALL) == 784111777

    @pytest.mark.parametrize(
        "text",
        ["", "0", "-1", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC",
         "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 25:49:37 GMT", "Sun, 32 Nov 1994 08:49:37 GMT",
         "Sun, 06 Nov 0000 08:49:37 GMT", "Sun, ٠٦ Nov 1994 08:49:37 GMT"],
    )  # fmt: skip
    def test_what_is_no_date(self, text: str) -> None:
        assert parse_date(text, WALL) is None

    @given(st.integers(0, 4_000_000_000))
    def test_dates(self, moment: int) -> None:
        assert parse_date(formatdate(moment, usegmt=True), WALL) == moment

    def test_tags(self) -> None:
        assert parse_tags('"a", W/"b",, ""') == ('"a"', 'W/"b"', '""')
        assert parse_tags("a") is None
        assert parse_tags('"a" "b"') is None
        assert opaque('W/"a"') == opaque('"a"')


@given(
    st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), st.integers(0, 300), st.integers(0, 300)
)
def test_a_response_goes_through_its_times_in_order(
    lifetime: int, beside: int, error: int, earlier: int, later: int
) -> None:
    control = f"max-age={lifetime}, stale-while-revalidate={beside}, stale-if-error={error}"
    stored = kept(f'Cache-Control: {control} | ETag: "a"')
    order = ("fresh", "revalidate", "validate")
    first, second = sorted((earlier, later))
    assert order.index(use(stored, ANYTHING, NOW + first)) <= order.index(use(stored, ANYTHING, NOW + second))
    assert (use(stored, ANYTHING, NOW + first) == "fresh") == (first < lifetime)
