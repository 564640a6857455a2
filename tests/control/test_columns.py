from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from middleware.contract import Metric, Middleware
from middleware.grpc import GrpcStatus
from nodeagent.stats import columns
from nodeagent.stats.columns import REFUSALS, Layout


def middleware(name: str, *metrics: Metric) -> Middleware:
    def parse(_: Any) -> None:
        return None

    build: Callable[..., Any] = lambda _options, _context: lambda handler: handler  # noqa: E731
    return Middleware(
        name=name, annotations=(), options=msgspec.Struct, parse=parse, build=build, metrics=metrics
    )


RETRIES = Metric("svcmesh_retries", "Requests sent again.")
STATE = Metric("svcmesh_circuit_breaker_open", "1 while the breaker is open.", "gauge")


def test_every_column_of_a_slot_is_its_own() -> None:
    buckets = [columns.DURATION_BUCKETS + i for i in range(len(columns.DURATION_BOUNDS) + 1)]
    single = [
        *range(columns.REQUESTS, columns.REQUESTS_5XX + 1),
        columns.MESH_RESPONSES,
        columns.DURATION_SUM,
        columns.BYTES_RECEIVED,
        columns.BYTES_SENT,
        columns.CONNECTIONS,
        columns.CONNECTIONS_ACTIVE,
        columns.UPSTREAM_CONNECTIONS,
        columns.RESENDS,
        columns.OUTLIER_EJECTIONS,
        columns.FAILOVERS,
        *columns.UPSTREAM_ERRORS.values(),
        *(columns.GRPC_CALLS + status for status in GrpcStatus),
    ]
    assert sorted(single + buckets) == list(range(columns.SLOT_COLUMNS))


def test_a_status_finds_its_column() -> None:
    assert [columns.REQUESTS + status // 100 for status in (101, 204, 302, 404, 503)] == [
        columns.REQUESTS_1XX,
        columns.REQUESTS_2XX,
        columns.REQUESTS_3XX,
        columns.REQUESTS_4XX,
        columns.REQUESTS_5XX,
    ]


def test_bounds_are_inclusive_and_the_last_bucket_has_none() -> None:
    bounds = columns.DURATION_BOUNDS
    assert list(bounds) == sorted(set(bounds))
    assert bisect_left(bounds, 0.0005) == 0
    assert bisect_left(bounds, 0.00051) == 1
    assert bisect_left(bounds, 10.0) == len(bounds) - 1
    assert bisect_left(bounds, 10.1) == len(bounds)


def test_middleware_columns_follow_and_slots_begin_on_a_cache_line() -> None:
    layout = Layout([middleware("retry", RETRIES), middleware("circuit-breaker", STATE)], ["bare_lf"])
    assert layout.column(RETRIES) == columns.SLOT_COLUMNS
    assert layout.column(STATE) == columns.SLOT_COLUMNS + 1
    assert layout.slot_columns % 8 == 0
    assert layout.slot_columns >= columns.SLOT_COLUMNS + 2
    assert layout.base(3) == 3 * layout.slot_columns
    assert layout.gauges == (columns.CONNECTIONS_ACTIVE, layout.column(STATE))
    assert [(entry.middleware, entry.metric) for entry in layout.metrics] == [
        ("retry", RETRIES),
        ("circuit-breaker", STATE),
    ]


def test_a_worker_slot_larger_than_a_port_slot_still_fits() -> None:
    reasons = [f"reason_{number}" for number in range(100)]
    layout = Layout([], reasons)
    assert layout.malformed_column("reason_99") < layout.slot_columns


def test_an_unknown_reason_counts_as_other() -> None:
    layout = Layout([], ["bare_lf"])
    assert layout.malformed_column("bare_lf") == columns.WORKER_MALFORMED + 1
    assert layout.malformed_column("something new") == columns.WORKER_MALFORMED


def test_metrics_of_one_name_share_a_column() -> None:
    layout = Layout([middleware("a", RETRIES, RETRIES), middleware("b", RETRIES, STATE)])
    assert [(entry.middleware, entry.column) for entry in layout.metrics] == [
        ("a", columns.SLOT_COLUMNS),
        ("b", columns.SLOT_COLUMNS + 1),
    ]


def test_a_metric_of_nobody_is_refused() -> None:
    with pytest.raises(KeyError):
        Layout([]).column(RETRIES)


def test_every_reason_of_the_codec_has_a_column() -> None:
    proxy = Path(columns.__file__).parents[1] / "proxy"
    words = {
        word for path in proxy.glob("*.py") for word in re.findall(r'HeadError\(\s*"(\w+)"', path.read_text())
    }
    assert words
    assert words <= set(REFUSALS)
