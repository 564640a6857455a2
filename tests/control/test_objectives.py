"""Which requests are bad for an objective, and how long they are remembered."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from discovery.model import ServiceKey
from middleware.grpc import GrpcStatus
from nodeagent.plan.objective import LEAST, MOST
from nodeagent.stats.columns import (
    DURATION_BOUNDS,
    DURATION_BUCKETS,
    EDGE_COLUMNS,
    GRPC_CALLS,
    REQUESTS,
    REQUESTS_2XX,
    REQUESTS_4XX,
    REQUESTS_5XX,
    REQUESTS_NONE,
)
from nodeagent.stats.objectives import ObjectiveCounts, first_slow_column
from nodeagent.stats.region import SlotKey
from nodeagent.stats.signals import Promise, signals
from nodeagent.stats.tallies import News

WEB: SlotKey = (ServiceKey("shop", "web"), 80)
API: SlotKey = (ServiceKey("shop", "api"), 80)


def news(key: SlotKey | None, **counted: int) -> News:
    numbers = [0] * EDGE_COLUMNS
    for column, number in counted.items():
        numbers[int(column.removeprefix("at"))] = number
    return News(key, numbers, {}, {})


def at(*columns: int) -> dict[str, int]:
    """One of each."""
    return {f"at{column}": columns.count(column) for column in columns}


def counted(counts: ObjectiveCounts, key: SlotKey) -> tuple[int, int, int]:
    port = counts.ports[key]
    return port.requests, port.failed, port.slow


def test_what_failed_is_what_stat_calls_failed() -> None:
    counts = ObjectiveCounts()
    counts.begin({WEB: first_slow_column(0.25)})
    counts.take(news(WEB, **at(REQUESTS_2XX, REQUESTS_2XX, REQUESTS_4XX, REQUESTS_NONE, REQUESTS_5XX)))
    assert counted(counts, WEB) == (5, 1, 0)
    for status in (GrpcStatus.NOT_FOUND, GrpcStatus.UNAVAILABLE):
        counts.take(news(WEB, **at(REQUESTS_2XX, GRPC_CALLS + status)))
    assert counted(counts, WEB) == (7, 2, 0)


times = st.floats(0, 20)


@given(st.sampled_from(DURATION_BOUNDS), st.lists(times, min_size=1, max_size=20))
def test_slow_is_what_took_longer_than_the_bound(within: float, took: list[float]) -> None:
    counts = ObjectiveCounts()
    counts.begin({WEB: first_slow_column(within)})
    for each in took:  # as the data plane counts it
        counts.take(news(WEB, **at(REQUESTS_2XX, DURATION_BUCKETS + bisect_left(DURATION_BOUNDS, each))))
    assert counted(counts, WEB) == (len(took), 0, sum(each > within for each in took))


@given(st.integers(LEAST, MOST), st.integers(1, 10**6), st.data())
def test_a_promise_is_kept_if_no_more_are_bad_than_may_be(
    share: int, requests: int, data: st.DataObject
) -> None:
    may_be_bad = requests * (100_000 - share) // 100_000
    bad = data.draw(st.integers(0, requests) | st.integers(may_be_bad, min(requests, may_be_bad + 1)))
    numbers = [0] * EDGE_COLUMNS
    numbers[REQUESTS_2XX], numbers[REQUESTS_5XX] = requests - bad, bad
    numbers[DURATION_BUCKETS + DURATION_BOUNDS.index(0.25)] = requests - bad
    numbers[DURATION_BUCKETS + DURATION_BOUNDS.index(0.5)] = bad
    got = signals(numbers, 10)
    kept = bad <= may_be_bad
    assert Promise(share / 100_000).kept(got) is kept
    assert Promise(0.0, 0.25, share / 100_000).kept(got) is kept
    assert Promise(0.0, 0.5, share / 100_000).kept(got)


def test_without_requests_every_promise_is_kept() -> None:
    assert Promise(0.999, 0.25, 0.999).kept(signals([0] * EDGE_COLUMNS, 10))


def test_without_a_time_nothing_is_slow() -> None:
    counts = ObjectiveCounts()
    counts.begin({WEB: first_slow_column(0.0)})
    counts.take(news(WEB, **at(REQUESTS + 2, DURATION_BUCKETS + len(DURATION_BOUNDS))))
    assert counted(counts, WEB) == (1, 0, 0)


def test_ports_without_an_objective_and_without_requests_are_not_counted() -> None:
    counts = ObjectiveCounts()
    counts.begin({WEB: first_slow_column(0.0)})
    counts.take(news(API, **at(REQUESTS_2XX)))
    counts.take(news(None, **at(REQUESTS_2XX)))
    counts.take(news(WEB))
    assert counts.ports == {}


def test_a_port_is_forgotten_when_it_has_no_objective_any_more_and_not_before() -> None:
    counts = ObjectiveCounts()
    counts.begin({WEB: first_slow_column(0.25)})
    counts.take(news(WEB, **at(REQUESTS_5XX)))
    counts.begin({WEB: first_slow_column(1.0), API: first_slow_column(0.25)})
    assert counted(counts, WEB) == (1, 1, 0)
    counts.begin({API: first_slow_column(0.25)})
    assert counts.ports == {}
