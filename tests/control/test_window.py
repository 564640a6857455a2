"""The last seconds, and what they mean: rates, success and percentiles."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.model import ServiceKey
from middleware.grpc import GrpcStatus
from nodeagent.stats.columns import (
    BYTES_SENT,
    DURATION_BOUNDS,
    DURATION_BUCKETS,
    EDGE_COLUMNS,
    GRPC_CALLS,
    REQUESTS_2XX,
    REQUESTS_5XX,
)
from nodeagent.stats.region import SlotKey
from nodeagent.stats.signals import quantile, signals
from nodeagent.stats.tallies import News
from nodeagent.stats.window import LONGEST, MOST, Window

API: SlotKey = (ServiceKey("shop", "api"), 80)
CART: SlotKey = (ServiceKey("shop", "cart"), 80)


def counts(**columns: int) -> list[int]:
    known = {"ok": REQUESTS_2XX, "failed": REQUESTS_5XX, "sent": BYTES_SENT}
    numbers = [0] * EDGE_COLUMNS
    for name, number in columns.items():
        numbers[known[name]] = number
    return numbers


def news(key: SlotKey, ok: int, **sources: int) -> News:
    edges = {f"shop/deployment/{name}": counts(ok=number) for name, number in sources.items()}
    return News(key, counts(ok=ok), {}, edges)


def test_the_signals_of_counts() -> None:
    numbers = counts(ok=15, failed=5, sent=4000)
    numbers[DURATION_BUCKETS + 3] = 20
    found = signals(numbers, 10.0)
    assert (found.requests, found.rate, found.success) == (20, 2.0, 0.75)
    assert (found.classes, found.grpc, found.sent_rate) == ({"2xx": 15, "5xx": 5}, {}, 400.0)
    assert found.p50 == pytest.approx(0.00375)


def test_calls_of_grpc_fail_by_their_status() -> None:
    numbers = counts(ok=10)
    for status, number in ((GrpcStatus.OK, 5), (GrpcStatus.NOT_FOUND, 3), (GrpcStatus.UNAVAILABLE, 2)):
        numbers[GRPC_CALLS + status] = number
    found = signals(numbers, 1.0)
    assert found.success == 0.8
    assert found.grpc == {"OK": 5, "NOT_FOUND": 3, "UNAVAILABLE": 2}


def test_without_requests_there_is_no_success_and_no_percentile() -> None:
    found = signals(counts(), 1.0)
    assert (found.rate, found.success, found.p50, found.p99) == (0.0, None, None, None)


def test_percentiles_are_interpolated_as_prometheus_does() -> None:
    buckets = [0] * (len(DURATION_BOUNDS) + 1)
    buckets[0], buckets[1] = 50, 50
    assert quantile(buckets, 0.25) == pytest.approx(0.00025)
    assert quantile(buckets, 0.5) == pytest.approx(0.0005)
    assert quantile(buckets, 0.75) == pytest.approx(0.00075)
    buckets = [0] * len(DURATION_BOUNDS) + [1]
    assert quantile(buckets, 0.5) == DURATION_BOUNDS[-1]


@given(
    st.lists(st.integers(0, 1000), min_size=len(DURATION_BOUNDS) + 1, max_size=len(DURATION_BOUNDS) + 1),
    st.floats(0.001, 1.0),
    st.floats(0.001, 1.0),
)
def test_percentiles_grow_and_lie_in_the_bucket_of_their_rank(
    buckets: list[int], one: float, other: float
) -> None:
    low, high = quantile(buckets, min(one, other)), quantile(buckets, max(one, other))
    if not any(buckets):
        assert low is None
        return
    assert low is not None
    assert high is not None
    assert 0 <= low <= high * (1 + 1e-9) <= DURATION_BOUNDS[-1] * (1 + 1e-9)
    rank = math.ceil(max(one, other) * sum(buckets) - 1e-6)
    reached = sum(
        number for number, bound in zip(buckets, DURATION_BOUNDS, strict=False) if bound <= high * (1 + 1e-9)
    )
    next_bucket = sum(
        number
        for number, lower in zip(buckets, (0.0, *DURATION_BOUNDS), strict=True)
        if lower <= high * (1 + 1e-9)
    )
    assert reached <= max(rank, reached)
    assert next_bucket >= min(rank, sum(buckets)), "at least so many requests were as fast"


def watched(*seconds: list[News]) -> Window:
    window = Window()
    window.begin(100.0)
    for number, each in enumerate(seconds):
        for one in each:
            window.take(one)
        window.tick(101.0 + number)
    return window


def test_a_window_has_the_last_seconds() -> None:
    window = watched([news(API, 100)], [news(API, 10)], [news(API, 20)])
    stats = window.stats("here", 2.0)
    assert (stats.node, stats.window, stats.left_out) == ("here", 2.0, 0)
    (api,) = stats.ports
    assert (api.namespace, api.service, api.port) == ("shop", "api", 80)
    assert (api.signals.requests, api.signals.rate) == (30, 15.0)
    assert window.stats("here", 60.0).ports[0].signals.requests == 130
    assert window.stats("here", 60.0).window == 3.0, "what there is"


def test_the_busiest_come_first_and_sources_add_up_to_their_port() -> None:
    window = watched([news(API, 10, web=4, job=5), news(CART, 20, web=20)])
    cart, api = window.stats("here", 10.0).ports
    assert (cart.service, api.service) == ("cart", "api")
    found = [(one.namespace, one.workload, one.signals.requests) for one in api.sources]
    assert found == [("shop", "deployment/job", 5), ("shop", "deployment/web", 4), ("", "other", 1)]
    assert [one.workload for one in cart.sources] == ["deployment/web"], "nothing is left for others"


def test_nothing_is_kept_while_nobody_watches() -> None:
    window = Window()
    window.take(news(API, 10))
    window.tick(1.0)
    assert (window.covers, window.stats("here", 10.0).ports) == (0.0, [])
    window.begin(2.0)
    window.tick(3.0)
    assert (window.covers, window.stats("here", 10.0).ports) == (1.0, [])
    window.take(news(API, 10))
    window.stop()
    assert window.covers == 0.0


def test_the_history_has_an_end() -> None:
    window = watched(*([news(API, 1)] for _ in range(LONGEST * 3)))
    assert LONGEST <= window.covers <= LONGEST + 1
    assert window.stats("here", LONGEST).ports[0].signals.requests == LONGEST


def test_so_many_ports_at_once_are_kept_and_the_rest_is_told() -> None:
    window = watched([news((ServiceKey("shop", f"s{number}"), 80), 1) for number in range(MOST + 7)])
    stats = window.stats("here", 10.0)
    assert (len(stats.ports), stats.left_out) == (MOST, 7)


def test_two_looks_in_one_second_add_up() -> None:
    window = watched([news(API, 1, web=1), news(API, 2, web=2)])
    (api,) = window.stats("here", 1.0).ports
    assert (api.signals.requests, api.sources[0].signals.requests) == (3, 3)
