"""Which endpoint is probed when, and what follows from the answers."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from discovery.model import Endpoint, ServiceKey
from nodeagent.health.book import AT_ONCE, Address, Book, Change
from nodeagent.plan.model import BackendKey, BackendSpec, HealthCheck

WEB, OTHER = (BackendKey(ServiceKey("shop", name), 80) for name in ("web", "other"))
A, B, C = (("10.1.0.1", 8080), ("10.1.0.2", 8080), ("10.1.0.3", 8080))
CHECK = HealthCheck("tcp", interval=10.0, healthy=2, unhealthy=3)


def spec(*addresses: Address, key: BackendKey = WEB, check: HealthCheck | None = CHECK) -> BackendSpec:
    return BackendSpec(key, tuple(Endpoint(*one) for one in addresses), health_check=check)


class Play:
    """A book that is asked as an agent would, endpoint by endpoint; `bad` are those that fail."""

    def __init__(self, chance: Callable[[], float] = lambda: 0.5) -> None:
        self.book = Book(chance)
        self.now = 0.0
        self.bad: set[Address] = set()
        self.asked: list[tuple[float, Address]] = []
        self.changes: list[Change] = []

    def follow(self, *specs: BackendSpec, removed: tuple[BackendKey, ...] = ()) -> set[BackendKey]:
        return self.book.follow(specs, removed, self.now)

    def runs(self, seconds: float) -> None:
        """Let time pass; each probe is answered at once."""
        end = self.now + seconds
        while (wait := self.book.wait(self.now)) is not None and self.now + wait <= end:
            self.now += wait
            probed = self.book.take(self.now)
            assert probed is not None
            address = probed.probe.address
            self.asked.append((self.now, address))
            change = self.book.done(probed, "refused" if address in self.bad else "", self.now)
            if change is not None:
                self.changes.append(change)
        self.now = end

    @property
    def out(self) -> dict[Address, str]:
        return dict(self.book.unhealthy(WEB))


def test_nobody_is_asked_without_a_check() -> None:
    play = Play()
    assert not play.follow(spec(A, B, check=None))
    assert play.book.wait(0.0) is None
    assert len(play.book) == 0


def test_new_endpoints_are_healthy_and_are_asked_within_an_interval() -> None:
    chances = iter([0.0, 0.3, 0.99])
    play = Play(lambda: next(chances, 0.5))
    assert not play.follow(spec(A, B, C))
    assert play.book.wait(0.0) == 0.0
    play.runs(9.95)
    assert [address for _, address in play.asked] == [A, B, C]
    assert [at for at, _ in play.asked] == pytest.approx([0.0, 3.0, 9.9])
    assert not play.out


def test_an_interval_is_a_tenth_longer_or_shorter() -> None:
    for chance, pause in ((0.0, 9.0), (0.5, 10.0), (1.0, 11.0)):
        chances = iter([0.0])
        play = Play(lambda chances=chances, chance=chance: next(chances, chance))  # type: ignore[misc]
        play.follow(spec(A))
        play.runs(25.0)
        times = [at for at, _ in play.asked]
        assert times[:3] == pytest.approx([0.0, pause, 2 * pause])


def test_an_endpoint_goes_after_so_many_failures_in_a_row() -> None:
    play = Play()
    play.follow(spec(A, B))
    play.bad = {A}
    play.runs(16.0)
    assert not play.changes
    play.runs(10.0)
    assert play.out == {A: "refused"}
    (change,) = play.changes
    assert change == Change(A, False, "refused", 0.0, (WEB,))
    assert play.book.left(WEB) == 1
    play.runs(100.0)
    assert len(play.changes) == 1


def test_one_success_in_between_begins_anew() -> None:
    play = Play()
    play.follow(spec(A))
    for _ in range(5):
        play.bad = {A}
        play.runs(20.0)
        play.bad = set()
        play.runs(10.0)
    assert not play.changes


def test_it_comes_back_after_so_many_successes_in_a_row() -> None:
    play = Play()
    play.follow(spec(A))
    play.bad = {A}
    play.runs(30.0)
    assert play.out
    play.bad = set()
    play.runs(10.0)
    assert play.out
    play.bad = {A}
    play.runs(10.0)
    play.bad = set()
    play.runs(10.0)
    assert play.out
    play.runs(10.0)
    assert not play.out
    back = play.changes[-1]
    assert (back.address, back.healthy, back.backends) == (A, True, (WEB,))
    assert back.since == pytest.approx(25.0)


def test_all_may_be_unhealthy() -> None:
    """The workers decide which endpoints are used then."""
    play = Play()
    play.follow(spec(A, B))
    play.bad = {A, B}
    play.runs(40.0)
    assert set(play.out) == {A, B}
    assert play.book.left(WEB) == 0


def test_two_backends_with_one_endpoint_ask_it_once() -> None:
    play = Play()
    play.follow(spec(A), spec(A, B, key=OTHER))
    assert len(play.book) == 2
    play.bad = {A}
    play.runs(40.0)
    assert play.changes[0].backends == (OTHER, WEB)
    assert set(play.book.unhealthy(OTHER)) == set(play.book.unhealthy(WEB)) == {A}


def test_another_check_of_the_same_endpoint_is_another_probe() -> None:
    play = Play()
    other = msgspec.structs.replace(CHECK, kind="http")
    play.follow(spec(A), spec(A, key=OTHER, check=other))
    assert len(play.book) == 2


def test_what_goes_is_asked_no_more() -> None:
    play = Play()
    play.follow(spec(A, B))
    play.bad = {A}
    play.runs(40.0)
    assert play.follow(spec(B)) == {WEB}
    assert not play.out
    play.asked.clear()
    play.runs(30.0)
    assert {address for _, address in play.asked} == {B}
    assert not play.follow(removed=(WEB,))
    assert play.book.wait(play.now) is None
    assert len(play.book) == 0


def test_the_backend_goes_with_unhealthy_endpoints() -> None:
    play = Play()
    play.follow(spec(A))
    play.bad = {A}
    play.runs(40.0)
    assert play.follow(removed=(WEB, OTHER)) == {WEB}


def test_the_check_is_taken_back() -> None:
    play = Play()
    play.follow(spec(A))
    play.bad = {A}
    play.runs(40.0)
    assert play.follow(spec(A, check=None)) == {WEB}
    assert not play.out


def test_an_endpoint_that_comes_back_is_new() -> None:
    play = Play()
    play.follow(spec(A, B))
    play.bad = {A}
    play.runs(40.0)
    play.follow(spec(B))
    assert not play.follow(spec(A, B))
    assert not play.out


def test_what_stays_keeps_what_is_known_of_it() -> None:
    play = Play()
    play.follow(spec(A, B))
    play.bad = {A}
    play.runs(40.0)
    assert not play.follow(spec(A, C))
    assert set(play.out) == {A}


def test_a_probe_under_way_to_one_that_goes_says_nothing() -> None:
    book = Book(lambda: 0.0)
    strict = msgspec.structs.replace(CHECK, unhealthy=1)
    book.follow([spec(A, check=strict)], (), 0.0)
    probed = book.take(0.0)
    assert probed is not None
    book.follow([spec(B, check=strict)], (), 0.0)
    book.follow([spec(A, check=strict)], (), 0.0)
    assert book.done(probed, "refused", 1.0) is None
    assert not book.unhealthy(WEB)
    assert book.take(1.0) is not None


def test_no_more_than_so_many_are_under_way() -> None:
    many = [(f"10.2.{n // 200}.{n % 200}", 80) for n in range(3 * AT_ONCE)]
    book = Book(lambda: 0.0)
    book.follow([spec(*many)], (), 0.0)
    taken = []
    while (probed := book.take(5.0)) is not None:
        taken.append(probed)
    assert len({one.probe for one in taken}) == AT_ONCE
    assert book.wait(5.0) is None
    book.done(taken[0], "", 5.0)
    assert book.wait(5.0) == 0.0
    assert book.take(5.0) is not None
    assert book.take(5.0) is None


def test_one_is_never_asked_twice_at_once() -> None:
    book = Book(lambda: 0.0)
    book.follow([spec(A)], (), 0.0)
    probed = book.take(0.0)
    assert probed is not None
    assert book.take(1000.0) is None
    book.done(probed, "", 1000.0)
    assert book.take(1000.0) is probed


def test_what_could_not_be_asked_says_nothing() -> None:
    """Neither does it interrupt failures that follow each other."""
    book = Book(lambda: 0.0)
    book.follow([spec(A)], (), 0.0)
    now = 0.0
    changes = []
    for failure in ("refused", None, "refused", None, "refused", None, "", None, ""):
        probed = book.take(now)
        assert probed is not None
        changes.append(book.done(probed, failure, now))
        now += 10.0
    assert [change and change.healthy for change in changes] == [None] * 4 + [False] + [None] * 3 + [True]
