"""Outlier detection: who is ejected, for how long, and never too many."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nodeagent.plan.model import OutlierDetection
from nodeagent.plan.outlier_detection import ALL
from nodeagent.proxy.outliers import CONNECT_FAILURE, RESET, TIMEOUT, Change, Outliers

USUAL = OutlierDetection(ALL)


def outliers(endpoints: str = "abcd", **settings: object) -> Outliers[str]:
    return Outliers(msgspec.structs.replace(USUAL, **settings), endpoints, 0.0)


def fail(detector: Outliers[str], endpoint: str, times: int, now: float = 0.0) -> list[Change[str]]:
    changes = [detector.failed(endpoint, "503", now) for _ in range(times)]
    return [change for change in changes if change is not None]


def test_failures_in_a_row_eject() -> None:
    detector = outliers()
    assert not fail(detector, "a", 4)
    (change,) = fail(detector, "a", 1)
    assert change == Change("a", True, "5 failures in a row, the last one 503", 30.0, 1)
    assert set(detector.ejected) == {"a"}


def test_a_success_in_between_begins_the_row_anew() -> None:
    detector = outliers()
    fail(detector, "a", 4)
    detector.passed("a")
    assert not fail(detector, "a", 4)


def test_an_ejection_ends_and_the_next_one_is_longer_up_to_the_longest() -> None:
    detector = outliers(consecutive=1, ejection=10.0, longest=25.0, interval=3600.0)
    now, lengths = 0.0, []
    for _ in range(4):
        (change,) = fail(detector, "a", 1, now)
        lengths.append(change.seconds)
        assert not detector.advance(now + change.seconds - 0.001)
        now += change.seconds
        (end,) = detector.advance(now)
        assert (end.endpoint, end.ejected, end.seconds) == ("a", False, change.seconds)
    assert lengths == [10.0, 20.0, 25.0, 25.0]
    assert not detector.ejected


def test_intervals_without_an_ejection_make_the_next_one_shorter() -> None:
    detector = outliers(consecutive=1, ejection=10.0, interval=10.0)
    fail(detector, "a", 1)
    detector.advance(10.0)
    detector.advance(20.0)
    (change,) = fail(detector, "a", 1, 20.0)
    assert change.seconds == 10.0


def test_what_was_sent_before_an_ejection_does_not_count_after_it() -> None:
    detector = outliers(ejection=10.0)
    fail(detector, "a", 5)
    assert not fail(detector, "a", 20)
    detector.advance(10.0)
    assert not fail(detector, "a", 4, 10.0)


@pytest.mark.parametrize(
    ("count", "share", "most"), [(1, 50, 0), (2, 50, 1), (3, 50, 1), (10, 10, 1), (4, 100, 4), (4, 0, 0)]
)
def test_never_more_than_a_share(count: int, share: int, most: int) -> None:
    names = "abcdefghij"[:count]
    detector = outliers(names, share=share)
    for name in names:
        fail(detector, name, 10)
    assert len(detector.ejected) == most


def test_with_room_again_the_next_failure_ejects() -> None:
    detector = outliers("ab", ejection=10.0)
    fail(detector, "a", 5)
    assert not fail(detector, "b", 5)
    detector.advance(10.0)
    (change,) = fail(detector, "b", 1, 10.0)
    assert change.endpoint == "b"


def test_only_chosen_failures_count() -> None:
    detector = outliers(failures=("gateway-error", TIMEOUT), consecutive=1)
    assert detector.failed("a", CONNECT_FAILURE, 0.0) is None
    assert detector.failed("a", RESET, 0.0) is None
    statuses = (200, 404, 500, 501, 502, 503, 504)
    assert [status for status in statuses if detector.counts(status)] == [502, 503, 504]
    assert detector.failed("a", TIMEOUT, 0.0) is not None


def ask(detector: Outliers[str], endpoint: str, passed: int, failed: int) -> None:
    """Fail now and then, never often in a row."""
    for number in range(max(passed, failed)):
        if number < failed:
            detector.failed(endpoint, "500", 0.0)
        if number < passed:
            detector.passed(endpoint)


def test_a_low_success_rate_ejects_at_the_end_of_the_interval() -> None:
    detector = outliers(success_rate=80)
    for well in "bcd":
        ask(detector, well, 100, 2)
    ask(detector, "a", 75, 25)
    assert not detector.advance(9.9)
    (change,) = detector.advance(10.0)
    assert change.reason == "75 of 100 requests succeeded; of the others' 300 of 306"
    assert change.endpoint == "a"


def test_few_requests_are_no_rate() -> None:
    detector = outliers(success_rate=80)
    ask(detector, "b", 100, 0)
    ask(detector, "a", 10, 9)
    assert not detector.advance(10.0)


def test_where_all_fail_alike_it_is_nobodys_fault() -> None:
    detector = outliers(success_rate=80)
    for name in "abcd":
        ask(detector, name, 50, 50)
    assert not detector.advance(10.0)


def test_the_worst_goes_first() -> None:
    detector = outliers("abc", success_rate=80, share=34)
    ask(detector, "a", 70, 30)
    ask(detector, "b", 50, 50)
    ask(detector, "c", 1000, 0)
    assert [change.endpoint for change in detector.advance(10.0)] == ["b"]


def test_each_interval_counts_for_itself() -> None:
    detector = outliers(success_rate=80)
    ask(detector, "b", 100, 0)
    ask(detector, "a", 15, 4)
    detector.advance(10.0)
    ask(detector, "b", 100, 0)
    ask(detector, "a", 15, 4)
    assert not detector.advance(20.0)


def test_endpoints_that_stay_keep_what_is_known_of_them() -> None:
    detector = outliers("abcd")
    fail(detector, "a", 5)
    fail(detector, "b", 4)
    assert not detector.update(USUAL, "abef")
    assert set(detector.ejected) == {"a"}
    assert fail(detector, "b", 1)


def test_if_there_are_fewer_endpoints_those_out_longest_come_back() -> None:
    detector = outliers("abcd")
    fail(detector, "a", 5, 1.0)
    fail(detector, "b", 5, 2.0)
    (change,) = detector.update(USUAL, "abc")
    assert (change.endpoint, change.ejected) == ("a", False)
    assert set(detector.ejected) == {"b"}


class Circulation(RuleBasedStateMachine):
    """Whatever happens: at most the share is out, nobody longer than the longest, and it ends on time."""

    NAMES = "abcdefgh"

    @initialize(
        consecutive=st.integers(1, 4),
        rate=st.integers(0, 100),
        share=st.integers(0, 100),
        ejection=st.floats(1, 20),
        growth=st.floats(1, 5),
    )
    def begin(self, consecutive: int, rate: int, share: int, ejection: float, growth: float) -> None:
        self.options = OutlierDetection(ALL, consecutive, rate, 3, 10.0, ejection, ejection * growth, share)
        self.endpoints = self.NAMES
        self.now = 0.0
        self.until: dict[str, float] = {}
        self.detector: Outliers[str] = Outliers(self.options, self.endpoints, 0.0)

    def told(self, changes: list[Change[str]]) -> None:
        """Who only listens to changes knows who is out."""
        for change in changes:
            if change.ejected:
                assert change.endpoint not in self.until
                self.until[change.endpoint] = self.now + change.seconds
                assert self.options.ejection <= change.seconds <= self.options.longest + 1e-6
            else:
                del self.until[change.endpoint]

    @rule(name=st.sampled_from(NAMES), times=st.integers(1, 6))
    def passes(self, name: str, times: int) -> None:
        for _ in range(times):
            self.detector.passed(name)

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(("503", RESET, TIMEOUT)), times=st.integers(1, 6))
    def fails(self, name: str, kind: str, times: int) -> None:
        for _ in range(times):
            change = self.detector.failed(name, kind, self.now)
            if change is not None:
                self.told([change])

    @rule(seconds=st.floats(0, 30))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds
        self.told(self.detector.advance(self.now))
        assert all(until > self.now for until in self.until.values())

    @rule(names=st.sets(st.sampled_from(NAMES)), share=st.integers(0, 100))
    def plan_changes(self, names: set[str], share: int) -> None:
        self.endpoints = "".join(sorted(names))
        self.options = msgspec.structs.replace(self.options, share=share)
        self.until = {one: until for one, until in self.until.items() if one in names}
        self.told(self.detector.update(self.options, self.endpoints))

    @invariant()
    def no_more_than_the_share(self) -> None:
        if hasattr(self, "detector"):
            assert len(self.detector.ejected) <= math.floor(self.options.share * len(self.endpoints) / 100)

    @invariant()
    def changes_tell_all(self) -> None:
        if hasattr(self, "detector"):
            assert self.detector.ejected.keys() == self.until.keys()


TestCirculation = Circulation.TestCase
