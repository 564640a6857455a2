"""Who gets time series of its own, within a ceiling."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.stats.places import FACTOR, HALF_LIFE, IDLE, Places

Key = tuple[str, str]


def places(room: int) -> Places[Key]:
    return Places(room, lambda key: (key[0], "") if key[1] else None)


def test_whoever_comes_has_a_place_while_there_is_room() -> None:
    some = places(20)
    assert [some.wants((name, ""), 1, 8, 0.0) for name in "abc"] == [True, True, False]
    assert (some.used, some.waiting) == (16, 1)


def test_an_edge_needs_its_port() -> None:
    some = places(100)
    assert not some.wants(("a", "x"), 1, 8, 0.0)
    assert some.wants(("a", ""), 1, 8, 0.0)
    assert some.wants(("a", "x"), 1, 8, 0.0)
    assert some.remove(("a", "")) == [("a", ""), ("a", "x")]
    assert some.used == 0


def test_who_does_much_more_takes_the_place_of_who_does_least() -> None:
    some = places(20)
    for name, amount in (("a", 100), ("b", 50), ("c", 99)):
        some.wants((name, ""), amount, 10, 0.0)
    assert some.settle(0.0) == [], f"not {FACTOR:g} times as much as b"
    some.wants(("c", ""), 1, 10, 0.0)
    assert some.settle(0.0) == [("b", "")]
    assert ("c", "") in some


def test_activity_halves() -> None:
    some = places(10)
    some.wants(("a", ""), 1000, 10, 0.0)
    some.wants(("b", ""), 10, 10, HALF_LIFE * 8)
    assert some.settle(HALF_LIFE * 8) == [("a", "")], "of 1000, 4 are left"


def test_the_idle_lose_their_place_and_the_forgotten_are_not_remembered() -> None:
    some = places(10)
    some.wants(("a", ""), 10**9, 10, 0.0)
    some.wants(("b", ""), 1, 10, 0.0)
    assert some.settle(HALF_LIFE * 2) == []
    assert some.waiting == 0
    assert some.settle(IDLE - 1) == []
    assert some.settle(IDLE) == [("a", "")]
    assert some.used == 0


def test_a_place_that_turned_out_to_cost_more_is_paid_for_by_the_least() -> None:
    some = places(20)
    for name, amount in (("a", 100), ("b", 50)):
        some.wants((name, ""), amount, 10, 0.0)
    some.charge(("a", ""), 15)
    assert some.shed(0.0) == [("b", "")]
    assert some.used == 15


WANTS = st.tuples(
    st.sampled_from("abcdefgh"), st.sampled_from(["", "x", "y"]), st.integers(0, 1000), st.integers(1, 30)
)


@given(st.integers(0, 60), st.lists(st.lists(WANTS, max_size=20), max_size=20), st.floats(1, 2 * IDLE))
def test_the_ceiling_holds_and_edges_have_their_ports(
    room: int, looks: list[list[tuple[str, str, int, int]]], step: float
) -> None:
    some, now = places(room), 0.0
    seen = {(name, source) for look in looks for name, source, _, _ in look}
    for look in looks:
        now += step
        for name, source, amount, cost in look:
            before = (name, source) in some
            has = some.wants((name, source), amount, cost, now)
            assert has == ((name, source) in some)
            assert has or not before, "wanting takes no place away"
        lost = some.settle(now)
        assert some.used <= room
        assert len(set(lost)) == len(lost)
        for name, source in seen:
            assert not source or (name, source) not in some or (name, "") in some


@given(
    st.dictionaries(st.text("abcdefghij", min_size=1, max_size=3), st.integers(1, 10**6), max_size=40),
    st.integers(1, 20),
)
def test_the_busiest_have_the_places(amounts: dict[str, int], most: int) -> None:
    """What has none is less than `FACTOR` times as active as each that has one."""
    some = places(most)
    for name, amount in amounts.items():
        some.wants((name, ""), amount, 1, 0.0)
    some.settle(0.0)
    placed = [amount for name, amount in amounts.items() if (name, "") in some]
    others = [amount for name, amount in amounts.items() if (name, "") not in some]
    assert len(placed) == min(most, len(amounts))
    assert not others or max(others) < FACTOR * min(placed)
