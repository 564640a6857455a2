"""Which endpoints of a backend are in circulation: those not ejected, those near, else another Service's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.model import Endpoint, ServiceKey
from middleware.registry import MIDDLEWARES
from middleware.testing import FakeTable, FakeWindows
from nodeagent.plan.model import BackendKey, BackendSpec, Balance, Locality, OutlierDetection
from nodeagent.plan.outlier_detection import ALL
from nodeagent.proxy.backend import Backend, Target
from nodeagent.proxy.backends import Backends
from nodeagent.proxy.balance.slow_start import LEAST
from nodeagent.proxy.data_plane import make_pools
from nodeagent.proxy.health import Outcome
from nodeagent.proxy.locality import enough, near
from nodeagent.proxy.observer import Circulation, NoObserver
from nodeagent.proxy.runtime import Runtime
from nodeagent.settings import Limits
from nodeagent.stats.columns import OUTLIER_EJECTIONS, OVERFLOW_SLOT, REFUSALS, Layout

WEB = BackendKey(ServiceKey("default", "web"), 80)
STANDBY = BackendKey(ServiceKey("dr", "web"), 80)


def at(number: int, zone: str = "", hints: tuple[str, ...] = (), node: str = "") -> Endpoint:
    return Endpoint(f"10.0.0.{number}", 80, zone=zone, hints=hints, node=node)


A, B, C, D = (at(number) for number in range(1, 5))
HERE, HERE_TOO, THERE = at(1, "a"), at(2, "a"), at(3, "b")
PREFER, STRICT = Locality("prefer"), Locality("strict")


class Noting(NoObserver):
    """Notes what it is told of endpoints."""

    def __init__(self) -> None:
        self.told: list[Circulation] = []

    def circulated(self, circulation: Circulation) -> None:
        self.told.append(circulation)


class World:
    """The backends of one worker, with a clock that is set."""

    def __init__(self) -> None:
        self.time = 0.0
        self.observer = Noting()
        loop = asyncio.new_event_loop()
        self.layout = Layout(MIDDLEWARES, REFUSALS)
        self.cells = memoryview(bytearray(8 * 4 * self.layout.slot_columns)).cast("q")
        self.runtime = Runtime(
            loop, Limits(), self.layout, self.cells, FakeTable(), FakeWindows(), self.observer,
            now=lambda: self.time,
        )  # fmt: skip
        loop.close()
        self.backends = Backends(make_pools(self.runtime, NoDialer()))
        self.web = self.backends.acquire(WEB)

    def serve(self, *endpoints: Endpoint, key: BackendKey = WEB, **fields: Any) -> None:
        self.backends.apply([(BackendSpec(key, endpoints, **fields), OVERFLOW_SLOT)], ())

    def picks(self, count: int = 12) -> set[Endpoint | None]:
        targets = (self.web.pick((), self.time) for _ in range(count))
        return {target.endpoint if target is not None else None for target in targets}

    def fail(self, endpoint: Endpoint, outcome: Outcome = Outcome.CONNECT_FAILED, times: int = 1) -> None:
        for _ in range(times):
            self.web.failed(target(self.web, endpoint), outcome, self.time)

    def answer(self, endpoint: Endpoint, status: int, times: int = 1) -> None:
        for _ in range(times):
            self.web.said(target(self.web, endpoint), status)

    def count(self, column: int) -> int:
        return int(self.cells[self.layout.base(OVERFLOW_SLOT) + column])


class NoDialer:
    """Connects nothing, for ever."""

    def dial(self, *_: Any) -> NoDialer:
        return self

    def cancel(self) -> None:
        """Nothing is under way."""


def target(backend: Backend, endpoint: Endpoint) -> Target:
    return next(target for target in backend.targets if target.endpoint == endpoint)


@pytest.fixture
def world() -> World:
    return World()


class TestOutlierDetection:
    def test_an_ejected_one_is_not_picked_until_its_time_is_over(self, world: World) -> None:
        world.serve(A, B, outlier_detection=OutlierDetection(ALL))
        world.answer(A, 503, 5)
        assert world.picks() == {B}
        assert world.backends.tick(0.0) == [
            (WEB, {("10.0.0.1", 80): "5 failures in a row, the last one 503"})
        ]
        assert not world.backends.tick(1.0)
        world.time = 30.0
        assert world.backends.tick(30.0) == [(WEB, {})]
        assert world.picks() == {A, B}
        assert not world.backends.tick(31.0)
        assert [(one.endpoint, one.ejected, one.left) for one in world.observer.told] == [
            ("10.0.0.1:80", True, 1),
            ("10.0.0.1:80", False, 2),
        ]
        assert world.count(OUTLIER_EJECTIONS) == 1

    def test_failures_of_the_connection_count(self, world: World) -> None:
        world.serve(A, B, outlier_detection=OutlierDetection(ALL, consecutive=3))
        world.fail(A, Outcome.RESET)
        world.fail(A, Outcome.TIMEOUT)
        world.answer(A, 500)
        assert world.picks() == {B}

    def test_if_all_others_fail_their_checks_the_ejected_are_used(self, world: World) -> None:
        world.serve(A, B, outlier_detection=OutlierDetection(ALL))
        world.answer(A, 503, 5)
        world.web.set_condition([("10.0.0.2", 80)])
        assert world.picks() == {A}

    def test_it_is_off_unless_it_is_asked_for(self, world: World) -> None:
        world.serve(A, B)
        assert not world.web.attentive
        world.answer(A, 503, 100)
        assert world.picks() == {A, B}
        assert not world.backends.tick(0.0)

    def test_what_is_ejected_is_used_again_when_it_is_taken_back(self, world: World) -> None:
        world.serve(A, B, outlier_detection=OutlierDetection(ALL))
        world.answer(A, 503, 5)
        world.backends.tick(0.0)
        world.serve(A, B)
        assert world.picks() == {A, B}
        assert world.backends.tick(1.0) == [(WEB, {})]
        assert not world.web.attentive

    def test_one_that_leaves_is_not_told_of_any_more(self, world: World) -> None:
        world.serve(A, B, outlier_detection=OutlierDetection(ALL))
        world.answer(A, 503, 5)
        world.backends.tick(0.0)
        world.backends.apply((), [WEB])
        assert world.backends.tick(1.0) == [(WEB, {})]


class TestSlowStart:
    """What comes back into circulation gets its share little by little, if `recovered` asks for that."""

    def serve(self, world: World, recovered: bool) -> None:
        balance = Balance(slow_start=10.0, slow_start_recovered=recovered)
        world.serve(A, B, outlier_detection=OutlierDetection(ALL), balance=balance)

    def share(self, world: World) -> float:
        """Return how much of its share A gets."""
        targets = [world.web.pick((), world.time) for _ in range(2000)]
        return sum(one is not None and one.endpoint == A for one in targets) / 1000

    @pytest.mark.parametrize(("recovered", "least"), [(True, LEAST), (False, 1.0)])
    def test_after_an_ejection(self, world: World, recovered: bool, least: float) -> None:
        self.serve(world, recovered)
        world.answer(A, 503, 5)
        assert self.share(world) == 0
        world.time = 30.0
        world.backends.tick(30.0)
        assert self.share(world) == pytest.approx(least, abs=0.06)
        world.time = 40.0
        assert self.share(world) == pytest.approx(1.0, abs=0.06)

    @pytest.mark.parametrize(("recovered", "least"), [(True, LEAST), (False, 1.0)])
    def test_after_a_failed_health_check(self, world: World, recovered: bool, least: float) -> None:
        self.serve(world, recovered)
        world.web.set_condition([("10.0.0.1", 80)])
        assert self.share(world) == 0
        world.web.set_condition([])
        assert self.share(world) == pytest.approx(least, abs=0.06)
        self.serve(world, recovered)  # a plan without news
        world.time = 10.0
        assert self.share(world) == pytest.approx(1.0, abs=0.06)

    def test_those_of_the_first_plan_are_not_new(self, world: World) -> None:
        self.serve(world, True)
        assert self.share(world) == 1.0


class TestPassiveHealthStays:
    def test_answers_are_asked_for_while_somebody_is_in_trouble(self, world: World) -> None:
        world.serve(A, B)
        world.fail(A)
        assert world.web.attentive
        world.web.answered(target(world.web, A))
        assert not world.web.attentive


def test_hints_count_if_all_have_one() -> None:
    assert near([at(1, "a", ("b",)), at(2, "b", ("a", "b"))], "b") == [True, True]
    assert near([at(1, "a", ("b",)), at(2, "b")], "b") == [False, True]
    assert near([], "b") == []


@pytest.mark.parametrize(
    ("count", "percent", "fewest"), [(2, 70, 2), (10, 70, 7), (10, 71, 8), (3, 0, 1), (0, 70, 1), (4, 100, 4)]
)
def test_how_many_are_enough(count: int, percent: int, fewest: int) -> None:
    assert enough(count, percent) == fewest


class TestLocality:
    def test_those_in_the_zone_go_first(self, world: World) -> None:
        world.backends.locate("node", "a")
        world.serve(HERE, HERE_TOO, THERE, locality=PREFER)
        assert world.picks() == {HERE, HERE_TOO}

    def test_too_few_healthy_ones_spill_over(self, world: World) -> None:
        world.backends.locate("node", "a")
        world.serve(HERE, HERE_TOO, THERE, locality=PREFER)
        world.web.set_condition([("10.0.0.1", 80)])
        assert world.picks() == {HERE_TOO, THERE}
        world.serve(HERE, HERE_TOO, THERE, locality=Locality("prefer", 50))
        assert world.picks() == {HERE_TOO}

    def test_those_that_refuse_connections_spill_over_too(self, world: World) -> None:
        world.backends.locate("node", "a")
        world.serve(HERE, HERE_TOO, THERE, locality=PREFER)
        world.fail(HERE)
        assert world.picks() == {HERE_TOO, THERE}

    def test_both_kinds_of_trouble_add_up(self, world: World) -> None:
        near_ones = [at(number, "a") for number in range(1, 11)]
        world.backends.locate("node", "a")
        world.serve(*near_ones, at(11, "b"), locality=PREFER)
        world.web.set_condition([("10.0.0.1", 80), ("10.0.0.2", 80)])
        world.fail(near_ones[2])
        assert world.picks(30) == set(near_ones[3:])
        world.fail(near_ones[3])
        assert world.picks(30) == {*near_ones[4:], at(11, "b")}

    def test_a_zone_without_endpoints(self, world: World) -> None:
        world.backends.locate("node", "c")
        world.serve(HERE, THERE, locality=PREFER)
        assert world.picks() == {HERE, THERE}
        world.serve(HERE, THERE, locality=STRICT)
        assert world.picks() == {None}

    def test_strict_never_leaves_the_zone(self, world: World) -> None:
        world.backends.locate("node", "a")
        world.serve(HERE, THERE, locality=STRICT)
        world.web.set_condition([("10.0.0.1", 80)])
        assert world.picks() == {HERE}
        world.fail(HERE)
        assert world.picks() == {HERE}
        assert world.web.pick((target(world.web, HERE),), 0.0) is None

    def test_the_zone_is_learnt_from_an_endpoint_on_the_node(self, world: World) -> None:
        world.backends.locate("node-1", "")
        world.serve(HERE, THERE, locality=PREFER)
        assert (world.picks(), world.backends.lost) == ({HERE, THERE}, True)
        world.serve(at(9, "b", node="node-1"), key=STANDBY)
        assert (world.picks(), world.backends.lost) == ({THERE}, False)
        assert world.picks() == {THERE}

    def test_it_is_learnt_from_one_that_was_there_before(self, world: World) -> None:
        world.backends.locate("node-1", "")
        world.serve(at(9, "b", node="node-1"), key=STANDBY)
        world.serve(HERE, THERE, locality=PREFER)
        assert world.picks() == {THERE}


class TestFailover:
    def elsewhere(self, world: World) -> Endpoint | None:
        assert world.web.pick((), world.time) is None
        assert world.web.failover is not None
        found = world.web.failover.pick((), world.time) or world.web.last_resort((), world.time)
        return found.endpoint if found is not None else None

    def test_while_one_is_healthy_nothing_goes_there(self, world: World) -> None:
        world.serve(D, key=STANDBY)
        world.serve(A, B, failover=STANDBY)
        world.web.set_condition([("10.0.0.1", 80)])
        assert world.picks() == {B}

    def test_when_all_fail_their_checks(self, world: World) -> None:
        world.serve(D, key=STANDBY)
        world.serve(A, B, failover=STANDBY)
        world.web.set_condition([("10.0.0.1", 80), ("10.0.0.2", 80)])
        assert self.elsewhere(world) == D
        world.web.set_condition([])
        assert world.picks() == {A, B}

    def test_when_all_refuse_connections(self, world: World) -> None:
        world.serve(D, key=STANDBY)
        world.serve(A, failover=STANDBY)
        world.fail(A)
        assert self.elsewhere(world) == D
        world.time = 1.0
        assert world.picks() == {A}

    def test_when_all_are_ejected(self, world: World) -> None:
        world.serve(D, key=STANDBY)
        world.serve(A, failover=STANDBY, outlier_detection=OutlierDetection(ALL, share=100))
        world.answer(A, 500, 5)
        assert self.elsewhere(world) == D

    def test_when_there_is_none(self, world: World) -> None:
        world.serve(D, key=STANDBY)
        world.serve(failover=STANDBY)
        assert self.elsewhere(world) == D

    def test_if_the_other_has_none_either_ours_are_tried(self, world: World) -> None:
        world.serve(A, failover=STANDBY)
        world.web.set_condition([("10.0.0.1", 80)])
        assert self.elsewhere(world) == A

    def test_two_that_fail_over_to_each_other_end(self, world: World) -> None:
        world.serve(key=STANDBY, failover=WEB)
        world.serve(failover=STANDBY)
        assert self.elsewhere(world) is None

    def test_the_other_is_let_go_of_with_the_annotation(self, world: World) -> None:
        world.serve(A, failover=STANDBY)
        assert len(world.backends) == 2
        world.serve(A)
        assert len(world.backends) == 1


EVERYBODY = tuple(at(number, "ab"[number % 2]) for number in range(1, 7))
Trouble = tuple[str, int]
WORDS = ("refuse", "reset", "error", "unhealthy", "well", "later")


@given(
    kind=st.sampled_from((None, PREFER, STRICT, Locality("prefer", 100))),
    zone=st.sampled_from(("", "a", "c")),
    fails_over=st.booleans(),
    troubles=st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 5)), max_size=30),
)
def test_somebody_is_found_whatever_happens(
    kind: Locality | None, zone: str, fails_over: bool, troubles: list[Trouble]
) -> None:
    """Nobody is picked only where that is meant; and nobody who is out while somebody is left."""
    world = World()
    world.backends.locate("node", zone)
    detection = OutlierDetection(ALL, consecutive=2, ejection=5.0)
    standby = STANDBY if fails_over else None
    world.serve(*EVERYBODY, outlier_detection=detection, locality=kind, failover=standby)
    unhealthy: set[tuple[str, int]] = set()
    for what, number in troubles:
        endpoint = EVERYBODY[number]
        if what == "refuse":
            world.fail(endpoint)
        elif what == "reset":
            world.fail(endpoint, Outcome.RESET)
        elif what == "error":
            world.answer(endpoint, 503, 2)
        elif what == "later":
            world.time += number
            world.backends.tick(world.time)
        else:
            (unhealthy.add if what == "unhealthy" else unhealthy.discard)((endpoint.address, endpoint.port))
            world.web.set_condition(unhealthy)
        out = unhealthy | world.web.ejected().keys()
        well = {one for one in EVERYBODY if (one.address, one.port) not in out}
        reachable = {one for one in EVERYBODY if kind is not STRICT or not zone or one.zone == zone}
        picked = world.picks(6)
        if None in picked:
            assert fails_over or not reachable
        picked.discard(None)
        assert picked <= reachable
        if well & reachable:
            assert picked <= well
