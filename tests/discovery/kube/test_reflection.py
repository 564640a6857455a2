"""The protocol as a conversation: what was said, and what has to be done next."""

from __future__ import annotations

import pytest

from discovery.kube.backoff import Backoff
from discovery.kube.failure import Failure, FailureKind
from discovery.kube.reflection import Check, ListPage, Reflection, Request, Step, Watch
from discovery.kube.timing import Timing

FIRST = ListPage(limit=500)


def make() -> Reflection:
    return Reflection(Backoff(0.25, 30.0, lambda: 1.0), Timing(), page_size=500)


def watching(version: str = "10") -> Reflection:
    reflection = make()
    reflection.start()
    reflection.page_received(version, "")
    return reflection


def request_after(step: Step | None) -> Request:
    assert step is not None
    return step.request


def test_pages_lead_to_a_watch_from_the_first_page_s_version() -> None:
    reflection = make()
    assert reflection.start() == Step(FIRST)
    assert reflection.page_received("10", "a") == Step(ListPage("a", 500))
    assert reflection.page_received("11", "b") == Step(ListPage("b", 500))
    assert reflection.page_received("12", "") == Step(Watch("10"))


def test_a_page_that_failed_is_asked_for_again() -> None:
    reflection = make()
    reflection.start()
    reflection.page_received("10", "a")
    assert request_after(reflection.failed(Failure("server_error", ""))) == ListPage("a", 500)


@pytest.mark.parametrize(("kind", "request_"), [("expired", ListPage(limit=0)), ("refused", FIRST)])
def test_a_token_that_is_no_good_begins_anew(kind: FailureKind, request_: ListPage) -> None:
    reflection = make()
    reflection.start()
    reflection.page_received("10", "a")
    assert request_after(reflection.failed(Failure(kind, ""))) == request_
    assert reflection.page_received("20", "") == Step(Watch("20"))


def test_events_and_bookmarks_move_the_version() -> None:
    reflection = watching()
    assert reflection.event_received("12") is None
    assert reflection.event_received("15") is None
    assert reflection.version == "15"
    assert reflection.watch_ended(lasted=0.01) == Step(Watch("15"))


def test_an_event_without_a_version_keeps_the_last() -> None:
    reflection = watching()
    assert reflection.event_received("") is None
    assert reflection.version == "10"


@pytest.mark.parametrize(("known", "seen"), [("10", "9"), ("1000", "999")])
def test_a_version_that_went_back_lists(known: str, seen: str) -> None:
    step = watching(known).event_received(seen)
    assert request_after(step) == FIRST
    assert step is not None
    assert step.failure is not None
    assert step.failure.kind == "expired"


def test_versions_that_are_no_numbers_are_not_compared() -> None:
    reflection = watching("zebra")
    assert reflection.event_received("aardvark") is None
    assert reflection.version == "aardvark"


@pytest.mark.parametrize("kind", ["expired", "malformed", "refused"])
def test_failures_after_which_only_a_list_helps(kind: FailureKind) -> None:
    assert request_after(watching().failed(Failure(kind, ""))) == FIRST


@pytest.mark.parametrize(
    "kind",
    ["connect", "cut", "timeout", "credentials", "unauthorized", "forbidden", "throttled", "server_error"],
)
def test_failures_after_which_the_watch_goes_on(kind: FailureKind) -> None:
    reflection = watching()
    step = reflection.failed(Failure(kind, ""))
    assert step.request == Check()
    assert step.renew_credentials == (kind == "unauthorized")
    assert reflection.failed(Failure(kind, "")).request == Check()
    assert reflection.version_checked("10") == Step(Watch("10"))


def test_a_server_that_was_restored_is_listed_before_a_watch_from_its_future_hangs() -> None:
    reflection = watching("1000")
    reflection.failed(Failure("connect", ""))
    step = reflection.version_checked("999")
    assert request_after(step) == FIRST
    assert step.failure == Failure("expired", "the resource version went back from 1000 to 999")
    assert reflection.page_received("999", "") == Step(Watch("999"))


@pytest.mark.parametrize("kind", ["expired", "malformed", "refused"])
def test_a_check_that_fails_for_good_is_followed_by_a_list(kind: FailureKind) -> None:
    reflection = watching()
    reflection.failed(Failure("cut", ""))
    assert request_after(reflection.failed(Failure(kind, ""))) == FIRST


def test_an_error_event_lists_whatever_its_code() -> None:
    assert request_after(watching().error_event(Failure("server_error", ""))) == FIRST


def test_delays_grow_until_a_watch_was_good() -> None:
    reflection = watching()
    failure = Failure("cut", "")
    assert [reflection.failed(failure, lasted=0.1).delay for _ in range(4)] == [0.25, 0.5, 1.0, 1.0]
    reflection.version_checked("10")
    assert reflection.failed(failure, lasted=60).delay == 0.25
    reflection.version_checked("10")
    assert reflection.failed(failure, lasted=0.1).delay == 0.5
    reflection.version_checked("10")
    reflection.event_received("11")
    assert reflection.failed(failure, lasted=0.1).delay == 0.25
    reflection.version_checked("11")
    assert reflection.watch_ended(lasted=60).delay == 0
    assert reflection.failed(failure, lasted=0.1).delay == 0.25


def test_a_server_whose_versions_always_expire_is_not_hammered() -> None:
    reflection = watching()
    delays = []
    for version in range(11, 15):
        reflection.event_received(str(version))
        delays.append(reflection.failed(Failure("expired", ""), lasted=0.1).delay)
        reflection.page_received(str(version), "")
    assert delays == [0.25, 0.5, 1.0, 2.0]


def test_a_watch_that_ends_at_once_with_nothing_costs_a_delay() -> None:
    reflection = watching()
    delays = []
    for _ in range(4):
        delays.append(reflection.watch_ended(0.01).delay)
        reflection.version_checked("10")
    assert delays == [0.25, 0.5, 1.0, 1.0]


def delays_of(reflection: Reflection, kind: FailureKind) -> list[float]:
    return [reflection.failed(Failure(kind, "")).delay for _ in range(9)]


def test_what_is_light_is_tried_more_often_than_what_is_heavy() -> None:
    assert delays_of(watching(), "connect")[-1] == 1.0
    assert delays_of(make(), "timeout")[-1] == 1.0
    assert delays_of(make(), "forbidden")[-1] == 2.0
    assert delays_of(watching(), "server_error")[-1] == 2.0
    assert delays_of(make(), "server_error")[-1] == 30.0


def test_a_server_that_answers_at_last_is_not_paid_back_for_its_absence() -> None:
    reflection = make()
    delays_of(reflection, "connect")
    assert reflection.failed(Failure("server_error", "")).delay == 0.25


def test_a_long_watch_with_nothing_at_all_is_not_trusted() -> None:
    assert watching().watch_ended(lasted=300) == Step(FIRST)


def test_a_long_watch_with_a_bookmark_is() -> None:
    reflection = watching()
    reflection.event_received("10")
    assert reflection.watch_ended(lasted=300) == Step(Watch("10"))


def test_retry_after_comes_on_top_of_the_jitter() -> None:
    assert watching().failed(Failure("throttled", "", retry_after=7)).delay == 7.25


@pytest.mark.parametrize(("random", "expected"), [(0.0, [0.125, 0.25, 0.5]), (1.0, [0.25, 0.5, 1.0])])
def test_backoff_doubles_within_its_jitter(random: float, expected: list[float]) -> None:
    backoff = Backoff(0.25, 30.0, lambda: random)
    assert [backoff.failed() for _ in range(3)] == expected


def test_backoff_stays_at_its_limit_and_resets() -> None:
    backoff = Backoff(0.25, 30.0, lambda: 1.0)
    assert [backoff.failed() for _ in range(2000)][-1] == 30.0
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.failed() == 0.25
