"""Backends: everybody in turn, those that fail last, and never nobody while there is somebody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.model import Endpoint, ServiceKey
from middleware.registry import MIDDLEWARES
from middleware.testing import FakeTable, FakeWindows
from nodeagent.plan.model import BackendKey, BackendSpec, Balance
from nodeagent.proxy.backend import Backend, Target
from nodeagent.proxy.backends import Backends
from nodeagent.proxy.balance import BALANCERS, make_balancer
from nodeagent.proxy.balance.round_robin import RoundRobin
from nodeagent.proxy.data_plane import make_pools
from nodeagent.proxy.health import FAILURES_IN_A_ROW, FIRST_PAUSE, LONGEST_PAUSE, Health, Outcome
from nodeagent.proxy.runtime import Runtime
from nodeagent.proxy.streams import UpstreamStream
from nodeagent.settings import Limits
from nodeagent.stats.columns import REFUSALS, Layout

A, B, C, D = (Endpoint(f"10.0.0.{n}", 80) for n in range(1, 5))
KEY = BackendKey(ServiceKey("default", "web"), 80)
FAR = 1e9


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    loop = asyncio.new_event_loop()
    layout = Layout(MIDDLEWARES, REFUSALS)
    cells = memoryview(bytearray(8 * 4 * layout.slot_columns)).cast("q")
    yield Runtime(loop, Limits(), layout, cells, FakeTable(), FakeWindows())
    loop.close()


class NoDialer:
    """Connects nothing, for ever."""

    def dial(self, *_: Any) -> NoDialer:
        return self

    def cancel(self) -> None:
        """Nothing is under way."""


class NoTaker:
    """Asks for a connection that never comes."""

    def connected(self, stream: UpstreamStream) -> None:
        raise AssertionError

    def connect_failed(self, error: Exception) -> None:
        raise AssertionError


@pytest.fixture
def backends(runtime: Runtime) -> Backends:
    return Backends(make_pools(runtime, NoDialer()))


@pytest.fixture
def backend(backends: Backends) -> Backend:
    return backends.acquire(KEY)


def spec(*endpoints: Endpoint) -> BackendSpec:
    return BackendSpec(KEY, endpoints)


def picks(backend: Backend, count: int, now: float = 0.0) -> list[Endpoint | None]:
    return [endpoint(backend.pick((), now)) for _ in range(count)]


def endpoint(target: Target | None) -> Endpoint | None:
    return target.endpoint if target is not None else None


def target(backend: Backend, endpoint: Endpoint) -> Target:
    return next(target for target in backend.targets if target.endpoint == endpoint)


def refuse(backend: Backend, endpoint: Endpoint, now: float = 0.0) -> None:
    backend.failed(target(backend, endpoint), Outcome.CONNECT_FAILED, now)


def test_everybody_in_turn(backend: Backend) -> None:
    backend.update(spec(A, B, C))
    assert picks(backend, 6) == [A, B, C, A, B, C]


def test_workers_may_begin_at_different_places() -> None:
    balancer: RoundRobin[Endpoint] = RoundRobin(5)
    assert [balancer.pick((A, B, C), (), b"") for _ in range(3)] == [C, A, B]


def test_nobody(backend: Backend) -> None:
    assert picks(backend, 2) == [None, None]
    backend.update(spec(A))
    assert picks(backend, 2) == [A, A]
    backend.update(None)
    assert picks(backend, 2) == [None, None]


def test_the_avoided_are_not_picked_even_if_there_is_no_other(backend: Backend) -> None:
    backend.update(spec(A, B))
    first, second = backend.targets
    assert backend.pick((first,), 0.0) is second
    assert backend.pick((second,), 0.0) is first
    assert backend.pick((first, second), 0.0) is None


def test_retries_have_a_turn_of_their_own(backend: Backend) -> None:
    """Else, of two endpoints of which one fails, every request would begin at that one."""
    backend.update(spec(A, B))
    first = []
    for _ in range(10):
        picked = backend.pick((), 0.0)
        assert picked is not None
        first.append(picked.endpoint)
        if picked.endpoint == A:
            assert endpoint(backend.pick((picked,), 0.0)) == B
    assert Counter(first) == {A: 5, B: 5}


def test_retries_are_spread_over_the_others(backend: Backend) -> None:
    backend.update(spec(A, B, C, D))
    bad = target(backend, A)
    retried = Counter(endpoint(backend.pick((bad,), 0.0)) for _ in range(40))
    assert set(retried) == {B, C, D}
    assert max(retried.values()) <= 20


def test_one_that_refuses_is_passed_over_for_a_while(backend: Backend) -> None:
    backend.update(spec(A, B, C))
    refuse(backend, B)
    assert B not in picks(backend, 6, now=FIRST_PAUSE / 2)
    assert B in picks(backend, 3, now=FIRST_PAUSE)


def test_the_others_share_its_part_evenly(backend: Backend) -> None:
    backend.update(spec(A, B, C, D))
    refuse(backend, A)
    assert Counter(picks(backend, 30)) == {B: 10, C: 10, D: 10}


def test_if_all_refuse_all_are_still_tried(backend: Backend) -> None:
    backend.update(spec(A, B))
    refuse(backend, A)
    refuse(backend, B)
    assert {*picks(backend, 4)} == {A, B}
    assert endpoint(backend.pick((target(backend, A),), 0.0)) == B


def test_the_pause_doubles_up_to_a_limit_and_ends_with_success(backend: Backend) -> None:
    backend.update(spec(A, B))
    pause = FIRST_PAUSE
    for _ in range(10):
        refuse(backend, A)
        assert A not in picks(backend, 4, now=pause - 0.01)
        assert A in picks(backend, 2, now=pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    backend.connected(target(backend, A))
    assert A in picks(backend, 2)
    refuse(backend, A)
    assert A in picks(backend, 2, now=FIRST_PAUSE)


@pytest.mark.parametrize("outcome", [Outcome.RESET, Outcome.TIMEOUT])
def test_one_that_accepts_but_does_not_answer_is_passed_over_after_some_in_a_row(
    backend: Backend, outcome: Outcome
) -> None:
    backend.update(spec(A, B, C))
    bad = target(backend, A)
    for _ in range(FAILURES_IN_A_ROW - 1):
        backend.failed(bad, outcome, 0.0)
    assert A in picks(backend, 3)
    backend.answered(bad)
    for _ in range(FAILURES_IN_A_ROW - 1):
        backend.failed(bad, outcome, 0.0)
    assert A in picks(backend, 3)
    backend.failed(bad, outcome, 0.0)
    assert A not in picks(backend, 6)
    backend.connected(bad)
    assert A not in picks(backend, 6), "that it accepts connections was never in doubt"
    backend.failed(bad, outcome, FIRST_PAUSE)
    assert A not in picks(backend, 6, now=FIRST_PAUSE + 1.5 * FIRST_PAUSE)


def test_bad_answers_never_put_the_load_on_a_few() -> None:
    health: Health[Endpoint] = Health()
    for one in (A, B, C):
        for _ in range(FAILURES_IN_A_ROW):
            health.report(one, Outcome.RESET, 0.0)
    assert health.usable((A, B, C, D), 0.0) == (A, B, C, D)
    health.report(A, Outcome.ANSWERED, 0.0)
    assert health.usable((A, B, C, D), 0.0) == (A, D)


def test_the_same_tuple_while_all_are_well() -> None:
    health: Health[Endpoint] = Health()
    endpoints = (A, B)
    assert health.usable(endpoints, 0.0) is endpoints
    health.report(A, Outcome.CONNECT_FAILED, 0.0)
    assert health.usable(endpoints, FAR) is endpoints


def test_what_is_known_of_those_that_stay_is_kept(backend: Backend) -> None:
    backend.update(spec(A, B, C))
    kept = target(backend, A)
    refuse(backend, A)
    refuse(backend, B)
    backend.update(spec(A, C, D))
    assert target(backend, A) is kept
    assert A not in picks(backend, 6)
    backend.update(spec(A, B, C))
    assert B in picks(backend, 3)


def test_a_changed_condition_is_the_same_endpoint(backend: Backend) -> None:
    backend.update(spec(A, B))
    refuse(backend, A)
    drained = Endpoint(A.address, A.port, ready=False, terminating=True)
    backend.update(spec(drained, B))
    assert picks(backend, 2) == [B, B]


def test_one_that_has_left_is_not_remembered(backend: Backend) -> None:
    backend.update(spec(A, B, D))
    gone = target(backend, D)
    backend.update(spec(A, B))
    backend.failed(gone, Outcome.CONNECT_FAILED, 0.0)
    backend.update(spec(A, B, D))
    assert D in picks(backend, 3)


def test_pools_are_shared_by_address_and_go_with_the_last_backend(backends: Backends) -> None:
    other = BackendKey(ServiceKey("default", "other"), 80)
    backends.apply([(spec(A, B), 1), (BackendSpec(other, (B, C)), 1)], ())
    assert len(backends.pools) == 0, "there is one when there is something to send"
    for key in (KEY, other):
        backend = backends.acquire(key)
        for one in backend.targets:
            backend.connect(one, NoTaker(), 1.0)
        backends.release(backend)
    assert len(backends.pools) == 3
    backends.apply((), [KEY])
    assert len(backends.pools) == 2
    backends.apply((), [other])
    assert len(backends.pools) == 0
    assert len(backends) == 0


def test_a_backend_that_rules_name_waits_for_its_spec(backends: Backends) -> None:
    waited_for = backends.acquire(KEY)
    assert picks(waited_for, 1) == [None]
    backends.apply([(spec(A), 1)], ())
    assert picks(waited_for, 1) == [A]
    backends.apply((), [KEY])
    assert len(backends) == 1
    backends.apply([(spec(B), 1)], ())
    assert picks(waited_for, 1) == [B]
    backends.apply((), [KEY])
    backends.release(waited_for)
    assert len(backends) == 0


@given(
    endpoints=st.sets(st.sampled_from((A, B, C, D))),
    failed=st.lists(st.sampled_from((A, B, C, D))),
    avoid=st.sets(st.sampled_from((A, B, C, D))),
    name=st.sampled_from(sorted(BALANCERS)),
    first=st.integers(0, 100),
)
def test_somebody_is_picked_whenever_there_is_somebody(
    endpoints: set[Endpoint], failed: list[Endpoint], avoid: set[Endpoint], name: str, first: int
) -> None:
    health: Health[Endpoint] = Health()
    balancer = make_balancer(Balance(name), first)
    everybody = tuple(sorted(endpoints, key=str))
    for one in failed:
        health.report(one, Outcome.CONNECT_FAILED, 0.0)
    picked = balancer.pick(health.usable(everybody, 0.5), avoid, b"")
    well = endpoints - avoid - set(failed)
    assert (picked in well) if well else picked is None
    assert (balancer.pick(everybody, avoid, b"") in endpoints - avoid) is bool(endpoints - avoid)


class TestConditions:
    """What the agent's health checks say."""

    def backend(self, runtime: Runtime, *endpoints: Endpoint) -> Backend:
        backend = Backend(KEY, make_pools(runtime, NoDialer()))
        backend.update(BackendSpec(KEY, endpoints))
        return backend

    def picked(self, backend: Backend, times: int = 12) -> set[Endpoint]:
        targets = [backend.pick((), 0.0) for _ in range(times)]
        return {one.endpoint for one in targets if one is not None}

    def test_an_unhealthy_endpoint_leaves_circulation_and_comes_back(self, runtime: Runtime) -> None:
        backend = self.backend(runtime, A, B, C)
        backend.set_condition([("10.0.0.2", 80)])
        assert self.picked(backend) == {A, C}
        backend.set_condition([])
        assert self.picked(backend) == {A, B, C}

    def test_all_are_used_if_none_is_healthy(self, runtime: Runtime) -> None:
        backend = self.backend(runtime, A, B)
        backend.set_condition([("10.0.0.1", 80), ("10.0.0.2", 80)])
        assert self.picked(backend) == {A, B}

    def test_a_request_that_all_others_have_failed_gets_it(self, runtime: Runtime) -> None:
        backend = self.backend(runtime, A, B)
        backend.set_condition([("10.0.0.2", 80)])
        (a, b) = backend.targets
        assert backend.pick((a,), 0.0) is b

    def test_the_healthy_ones_that_fail_come_before_it(self, runtime: Runtime) -> None:
        """What was probed a moment ago is known better than what one try met."""
        backend = self.backend(runtime, A, B)
        backend.set_condition([("10.0.0.2", 80)])
        (a, b) = backend.targets
        backend.failed(a, Outcome.CONNECT_FAILED, 0.0)
        assert self.picked(backend) == {A}
        assert backend.pick((a,), 0.0) is b

    def test_unhealthy_ones_do_not_count_among_those_in_trouble(self, runtime: Runtime) -> None:
        """Half of what circulates is left, so the one that answers badly is passed over."""
        backend = self.backend(runtime, A, B, C, D)
        backend.set_condition([("10.0.0.3", 80), ("10.0.0.4", 80)])
        (a, _, c, d) = backend.targets
        for target in (a, c, d):
            for _ in range(FAILURES_IN_A_ROW):
                backend.failed(target, Outcome.RESET, 0.0)
        assert self.picked(backend) == {B}

    def test_it_stays_over_a_change_of_the_plan(self, runtime: Runtime) -> None:
        backend = self.backend(runtime, A, B)
        backend.set_condition([("10.0.0.2", 80)])
        backend.update(BackendSpec(KEY, (A, B, C)))
        assert self.picked(backend) == {A, C}
        backend.update(BackendSpec(KEY, (B,)))
        assert self.picked(backend) == {B}

    def test_of_a_backend_that_there_is_not(self, runtime: Runtime) -> None:
        backends = Backends(make_pools(runtime, NoDialer()))
        backends.set_condition(KEY, [("10.0.0.2", 80)])
        assert len(backends) == 0
