"""The balancers' part of the benchmark: its report, and the figures that come without a clock."""

from __future__ import annotations

from itertools import pairwise

import pytest

from hack.bench.__main__ import NEEDED, ON_REQUEST, PARTS, TITLES
from hack.bench.balance_case import (
    CASE,
    COUNTS,
    MILLISECONDS,
    PICK,
    POLICIES,
    WORKER_COUNTS,
    WORKERS,
    pick_cost,
)
from hack.bench.balance_simulation import latencies, p99_ms
from hack.bench.http_cases import CONNECTIONS
from hack.bench.report import COLUMNS
from nodeagent.proxy.balance import BALANCERS

MEANS = [ms / 1e3 for ms in MILLISECONDS]


def test_it_runs_only_when_it_is_named() -> None:
    assert CASE in PARTS
    assert CASE in ON_REQUEST
    assert CASE in NEEDED


@pytest.mark.parametrize("case", [CASE, PICK, WORKERS])
def test_each_case_is_in_the_report(case: str) -> None:
    assert case in TITLES
    assert COLUMNS[case]


def test_the_columns_are_what_is_measured() -> None:
    assert [figure for _, figure, _ in COLUMNS[PICK]] == [f"pick_us_{count}" for count in COUNTS]
    assert [figure for _, figure, _ in COLUMNS[WORKERS]] == [f"p99_ms_{count}" for count in WORKER_COUNTS]


@pytest.mark.parametrize("policy", sorted(BALANCERS))
def test_a_pick_costs_something(policy: str) -> None:
    assert pick_cost(policy, 10) > 0


def test_a_slow_endpoint_costs_those_less_that_look_at_it() -> None:
    p99 = {policy: p99_ms(policy, 1, MEANS, CONNECTIONS) for policy in POLICIES}
    assert p99["ewma"] < p99["least-request"] / 2
    assert p99["least-request"] < p99["round-robin"] / 3
    assert p99["random"] > p99["round-robin"] / 2


def test_what_is_lost_between_workers() -> None:
    """`least-request` loses, since each worker sees a part of the load only; latency each sees by itself."""
    least = [p99_ms("least-request", workers, MEANS, CONNECTIONS) for workers in WORKER_COUNTS]
    assert all(fewer < more for fewer, more in pairwise(least))
    assert least[-1] < p99_ms("round-robin", 1, MEANS, CONNECTIONS) / 2
    ewma = [p99_ms("ewma", workers, MEANS, CONNECTIONS) for workers in WORKER_COUNTS]
    assert max(ewma) < 1.2 * ewma[0]


def test_the_same_seed_gives_the_same_figures() -> None:
    assert latencies("ewma", 2, MEANS, 8, 500) == latencies("ewma", 2, MEANS, 8, 500)
    assert latencies("ewma", 2, MEANS, 8, 500) != latencies("ewma", 2, MEANS, 8, 500, seed=2)
