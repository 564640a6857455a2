"""The balancers: whom they choose, what they remember, and what they forget."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.plan.model import Balance
from nodeagent.proxy.balance import BALANCERS, make_balancer
from nodeagent.proxy.balance.consistent_hash import ConsistentHash
from nodeagent.proxy.balance.contract import Outstanding, two_of
from nodeagent.proxy.balance.ewma import DECAY, FAILED, UNHEARD, Ewma
from nodeagent.proxy.balance.least_request import LeastRequest
from nodeagent.proxy.balance.random_choice import Random
from nodeagent.proxy.balance.round_robin import RoundRobin
from nodeagent.proxy.balance.slow_start import LEAST, SlowStart

TEN = tuple(f"10.0.0.{number}:80" for number in range(10))
KEYS = [f"user-{number}".encode() for number in range(5000)]


def seeded(seed: int = 1) -> Any:
    return random.Random(seed).random


def hashed(*endpoints: str, factor: int = 0) -> ConsistentHash[str]:
    balancer: ConsistentHash[str] = ConsistentHash(factor=factor)
    balancer.keep(endpoints)
    return balancer


def owners(balancer: ConsistentHash[str], endpoints: tuple[str, ...]) -> dict[bytes, str | None]:
    return {key: balancer.pick(endpoints, (), key) for key in KEYS}


class TestAll:
    @given(
        name=st.sampled_from(sorted(BALANCERS)),
        slow_start=st.sampled_from((0.0, 5.0)),
        recovered=st.booleans(),
        steps=st.lists(
            st.tuples(
                st.sets(st.sampled_from(TEN)),  # there are
                st.sets(st.sampled_from(TEN)),  # of these are not well
                st.sets(st.sampled_from(TEN)),  # tried
                st.sampled_from((b"", b"a", b"b")),
                st.sampled_from(("answered", "failed", "nothing", "under way")),
                st.floats(0, 20),
            ),
            max_size=30,
        ),
    )
    def test_somebody_who_may_be_picked_is_whenever_there_is_somebody(
        self, name: str, slow_start: float, recovered: bool, steps: list[Any]
    ) -> None:
        """Whatever came, went, failed or answered between two picks."""
        factor = 150 if name == "consistent-hash" else 0
        policy = Balance(name, factor=factor, slow_start=slow_start, slow_start_recovered=recovered)
        balancer = make_balancer(policy, 3)
        now = 0.0
        for there, unwell, tried, key, outcome, passes in steps:
            now += passes
            offered = tuple(sorted(there - unwell))
            balancer.circulate(offered)
            balancer.keep(tuple(sorted(there)))
            picked = balancer.pick(offered, tuple(tried), key, now)
            if not set(offered) - tried:
                assert picked is None
                continue
            assert picked in set(offered) - tried
            balancer.begun(picked, now)
            if outcome == "answered":
                balancer.answered(picked, passes, now)
            elif outcome == "failed":
                balancer.failed(picked, passes, now)
            if outcome != "under way":
                balancer.ended(picked, 0.0 if outcome != "nothing" else passes, now)

    @pytest.mark.parametrize("name", sorted(BALANCERS))
    def test_equal_endpoints_get_equal_shares(self, name: str) -> None:
        """When all answer alike; by lot and by hash as even as these are."""
        random.seed(1)
        balancer = make_balancer(Balance(name))
        balancer.keep(TEN)
        count: Counter[str] = Counter()
        for number, key in enumerate(KEYS):
            now = number * 0.01
            picked = balancer.pick(TEN, (), key, now)
            assert picked is not None
            count[picked] += 1
            balancer.begun(picked, now)
            balancer.answered(picked, 0.005, now + 0.005)
            balancer.ended(picked, 0.0, now + 0.005)
        mean = len(KEYS) / len(TEN)
        assert all(0.7 * mean < count[one] < 1.4 * mean for one in TEN), count

    def test_only_those_that_go_by_load_are_told_of_it(self) -> None:
        watching = {name for name in BALANCERS if make_balancer(Balance(name)).watches}
        assert watching == {"least-request", "ewma"}
        assert make_balancer(Balance("consistent-hash", factor=150)).watches
        assert make_balancer(Balance("ewma", slow_start=1.0)).watches
        assert not make_balancer(Balance(slow_start=1.0)).watches


class TestTwoOf:
    @given(
        count=st.integers(0, 8), avoid=st.sets(st.integers(0, 7)), fraction=st.floats(0, 1, exclude_max=True)
    )
    def test_two_different_ones_if_there_are_two(self, count: int, avoid: set[int], fraction: float) -> None:
        left = set(range(count)) - avoid
        drawn = two_of(tuple(range(count)), avoid, lambda: fraction)
        if drawn is None:
            assert not left
        else:
            assert set(drawn) <= left
            assert len(set(drawn)) == min(2, len(left))

    def test_all_pairs_are_as_likely(self) -> None:
        pairs = Counter(two_of((0, 1, 2), (), lambda n=n: n / 6) for n in range(6))  # type: ignore[misc]
        assert set(pairs) == {(a, b) for a in range(3) for b in range(3) if a != b}


class TestOutstanding:
    @given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"))))
    def test_it_never_falls_below_zero_and_remembers_no_one_without_need(self, events: list[Any]) -> None:
        outstanding = Outstanding()
        expected: Counter[str] = Counter()
        for begins, one in events:
            if begins:
                outstanding.begun(one)
                expected[one] += 1
            else:
                outstanding.ended(one)
                expected[one] = max(0, expected[one] - 1)
            assert {key: outstanding[key] for key in "abc"} == {key: expected[key] for key in "abc"}
            assert outstanding.total == expected.total()


def test_random_takes_no_account_of_anything() -> None:
    balancer: Random[str] = Random(lambda: 0.99)
    assert balancer.pick(TEN, ()) == TEN[-1]
    assert balancer.pick(TEN, (TEN[-1],)) == TEN[-2]


class TestLeastRequest:
    def test_of_two_the_one_with_fewer_under_way(self) -> None:
        balancer: LeastRequest[str] = LeastRequest(seeded())
        for _ in range(3):
            balancer.begun("a", 0.0)
        balancer.begun("b", 0.0)
        assert {balancer.pick(("a", "b"), ()) for _ in range(20)} == {"b"}
        for _ in range(3):
            balancer.ended("a", 0.0, 1.0)
        assert {balancer.pick(("a", "b"), ()) for _ in range(20)} == {"a"}

    def test_one_that_does_not_answer_fills_up_once_and_gets_no_more(self) -> None:
        balancer: LeastRequest[str] = LeastRequest(seeded())
        stuck = 0
        for _ in range(1000):
            picked = balancer.pick(TEN, ())
            assert picked is not None
            balancer.begun(picked, 0.0)
            if picked == TEN[0]:
                stuck += 1
            else:
                balancer.ended(picked, 0.0, 0.0)
        assert stuck <= 2

    def test_one_that_has_left_and_come_back_owes_nothing(self) -> None:
        balancer: LeastRequest[object] = LeastRequest(seeded())
        old, new, other = object(), object(), object()
        balancer.begun(old, 0.0)
        balancer.keep((new, other))
        balancer.begun(other, 0.0)
        assert balancer.pick((new, other), ()) is new
        balancer.ended(old, 0.0, 0.0)


class TestEwma:
    def answer(self, balancer: Ewma[str], endpoint: str, took: float, now: float) -> None:
        balancer.begun(endpoint, now - took)
        balancer.answered(endpoint, took, now)
        balancer.ended(endpoint, 0.0, now)

    def test_of_two_the_one_that_answers_sooner(self) -> None:
        balancer: Ewma[str] = Ewma(fraction=seeded())
        self.answer(balancer, "slow", 0.1, 1.0)
        self.answer(balancer, "fast", 0.01, 1.0)
        assert {balancer.pick(("slow", "fast"), (), b"", 1.0) for _ in range(20)} == {"fast"}

    def test_load_counts_too(self) -> None:
        balancer: Ewma[str] = Ewma(fraction=seeded())
        self.answer(balancer, "slow", 0.1, 1.0)
        self.answer(balancer, "fast", 0.01, 1.0)
        for _ in range(20):
            balancer.begun("fast", 1.0)
        assert balancer.pick(("slow", "fast"), (), b"", 1.0) == "slow"

    def test_one_slow_answer_is_noticed_at_once_and_forgiven_slowly(self) -> None:
        balancer: Ewma[str] = Ewma()
        for number in range(100):
            self.answer(balancer, "a", 0.01, number / 10)
        before = balancer.cost("a", 10.0)
        assert before == pytest.approx(0.01, rel=0.05)
        self.answer(balancer, "a", 1.0, 10.0)
        assert balancer.cost("a", 10.0) == 1.0
        self.answer(balancer, "a", 0.01, 11.0)
        assert 0.5 < balancer.cost("a", 11.0) < 1.0

    def test_one_of_which_nothing_is_heard_is_asked_again(self) -> None:
        balancer: Ewma[str] = Ewma(fraction=seeded())
        self.answer(balancer, "was slow", 1.0, 0.0)
        now = 0.0
        while balancer.pick(("was slow", "fast"), (), b"", now) == "fast":
            self.answer(balancer, "fast", 0.01, now)
            now += 0.1
            assert now < 10 * DECAY
        assert now > DECAY

    def test_a_new_one_gets_one_request_until_it_has_answered(self) -> None:
        balancer: Ewma[str] = Ewma(fraction=seeded())
        self.answer(balancer, "known", 0.1, 0.0)
        assert balancer.pick(("known", "new"), (), b"", 0.0) == "new"
        balancer.begun("new", 0.0)
        assert balancer.cost("new", 0.0) == UNHEARD
        assert balancer.pick(("known", "new"), (), b"", 0.0) == "known"

    def test_one_that_fails_at_once_is_not_the_fastest(self) -> None:
        balancer: Ewma[str] = Ewma(fraction=seeded())
        self.answer(balancer, "good", 0.02, 0.0)
        for _ in range(3):
            balancer.begun("bad", 0.0)
            balancer.failed("bad", 0.0001, 0.0)
            balancer.ended("bad", 0.0, 0.0)
        assert balancer.cost("bad", 0.0) == FAILED
        assert balancer.pick(("good", "bad"), (), b"", 0.0) == "good"

    @given(st.lists(st.tuples(st.floats(0.001, 2), st.floats(0, 60), st.booleans()), max_size=50))
    def test_the_average_is_never_more_than_the_slowest_of_all(self, tries: list[Any]) -> None:
        """However many failures there were: else they would cut an endpoint off for good."""
        balancer: Ewma[str] = Ewma()
        now, slowest = 0.0, FAILED
        for took, passes, well in tries:
            now += passes
            slowest = max(slowest, took)
            balancer.begun("a", now)
            (balancer.answered if well else balancer.failed)("a", took, now)
            balancer.ended("a", 0.0, now)
            assert 0 < balancer.cost("a", now) <= slowest * (1 + 1e-9)

    def test_what_was_waited_for_in_vain_took_at_least_that_long(self) -> None:
        balancer: Ewma[str] = Ewma()
        self.answer(balancer, "a", 0.01, 0.0)
        balancer.begun("a", 0.0)
        balancer.ended("a", 2.0, 2.0)
        assert balancer.cost("a", 2.0) == 2.0
        balancer.begun("a", 2.0)
        balancer.ended("a", 0.5, 2.5)
        assert balancer.cost("a", 2.5) > 1.5, "half a second says nothing against two"

    def test_those_that_have_left_are_forgotten(self) -> None:
        balancer: Ewma[str] = Ewma()
        self.answer(balancer, "a", 5.0, 0.0)
        balancer.begun("a", 0.0)
        balancer.keep(("b",))
        balancer.answered("a", 5.0, 0.0)
        balancer.failed("a", 5.0, 0.0)
        balancer.ended("a", 5.0, 0.0)
        assert balancer.cost("a", 0.0) == 0.0


class TestConsistentHash:
    def test_disruption_when_one_leaves(self) -> None:
        """Its own keys move, spread over the others; no other key moves, and they come back exactly."""
        balancer = hashed(*TEN)
        before = owners(balancer, TEN)
        rest = TEN[1:]
        balancer.keep(rest)
        after = owners(balancer, rest)
        moved = {key for key in KEYS if before[key] != after[key]}
        assert moved == {key for key in KEYS if before[key] == TEN[0]}
        assert 0.07 < len(moved) / len(KEYS) < 0.13
        heirs = Counter(after[key] for key in moved)
        assert set(heirs) == set(rest)
        assert max(heirs.values()) < 0.25 * len(moved)
        balancer.keep(TEN)
        assert owners(balancer, TEN) == before

    def test_disruption_when_one_is_unwell_is_the_same(self) -> None:
        balancer = hashed(*TEN)
        rest = TEN[1:]
        out = owners(balancer, rest)
        assert owners(balancer, TEN) != out
        balancer.keep(rest)
        assert owners(balancer, rest) == out

    def test_a_key_that_is_tried_again_goes_where_it_would_without_the_first(self) -> None:
        balancer = hashed(*TEN)
        for key in KEYS[:200]:
            first = balancer.pick(TEN, (), key)
            assert first is not None
            others = tuple(one for one in TEN if one != first)
            assert balancer.pick(TEN, (first,), key) == balancer.pick(others, (), key)

    def test_the_order_and_the_history_of_endpoints_do_not_matter(self) -> None:
        """Else two workers, or two nodes, would not agree."""
        grown = hashed()
        for number in range(1, 11):
            grown.keep(TEN[:number])
        grown.keep(TEN[3:])
        grown.keep(TEN)
        backwards = tuple(reversed(TEN))
        assert owners(grown, TEN) == owners(hashed(*backwards), backwards)

    def test_another_process_agrees(self) -> None:
        code = (
            "from nodeagent.proxy.balance.consistent_hash import ConsistentHash as C\n"
            f"b = C(); b.keep({TEN!r}); print(*(b.pick({TEN!r}, (), k) for k in {KEYS[:50]!r}))"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        here = hashed(*TEN)
        assert run.stdout.split() == [here.pick(TEN, (), key) for key in KEYS[:50]]

    def test_shares_are_within_a_third_of_even(self) -> None:
        counts = Counter(owners(hashed(*TEN), TEN).values())
        mean = len(KEYS) / len(TEN)
        assert all(abs(counts[one] - mean) < mean / 3 for one in TEN), counts

    def test_requests_without_a_key_go_to_all_in_turn(self) -> None:
        balancer = hashed(*TEN)
        assert [balancer.pick(TEN, ()) for _ in range(20)] == [*TEN, *TEN]

    @given(st.lists(st.sampled_from(KEYS[:5]), min_size=1, max_size=200), st.sampled_from((110, 150, 300)))
    def test_no_endpoint_has_more_than_the_bound_under_way(self, keys: list[bytes], factor: int) -> None:
        balancer = hashed(*TEN, factor=factor)
        load: Counter[str] = Counter()
        for total, key in enumerate(keys, 1):
            picked = balancer.pick(TEN, (), key)
            assert picked is not None
            balancer.begun(picked, 0.0)
            load[picked] += 1
            assert load[picked] <= -(-factor * total // (100 * len(TEN)))

    def test_the_bound_ends_with_the_load(self) -> None:
        balancer = hashed(*TEN, factor=150)
        first = balancer.pick(TEN, (), b"a")
        assert first is not None
        balancer.begun(first, 0.0)
        assert balancer.pick(TEN, (), b"a") != first
        balancer.ended(first, 0.0, 1.0)
        assert balancer.pick(TEN, (), b"a") == first


class TestSlowStart:
    def shares(self, balancer: SlowStart[str], endpoints: tuple[str, ...], now: float) -> dict[str, float]:
        count = Counter(balancer.pick(endpoints, (), b"", now) for _ in range(4000))
        return {one: count[one] * len(endpoints) / 4000 for one in endpoints}

    @pytest.mark.parametrize("inner", [RoundRobin(), LeastRequest(seeded()), Random(seeded(2))])
    def test_a_new_one_gets_its_share_little_by_little(self, inner: Any) -> None:
        balancer: SlowStart[str] = SlowStart(inner, 10.0, seeded(3))
        balancer.keep(TEN[:3])
        everybody = TEN[:4]
        balancer.keep(everybody)
        assert self.shares(balancer, everybody, 100.0)[TEN[3]] == pytest.approx(LEAST, abs=0.05)
        shares = self.shares(balancer, everybody, 105.0)
        assert shares[TEN[3]] == pytest.approx(0.5, abs=0.1)
        assert all(shares[one] == pytest.approx(3.5 / 3, abs=0.15) for one in TEN[:3]), "the others share it"
        assert self.shares(balancer, everybody, 110.0)[TEN[3]] == pytest.approx(1.0, abs=0.1)

    def test_those_that_are_there_at_first_are_not_new(self) -> None:
        balancer: SlowStart[str] = SlowStart(RoundRobin(), 10.0)
        balancer.keep(())
        balancer.keep(TEN)
        assert self.shares(balancer, TEN, 0.0) == dict.fromkeys(TEN, 1.0)

    def test_its_time_begins_with_the_first_request_that_it_could_get(self) -> None:
        balancer: SlowStart[str] = SlowStart(RoundRobin(), 10.0, seeded())
        balancer.keep(TEN[:1])
        balancer.keep(TEN[:2])
        assert self.shares(balancer, TEN[:2], 1e6)[TEN[1]] < 0.3

    def test_the_only_one_gets_all_however_new(self) -> None:
        balancer: SlowStart[str] = SlowStart(RoundRobin(), 10.0, lambda: 0.999)
        balancer.keep(TEN[:1])
        balancer.keep(TEN[1:2])
        assert balancer.pick(TEN[1:2], (), b"", 0.0) == TEN[1]
        assert balancer.pick(TEN[1:2], TEN[1:2], b"", 0.0) is None

    def test_one_that_left_and_came_back_is_new(self) -> None:
        balancer: SlowStart[str] = SlowStart(RoundRobin(), 10.0, lambda: 0.999)
        for there in (TEN[:2], TEN[:1], TEN[:2]):
            balancer.keep(there)
        assert {balancer.pick(TEN[:2], (), b"", 0.0) for _ in range(10)} == {TEN[0]}

    def test_one_that_is_healthy_again_is_new_if_that_is_asked_for(self) -> None:
        for recovered, least in ((False, 1.0), (True, LEAST)):
            inner: RoundRobin[str] = RoundRobin()
            balancer: SlowStart[str] = SlowStart(inner, 10.0, seeded(3), recovered)
            balancer.keep(TEN[:4])
            balancer.circulate(TEN[:3])
            assert self.shares(balancer, TEN[:3], 50.0) == dict.fromkeys(TEN[:3], pytest.approx(1, abs=0.01))
            balancer.circulate(TEN[:4])
            assert self.shares(balancer, TEN[:4], 100.0)[TEN[3]] == pytest.approx(least, abs=0.05)
            assert self.shares(balancer, TEN[:4], 110.0)[TEN[3]] == pytest.approx(1.0, abs=0.1)
            balancer.circulate(TEN[:4])
            assert self.shares(balancer, TEN[:4], 110.0)[TEN[3]] == pytest.approx(1.0, abs=0.1), "no news"

    def test_one_that_fails_while_it_warms_up_begins_again(self) -> None:
        balancer: SlowStart[str] = SlowStart(RoundRobin(), 10.0, seeded(3), True)
        balancer.keep(TEN[:3])
        balancer.circulate(TEN[:4])  # a backend tells of a new one before it is kept
        balancer.keep(TEN[:4])
        assert self.shares(balancer, TEN[:4], 100.0)[TEN[3]] == pytest.approx(LEAST, abs=0.05)
        balancer.circulate(TEN[:3])
        balancer.circulate(TEN[:4])
        assert self.shares(balancer, TEN[:4], 109.0)[TEN[3]] == pytest.approx(LEAST, abs=0.05)
        assert self.shares(balancer, TEN[:4], 114.0)[TEN[3]] == pytest.approx(0.5, abs=0.1)

    def test_when_all_are_healthy_again_all_are_alike(self) -> None:
        balancer: SlowStart[str] = SlowStart(RoundRobin(), 10.0, seeded(3), True)
        balancer.keep(TEN)
        balancer.circulate(())
        balancer.circulate(TEN)
        assert min(self.shares(balancer, TEN, 0.0).values()) > 0.8
