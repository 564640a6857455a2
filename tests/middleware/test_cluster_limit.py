"""The limit of the whole cluster: leases, and what its layer does with and without a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from middleware.cluster_limit import RateLimitUnavailable
from middleware.contract import Grant, Problem
from middleware.lease import AWAY, KEPT, Lease
from middleware.rate_limit import Options, RateLimited, build, decide, parse
from middleware.testing import FakeContext, FakeRequest, handler_of, run, status_of
from middleware.values import Rate

NAME = "svc.mesh/rate-limit"


class FakeStore:
    """A store that answers at once, by the clock of a test."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.trips = 0
        self.away = False
        self.tats: dict[str, int] = {}

    def take(
        self, key: str, interval: float, burst: int, most: int, answered: Callable[[Grant | None], None]
    ) -> None:
        self.trips += 1
        if self.away:
            answered(None)
            return
        step, now, count = round(interval * 1e9), round(self.now() * 1e9), 0
        wait = 0
        for _ in range(most):
            after, wait = decide(self.tats.get(key, 0), now, step, (burst - 1) * step)
            if after is None:
                break
            self.tats[key], count = after, count + 1
        answered(Grant(count, 0.0 if count else wait / 1e9))


class Node:
    """A worker of a node, with a clock that it shares with the others."""

    def __init__(self, options: Options, store: FakeStore | None) -> None:
        self.context = FakeContext(tokens=store)
        self.handler, _ = handler_of(build(options, self.context))


def cluster(options: Options, nodes: int) -> tuple[list[Node], FakeStore]:
    now = [1000.0]
    store = FakeStore(lambda: now[0])
    made = [Node(options, store) for _ in range(nodes)]
    store.now = lambda: made[0].context.time
    return made, store


def forward(nodes: list[Node], seconds: float) -> None:
    for node in nodes:
        node.context.time += seconds


def test_values() -> None:
    assert parse({NAME: "10/s scope=cluster"}) == Options(Rate(10, "s"), 10, scope="cluster")
    closed = Options(Rate(10, "s"), 10, scope="cluster", away="closed")
    assert parse({NAME: "10/s scope=cluster away=closed"}) == closed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10/s scope=world", '"world" is not known'),
        ("10/s away=open", "away has no effect without scope=cluster"),
        ("10/s scope=cluster away=ajar", '"ajar" is not known'),
        ("10/s scope=cluster headers=on", "no node knows what is left of a limit of the whole cluster"),
    ],
)
def test_a_bad_value_is_a_problem(text: str, reason: str) -> None:
    problem = parse({NAME: text})
    assert isinstance(problem, Problem)
    assert problem.reason == reason


async def test_nodes_share_a_limit_and_few_requests_cost_a_round_trip() -> None:
    nodes, store = cluster(Options(Rate(1000, "s"), 100, scope="cluster"), 3)
    served = 0
    for number in range(20_000):  # ten seconds, twice the limit
        forward(nodes, 0.0005)
        served += status_of(nodes[number % 3].handler(FakeRequest())) == 200
    assert 9_500 <= served <= 10_100
    assert store.trips < 20_000 / 20
    assert sum(node.context.metrics["svcmesh_rate_limited"] for node in nodes) == 20_000 - served


async def test_a_small_burst_loses_nothing() -> None:
    nodes, _ = cluster(Options(Rate(1000, "s"), 1, scope="cluster"), 1)
    served = 0
    for _ in range(20_000):  # two seconds
        forward(nodes, 0.0001)
        served += status_of(nodes[0].handler(FakeRequest())) == 200
    assert served == pytest.approx(2000, rel=0.1)


async def test_below_the_limit_a_round_trip_brings_many_tokens() -> None:
    nodes, store = cluster(Options(Rate(10_000, "s"), 10_000, scope="cluster"), 1)
    for _ in range(10_000):
        forward(nodes, 0.0002)
        assert status_of(nodes[0].handler(FakeRequest())) == 200
    assert store.trips <= 30


async def test_a_refusal_says_when_to_come_again() -> None:
    nodes, _ = cluster(Options(Rate(1, "m"), 1, scope="cluster"), 1)
    run(nodes[0].handler(FakeRequest()))
    with pytest.raises(RateLimited, match="over the limit of this service in the cluster, 1/m") as error:
        run(nodes[0].handler(FakeRequest()))
    assert error.value.headers == (("Retry-After", "60"),)


async def test_sources_have_limits_of_their_own() -> None:
    nodes, _ = cluster(Options(Rate(1, "m"), 1, "source", scope="cluster"), 2)
    sources = ["10.1.0.1", "10.1.0.2", "10.1.0.1"]
    statuses = [
        status_of(node.handler(FakeRequest(source=s))) for node, s in zip(nodes * 2, sources, strict=False)
    ]
    assert statuses == [200, 200, "rate_limited"]


async def test_open_while_the_store_is_away_each_node_limits_for_itself() -> None:
    nodes, store = cluster(Options(Rate(1, "m"), 2, scope="cluster"), 2)
    store.away = True
    statuses = [status_of(node.handler(FakeRequest())) for node in nodes for _ in range(3)]
    assert statuses == [200, 200, "rate_limited"] * 2
    assert store.trips == 2, "it is not asked again at once"
    assert nodes[0].context.metrics["svcmesh_rate_limit_store_away"] == 3
    store.away = False
    forward(nodes, AWAY)
    assert status_of(nodes[0].handler(FakeRequest())) == 200
    assert store.tats


async def test_closed_while_the_store_is_away_nothing_passes() -> None:
    nodes, store = cluster(Options(Rate(1, "m"), 2, scope="cluster", away="closed"), 1)
    store.away = True
    with pytest.raises(RateLimitUnavailable) as error:
        run(nodes[0].handler(FakeRequest()))
    assert error.value.status == 503
    assert not error.value.processed


async def test_an_agent_without_a_store() -> None:
    with capture_logs() as logs:
        node = Node(Options(Rate(1, "m"), 1, scope="cluster"), None)
    assert [(line["event"], line["log_level"]) for line in logs] == [("rate_limit_without_store", "warning")]
    assert [status_of(node.handler(FakeRequest())) for _ in range(2)] == [200, "rate_limited"]


async def test_requests_that_come_while_the_store_is_asked_wait_for_one_answer() -> None:
    class Late(FakeStore):
        def take(
            self, key: str, interval: float, burst: int, most: int, answered: Callable[[Grant | None], None]
        ) -> None:
            asked.append(most)
            asyncio.get_running_loop().call_later(0.01, lambda: answered(Grant(2, 0.0)))

    asked: list[int] = []
    node = Node(Options(Rate(1, "m"), 5, scope="cluster"), Late(lambda: 0.0))

    requests = [FakeRequest(), FakeRequest()]

    async def send(request: FakeRequest) -> int | str:
        try:
            return (await node.handler(request)).status
        except RateLimited as error:
            return error.reason

    assert [*await asyncio.gather(*map(send, requests))] == [200, 200]
    assert asked == [1]
    assert [request.waits for request in requests] == [[("queue", node.context.time)]] * 2


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 20), st.booleans()), max_size=100),
)
def test_a_lease_never_gives_more_than_it_got(burst: int, steps: list[tuple[float, int, bool]]) -> None:
    lease, now, got, passed = Lease(0.001, burst), 0.0, 0, 0
    arrived: list[tuple[float, int]] = []
    for gap, count, away in steps:
        now += gap
        answer = lease.take(now)
        if answer == "ask":
            assert not lease.tokens
            if away:
                lease.unreachable(now)
                assert lease.take(now) == "away"
            else:
                lease.granted(count, count or 1, 0.05, now)
                got += count
                arrived.append((now, count))
                assert lease.take(now) == ("pass" if count else "refuse")
                passed += bool(count)
        passed += answer == "pass"
        assert passed <= got
        if answer == "pass":
            assert now - arrived[-1][0] < KEPT
